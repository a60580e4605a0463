// A table of which only the rows in sight exist.

import { el } from "./dom.js";

const BEYOND = 6;

export class Rows {
  #items = [];
  #live = new Map();
  #frame = 0;
  #options;

  /**
   * `columns` are `{ title, class, sort }`, `height` is a row's, `key` names an item, `make` gives
   * `{ node, update(item) }` for one.
   */
  constructor(options) {
    this.#options = options;
    this.body = el("div", { class: "rows-body", role: "rowgroup" });
    this.head = el("div", { class: "row head", role: "row", "aria-rowindex": 1 });
    const head = el("div", { role: "rowgroup", class: "rows-head" }, this.head);
    this.node = el(
      "div",
      { class: `rows ${options.class}`, role: "table", "aria-label": options.label, tabindex: 0 },
      head,
      this.body,
    );
    this.node.addEventListener("scroll", () => this.#soon(), { passive: true });
    this.node.addEventListener("keydown", (event) => this.#key(event));
    this.#watch = new ResizeObserver(() => this.#soon());
    this.#watch.observe(this.node);
    this.#headings();
  }

  #watch;

  close() {
    this.#watch.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  /** Whether the last row is in sight. */
  get atEnd() {
    return this.node.scrollTop + this.node.clientHeight >= this.node.scrollHeight - 4;
  }

  set(items) {
    this.#items = items;
    this.node.setAttribute("aria-rowcount", items.length + 1);
    this.body.style.height = `${items.length * this.#options.height}px`;
    this.#soon();
  }

  scrollToEnd() {
    this.node.scrollTop = this.node.scrollHeight;
  }

  sorted(by, descending) {
    [...this.head.children].forEach((cell, n) => {
      const { sort } = this.#options.columns[n];
      if (sort) cell.setAttribute("aria-sort", sort !== by ? "none" : descending ? "descending" : "ascending");
    });
  }

  #headings() {
    for (const column of this.#options.columns) {
      const title = column.sort
        ? el("button", { type: "button", title: column.hint, onclick: () => this.#options.onsort(column.sort) }, column.title)
        : el("span", { title: column.hint }, column.title);
      this.head.append(el("div", { role: "columnheader", class: column.class }, title));
    }
  }

  #soon() {
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const { height, key, make } = this.#options;
    const top = this.node.scrollTop;
    const first = Math.max(0, Math.floor(top / height) - BEYOND);
    const last = Math.min(this.#items.length, Math.ceil((top + this.node.clientHeight) / height) + BEYOND);
    const wanted = new Map();
    for (let n = first; n < last; n += 1) wanted.set(key(this.#items[n]), n);
    for (const [name, row] of this.#live) {
      if (!wanted.has(name)) {
        row.node.remove();
        this.#live.delete(name);
      }
    }
    for (const [name, n] of wanted) {
      let row = this.#live.get(name);
      if (!row) {
        row = make(this.#items[n]);
        row.node.classList.add("row");
        row.node.setAttribute("role", "row");
        this.#live.set(name, row);
        this.body.append(row.node);
      }
      row.node.style.transform = `translateY(${n * height}px)`;
      row.node.setAttribute("aria-rowindex", n + 2);
      row.node.classList.toggle("odd", n % 2 === 1);
      row.update(this.#items[n]);
    }
  }

  /** Up and down go from the link of a row to that of the next. */
  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    const rows = [...this.#live.values()].map((row) => row.node);
    rows.sort((a, b) => a.getAttribute("aria-rowindex") - b.getAttribute("aria-rowindex"));
    const here = rows.findIndex((row) => row.contains(document.activeElement));
    if (here === -1 && document.activeElement !== this.node) return;
    const visible = rows.findIndex((row) => row.getBoundingClientRect().bottom > this.node.getBoundingClientRect().top + 60);
    const next = rows[here === -1 ? Math.max(0, visible) : here + step];
    const target = next?.querySelector("a, button");
    if (!target) return;
    event.preventDefault();
    target.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }
}
