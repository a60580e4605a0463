// Which containers share which namespaces with whom, and with the host.

import { el, href, text } from "./dom.js";
import { Rows } from "./rows.js";

const KINDS = ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"];

export class Namespaces {
  title = "Namespaces";
  needs = ["namespaces"];
  #store;
  #rows;
  #count = el("p", { class: "note", role: "status" });
  #search;
  #shared;
  #sharers = new Map();

  constructor(store, _, parameters) {
    this.#store = store;
    const again = () => {
      history.replaceState(null, "", href("namespaces", undefined, { q: this.#search.value, shared: this.#shared.checked ? "yes" : "" }));
      this.update();
    };
    this.#search = el("input", { type: "search", id: "search", value: parameters.q, placeholder: "name", autocomplete: "off", oninput: again });
    this.#shared = el("input", { type: "checkbox", id: "shared", checked: parameters.shared === "yes", onchange: again });
    this.#rows = new Rows({
      label: "Namespaces of containers", class: "namespaces", height: 32, key: (item) => item.key,
      columns: [{ title: "Container", class: "name" }, ...KINDS.map((kind) => ({ title: kind, class: "ns" }))],
      make: () => this.#make(),
    });
    this.node = el(
      "section", { class: "view tall" },
      el("div", { class: "bar" }, el("h1", {}, "Namespaces"),
        el("label", { for: "search" }, "Find ", this.#search),
        el("label", { for: "shared", class: "check" }, this.#shared, " only those that share with other containers"),
        this.#count),
      el("p", { class: "legend" },
        el("span", { class: "ns-own" }, "own"), " of this container alone ",
        el("span", { class: "ns-shared" }, "with web"), " shared with other containers ",
        el("span", { class: "ns-host" }, "host"), " the host's"),
      this.#rows.node,
    );
    this.update();
  }

  close() {
    this.#rows.close();
  }

  update() {
    const all = this.#store.namespaces?.[0];
    if (!all) return;
    this.#sharers = new Map();
    for (const container of all.containers) {
      for (const kind of KINDS) {
        const inode = container.namespaces[kind];
        if (!inode || inode === all.host[kind]) continue;
        const key = `${kind}:${inode}`;
        if (!this.#sharers.has(key)) this.#sharers.set(key, []);
        this.#sharers.get(key).push(container.name);
      }
    }
    const find = this.#search.value.toLowerCase();
    const only = this.#shared.checked;
    const items = all.containers
      .filter((c) => c.name.toLowerCase().includes(find))
      .map((c) => ({
        key: c.cgroup, name: c.name,
        cells: KINDS.map((kind) => {
          const inode = c.namespaces[kind];
          if (!inode) return { kind: "unknown", label: "–", title: "not readable" };
          const title = `${kind}:[${inode}]`;
          if (inode === all.host[kind]) return { kind: "host", label: "host", title: `${title}, the host's` };
          const others = this.#sharers.get(`${kind}:${inode}`).filter((name) => name !== c.name);
          if (others.length === 0) return { kind: "own", label: "own", title };
          const label = others.length === 1 ? `with ${others[0]}` : `with ${others.length} others`;
          return { kind: "shared", label, title: `${title}, shared with ${others.slice(0, 30).join(", ")}` };
        }),
      }))
      .filter((item) => !only || item.cells.some((cell) => cell.kind === "shared"));
    this.#rows.set(items);
    text(this.#count, `${items.length} of ${all.containers.length} running`);
  }

  #make() {
    const name = el("a", {});
    const cells = KINDS.map(() => el("span", {}));
    const node = el("div", {},
      el("div", { role: "rowheader", class: "name" }, name),
      cells.map((cell) => el("div", { role: "cell", class: "ns" }, cell)));
    return {
      node,
      update(item) {
        text(name, item.name);
        name.setAttribute("href", href("container", item.key));
        item.cells.forEach((cell, n) => {
          text(cells[n], cell.label);
          cells[n].className = `ns-${cell.kind}`;
          cells[n].title = cell.title;
        });
      },
    };
  }
}
