// Where isolation leaks, with the evidence.

import { el, href, text } from "./dom.js";
import { finding, SEVERITIES, sorted } from "./findings-list.js";

/** More than anybody reads on one page. */
const SHOWN = 300;

export class Findings {
  title = "Findings";
  needs = ["findings"];
  #store;
  #parameters;
  #list = el("ul", { class: "findings" });
  #count = el("p", { class: "note", role: "status" });
  #empty = el("p", { class: "empty" });
  #known = "";

  constructor(store, _, parameters) {
    this.#store = store;
    this.#parameters = { ...parameters };
    const search = el("input", { type: "search", id: "search", value: parameters.q, placeholder: "container or check", autocomplete: "off",
      oninput: () => this.#choose("q", search.value) });
    const least = el("select", { id: "least", onchange: () => this.#choose("least", least.value) },
      SEVERITIES.toReversed().map((severity) =>
        el("option", { value: severity, selected: severity === (parameters.least ?? "info") }, `${severity} and above`)));
    this.node = el(
      "section", { class: "view" },
      el("div", { class: "bar" }, el("h1", {}, "Findings"),
        el("label", { for: "search" }, "Find ", search), el("label", { for: "least" }, "Severity ", least), this.#count),
      this.#list, this.#empty,
    );
    this.update();
  }

  close() {}

  #choose(name, value) {
    this.#parameters[name] = value;
    history.replaceState(null, "", href("findings", undefined, this.#parameters));
    this.update();
  }

  update() {
    const all = this.#store.findings;
    const find = (this.#parameters.q ?? "").toLowerCase();
    const least = SEVERITIES.indexOf(this.#parameters.least ?? "info");
    const chosen = sorted(all ?? []).filter((f) =>
      SEVERITIES.indexOf(f.severity) <= least && `${f.check} ${f.container?.name} ${f.container?.id}`.toLowerCase().includes(find));
    text(this.#count, `${chosen.length} of ${all?.length ?? 0}${chosen.length > SHOWN ? `, the first ${SHOWN} shown` : ""}`);
    this.#empty.hidden = chosen.length > 0;
    text(this.#empty, all === null
      ? "This observatory does not look for leaks."
      : all.length === 0 ? "No finding: no wall is missing that should be there." : "No finding is like that.");
    // An open piece of evidence stays open while nothing changes.
    const known = JSON.stringify(chosen.slice(0, SHOWN));
    if (known === this.#known) return;
    this.#known = known;
    const open = new Set([...this.#list.querySelectorAll("details[open]")].map((node) => node.parentNode.dataset.key));
    this.#list.replaceChildren(...chosen.slice(0, SHOWN).map((f) => {
      const node = finding(f, this.#store, true);
      node.dataset.key = `${f.check} ${f.container?.id}`;
      if (open.has(node.dataset.key)) node.querySelector("details")?.setAttribute("open", "");
      return node;
    }));
  }
}
