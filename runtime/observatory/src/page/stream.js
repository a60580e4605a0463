// Events as they come, in a bounded list.

const KEPT = 10000;
const LONGEST_WAIT = 15000;

export class Stream {
  /** The last events, oldest first. */
  events = [];
  /** Events that have come, kept or not. */
  seen = 0;
  /** Events that were lost before they came here. */
  lost = 0;
  /** What is wrong, or empty. */
  trouble = "";
  #abort = new AbortController();
  #changed;
  #pending = false;

  /** `query` is that of `/api/v1/events`; `changed` is called at most once a frame. */
  constructor(query, changed) {
    this.#changed = changed;
    this.#run(new URLSearchParams(Object.entries(query).filter(([, value]) => value)));
  }

  close() {
    this.#abort.abort();
  }

  #tell() {
    if (this.#pending || this.#abort.signal.aborted) return;
    this.#pending = true;
    const tell = () => {
      this.#pending = false;
      if (!this.#abort.signal.aborted) this.#changed(this);
    };
    // A hidden page gets no frames; its list stays bounded all the same.
    if (document.hidden) setTimeout(tell, 1000);
    else requestAnimationFrame(tell);
  }

  async #run(query) {
    let wait = 500;
    while (!this.#abort.signal.aborted) {
      try {
        const answer = await fetch(`/api/v1/events?${query}`, { signal: this.#abort.signal });
        if (answer.status === 400) {
          this.trouble = (await answer.text()).trim();
          this.#tell();
          return;
        }
        if (!answer.ok) throw new Error(`the observatory answers ${answer.status}`);
        wait = 500;
        // It begins again with the oldest event that is kept.
        this.events = [];
        this.seen = 0;
        this.lost = 0;
        this.trouble = "";
        this.#tell();
        await this.#read(answer.body);
        throw new Error("the observatory ended the stream");
      } catch (error) {
        if (this.#abort.signal.aborted) return;
        this.trouble = `${error.message ?? error}; trying again`;
        this.#tell();
      }
      await new Promise((done) => setTimeout(done, wait));
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  }

  async #read(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line !== "") this.#add(JSON.parse(line));
      if (this.events.length > KEPT * 1.2) this.events.splice(0, this.events.length - KEPT);
      this.#tell();
    }
  }

  #add(event) {
    this.seen += 1;
    this.lost += event.lost_before ?? 0;
    this.events.push(event);
  }
}
