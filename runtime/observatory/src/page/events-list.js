// Events in rows, and one of them in full.

import { el, href, text } from "./dom.js";
import { clock, detail, result } from "./format.js";
import { Rows } from "./rows.js";

const COLUMNS = [
  { title: "Time", class: "time" },
  { title: "Type", class: "type" },
  { title: "Container", class: "who" },
  { title: "PID", class: "num" },
  { title: "Command", class: "comm" },
  { title: "Result", class: "result" },
  { title: "Detail", class: "detail" },
];

/** Opens what is known of an event. */
function open(event) {
  const close = el("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = el(
    "dialog", { "aria-labelledby": "event-title", onclose: () => dialog.remove() },
    el("h2", { id: "event-title" }, `${event.type} at ${clock(event.time)}`),
    el("pre", { tabindex: 0 }, JSON.stringify(event, null, 2)),
    close,
  );
  document.body.append(dialog);
  dialog.showModal();
}

export class EventsList {
  #rows;
  #numbers = new WeakMap();
  #next = 0;
  follow = true;

  constructor(label) {
    this.#rows = new Rows({
      label, class: "events", height: 26, columns: COLUMNS,
      key: (event) => this.#number(event), make,
    });
    this.node = this.#rows.node;
    // Whoever scrolls up wants to read; whoever goes back to the end wants what comes.
    this.node.addEventListener("scroll", () => { this.follow = this.#rows.atEnd; }, { passive: true });
  }

  #number(event) {
    if (!this.#numbers.has(event)) this.#numbers.set(event, (this.#next += 1));
    return this.#numbers.get(event);
  }

  set(events) {
    const follow = this.follow;
    this.#rows.set(events);
    if (follow) this.#rows.scrollToEnd();
  }

  close() {
    this.#rows.close();
  }
}

function make(event) {
  const outcome = result(event);
  const bad = outcome !== "" && outcome !== "ok";
  const name = event.container?.name ?? "";
  const container = event.container?.id
    ? el("a", { href: href("container", event.container.id), tabindex: -1 }, name)
    : el("span", { class: "sub" }, name);
  const node = el(
    "div", { class: bad ? "failed" : event.severity === "info" ? null : "warned" },
    el("div", { role: "cell", class: "time" }, el("button", { type: "button", class: "link", title: "everything about this event", onclick: () => open(event) }, clock(event.time))),
    el("div", { role: "cell", class: "type" }, event.type),
    el("div", { role: "cell", class: "who" }, container),
    el("div", { role: "cell", class: "num" }, String(event.process?.pid ?? "")),
    el("div", { role: "cell", class: "comm" }, event.process?.comm ?? ""),
    el("div", { role: "cell", class: "result" }, outcome),
    el("div", { role: "cell", class: "detail" }),
  );
  const told = detail(event);
  const cell = node.lastChild;
  text(cell, event.lost_before > 0 ? `(${event.lost_before} lost before) ${told}` : told);
  cell.title = told;
  return { node, update() {} };
}
