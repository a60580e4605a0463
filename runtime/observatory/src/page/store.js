// What the page knows of the containers: asked for every two seconds, with the last five minutes of each.

const PERIOD = 2000;
const HIDDEN_PERIOD = 10000;
const SAMPLES = 150;

/** Lines of JSON, or an array. */
function parse(body) {
  const trimmed = body.trim();
  if (trimmed.startsWith("[")) return JSON.parse(trimmed);
  return trimmed === "" ? [] : trimmed.split("\n").map((line) => JSON.parse(line));
}

async function ask(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return parse(await answer.text());
}

/** The counters of a container that only grow, and what is shown of them. */
const COUNTERS = {
  clones: (c) => c.counters?.processes,
  execs: (c) => c.counters?.execs,
  hits: (c) => c.counters?.memory_limit_hits,
  stall: (c) => c.counters?.memory_stall_ns,
  cpu: (c) => c.cpu?.usage_ns,
  received: (c) => traffic(c, "receive"),
  sent: (c) => traffic(c, "transmit"),
};

function traffic(container, direction) {
  const all = container.network;
  return Array.isArray(all) ? all.reduce((sum, one) => sum + (one[direction]?.bytes ?? 0), 0) : null;
}

export class Store extends EventTarget {
  /** The containers, as the server tells them, each with `key` and `rates`. */
  containers = [];
  /** By key: the last samples. */
  series = new Map();
  /** Findings; null where the server does not look for them. */
  findings = [];
  /** What `/api/v1/namespaces` says. */
  namespaces = null;
  #before = new Map();
  #wanted = new Set();
  #timer = 0;
  #absent = new Set();

  start() {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#soon(0);
    });
    this.#soon(0);
  }

  /** Says that a view needs `what` (`findings`, `namespaces`) besides the containers. */
  want(...what) {
    this.#wanted = new Set(what);
    this.#soon(0);
  }

  /** The container with this cgroup path or id. */
  get(key) {
    return this.containers.find((container) => container.key === key)
      ?? this.containers.find((container) => container.id === key);
  }

  #soon(after) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#poll(), after);
  }

  async #poll() {
    try {
      const extra = [...this.#wanted].map(async (what) => {
        this[what] = this.#absent.has(what) ? null : await ask(what === "findings" ? "/api/v1/leaks" : `/api/v1/${what}`);
        if (this[what] === null) this.#absent.add(what);
      });
      const [containers] = await Promise.all([ask("/api/v1/containers"), ...extra]);
      this.#take(containers ?? []);
      this.dispatchEvent(new Event("change"));
    } catch (error) {
      this.dispatchEvent(new CustomEvent("trouble", { detail: String(error.message ?? error) }));
    }
    this.#soon(document.hidden ? HIDDEN_PERIOD : PERIOD);
  }

  #take(containers) {
    const now = performance.now();
    const before = this.#before;
    this.#before = new Map();
    for (const container of containers) {
      const key = container.cgroup;
      container.key = key;
      const counts = {};
      for (const [name, read] of Object.entries(COUNTERS)) counts[name] = read(container) ?? null;
      const earlier = before.get(key);
      container.rates = {};
      for (const name of Object.keys(COUNTERS)) {
        const grown = earlier && counts[name] !== null && earlier.counts[name] !== null;
        const seconds = grown ? (now - earlier.at) / 1000 : 0;
        container.rates[name] =
          grown && seconds > 0 ? Math.max(0, (counts[name] - earlier.counts[name]) / seconds) : null;
      }
      // Percent of one CPU, and of the time.
      if (container.rates.cpu !== null) container.rates.cpu /= 1e7;
      this.#before.set(key, { at: now, counts });
      this.#sample(container);
    }
    for (const key of this.series.keys()) if (!this.#before.has(key)) this.series.delete(key);
    this.containers = containers;
  }

  #sample(container) {
    let series = this.series.get(container.key);
    if (!series) this.series.set(container.key, (series = { time: [], cpu: [], memory: [] }));
    series.time.push(Date.now());
    series.cpu.push(container.rates.cpu ?? 0);
    series.memory.push(container.memory?.usage_bytes ?? 0);
    if (series.time.length > SAMPLES) for (const list of Object.values(series)) list.shift();
  }
}
