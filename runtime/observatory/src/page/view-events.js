// Events as they come, with the filters of `terrarium events`.

import { el, href, text } from "./dom.js";
import { EventsList } from "./events-list.js";
import { number, quoted } from "./format.js";
import { Stream } from "./stream.js";

/** The filters: query of the API and option of the command line have the same name. */
const FILTERS = [
  { name: "container", hint: "name, id or host" },
  { name: "probe", hint: "mount", list: ["task", "namespace", "mount", "memory", "cgroup", "guard"] },
  {
    name: "type", hint: "mount or process.exec",
    list: ["process", "process.clone", "process.exec", "process.exit", "namespace", "namespace.create", "namespace.enter",
      "mount", "memory", "memory.limit", "memory.oom", "cgroup", "guard", "container", "finding", "finding.open", "residue", "stream"],
  },
  { name: "errno", hint: "EPERM", list: ["EPERM", "EACCES", "EBUSY", "EINVAL", "ENOENT", "ENOMEM", "ENOSPC", "EAGAIN"] },
  { name: "since", hint: "10m" },
  { name: "until", hint: "1m" },
];

export class Events {
  title = "Events";
  needs = [];
  #store;
  #parameters;
  #stream;
  #list = new EventsList("Events");
  #count = el("p", { class: "note" });
  #trouble = el("p", { class: "trouble", role: "alert", hidden: true });
  #command = el("code", {});
  #names = el("datalist", { id: "names" });
  #pause;
  #paused = false;
  #known = "";
  #rate = { at: 0, seen: 0, text: "" };

  constructor(store, _, parameters) {
    this.#store = store;
    this.#parameters = Object.fromEntries(FILTERS.map(({ name }) => [name, parameters[name] ?? ""]));
    const fields = FILTERS.map(({ name, hint, list }) => {
      const id = `filter-${name}`;
      const from = name === "container" ? "names" : list ? `${id}-list` : null;
      const input = el("input", { id, name, value: this.#parameters[name], placeholder: hint, list: from, autocomplete: "off", spellcheck: "false" });
      const words = list ? el("datalist", { id: from }, list.map((word) => el("option", { value: word }))) : null;
      return el("label", { for: id }, name, " ", input, words);
    });
    const form = el("form", { class: "bar filters", "aria-label": "Filters" }, fields,
      el("button", { type: "submit" }, "Apply"),
      el("button", { type: "button", onclick: () => this.#clear(form) }, "Clear"));
    form.addEventListener("change", () => this.#apply(form));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#apply(form);
    });
    this.#pause = el("button", { type: "button", "aria-pressed": "false", onclick: () => this.#toggle() }, "Pause");
    this.node = el(
      "section", { class: "view tall" },
      el("div", { class: "bar" }, el("h1", {}, "Events"), this.#pause, this.#count,
        el("p", { class: "note command" }, "the same in a terminal: ", this.#command)),
      form, this.#names, this.#trouble, this.#list.node,
    );
    this.#start();
    this.update();
  }

  close() {
    this.#stream.close();
    this.#list.close();
  }

  update() {
    // The names to choose from; made anew only when there are others.
    const names = [...new Set(this.#store.containers.map((container) => container.name))].sort();
    const known = JSON.stringify(names);
    if (known === this.#known) return;
    this.#known = known;
    this.#names.replaceChildren(...names.slice(0, 1000).map((name) => el("option", { value: name })));
  }

  #apply(form) {
    const next = Object.fromEntries(FILTERS.map(({ name }) => [name, form.elements[name].value.trim()]));
    if (JSON.stringify(next) === JSON.stringify(this.#parameters)) return;
    this.#parameters = next;
    history.replaceState(null, "", href("events", undefined, next));
    this.#stream.close();
    this.#start();
  }

  #clear(form) {
    for (const { name } of FILTERS) form.elements[name].value = "";
    this.#apply(form);
  }

  #toggle() {
    this.#paused = !this.#paused;
    this.#pause.setAttribute("aria-pressed", String(this.#paused));
    text(this.#pause, this.#paused ? "Go on" : "Pause");
    this.#list.follow = !this.#paused;
    this.#show(this.#stream);
  }

  #start() {
    const words = FILTERS.filter(({ name }) => this.#parameters[name])
      .map(({ name }) => ` --${name} ${quoted(this.#parameters[name])}`);
    text(this.#command, `terrarium events --follow${words.join("")}`);
    this.#list.follow = true;
    this.#rate = { at: performance.now(), seen: 0, text: "" };
    this.#stream = new Stream(this.#parameters, (stream) => this.#show(stream));
  }

  #show(stream) {
    this.#trouble.hidden = stream.trouble === "";
    text(this.#trouble, stream.trouble);
    const passed = performance.now() - this.#rate.at;
    if (passed > 1000) {
      const each = Math.max(0, ((stream.seen - this.#rate.seen) * 1000) / passed);
      this.#rate = { at: performance.now(), seen: stream.seen, text: `, ${number(Math.round(each))}/s` };
    }
    const lost = stream.lost > 0 ? `, ${number(stream.lost)} lost` : "";
    text(this.#count, `${number(stream.seen)} events${this.#rate.text}${lost}${this.#paused ? " (paused)" : ""}`);
    if (!this.#paused) this.#list.set(stream.events.slice());
  }
}
