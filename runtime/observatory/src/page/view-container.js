// One container: its life, its memory against the limit, its events and findings.

import { Life, MemoryChart } from "./chart.js";
import { el, href, text } from "./dom.js";
import { EventsList } from "./events-list.js";
import { finding, sorted } from "./findings-list.js";
import { ago, bytes, duration, number, percent, rate } from "./format.js";
import { Stream } from "./stream.js";
import { tasks } from "./view-containers.js";

const TILES = [
  ["CPU", (c) => percent(c.rates.cpu), (c) => `${duration(c.cpu?.usage_ns)} in all`],
  ["Memory", (c) => bytes(c.memory?.usage_bytes), (c) => (c.limits?.memory_bytes ? `limit ${bytes(c.limits.memory_bytes)}` : "no limit")],
  ["Tasks", (c) => number(tasks(c)), (c) => (c.limits?.pids ? `limit ${number(c.limits.pids)}` : "no limit")],
  ["Network", (c) => (c.rates.received === null ? "–" : `${bytes(c.rates.received)}/s`), (c) => (c.rates.sent === null ? "in" : `in; out ${bytes(c.rates.sent)}/s`)],
  ["Clones", (c) => number(c.counters?.processes), (c) => `${rate(c.rates.clones)}; ${number(c.counters?.clone_failures)} refused`],
  ["Programs", (c) => number(c.counters?.execs), (c) => `${number(c.counters?.exits)} tasks ended`],
  ["Namespaces", (c) => number(c.counters?.namespaces_created), (c) => `made; ${number(c.counters?.namespaces_entered)} entered`],
  ["Mounts", (c) => number(c.counters?.mount_operations), (c) => `${number(c.counters?.mount_operation_failures)} refused`],
  ["Limit hits", (c) => number(c.counters?.memory_limit_hits), (c) => `stalled ${duration(c.counters?.memory_stall_ns ?? 0)}`],
  ["OOM kills", (c) => number(c.counters?.oom_kills), (c) => `${bytes(c.counters?.memory_reclaimed_bytes)} reclaimed`],
];

export class Container {
  needs = ["findings", "namespaces"];
  #store;
  #key;
  #stream = null;
  #heading = el("h1", {});
  #who = el("p", { class: "note" });
  #gone = el("p", { class: "empty", role: "status", hidden: true });
  #body;
  #tiles;
  #memory = new MemoryChart();
  #life = new Life();
  #phases = el("div", { class: "phases" });
  #list = new EventsList("Events of this container");
  #findings = el("ul", { class: "findings" });
  #noFinding = el("p", { class: "note" }, "none");
  #walls = el("ul", { class: "walls" });
  #all;
  #drawn = 0;
  #timer = 0;
  #known = "";
  #knownPhases = "";

  constructor(store, key) {
    this.#store = store;
    this.#key = key;
    this.title = key.split("/").at(-1);
    this.#tiles = TILES.map(([label, value, below]) => ({ value, below, node: [el("strong", {}), el("span", { class: "sub" })], label }));
    this.#all = el("a", {}, "with filters");
    const panel = (title, note, ...children) => el("section", { class: "panel" }, el("h2", {}, title, note ? [" ", note] : null), ...children);
    this.#body = el(
      "div", { class: "panels" },
      el("div", { class: "tiles" }, this.#tiles.map((tile) => el("div", { class: "tile" }, el("span", { class: "label" }, tile.label), tile.node))),
      panel("Memory against its limit", el("small", {}, "short marks: stalls; full lines: OOM kills"), this.#memory.node),
      panel("Start-up", null, this.#phases),
      panel("Life", el("small", {}, "a lane a kind of event; red where something failed"), this.#life.node),
      panel("Namespaces", null, this.#walls),
      panel("Findings", null, this.#noFinding, this.#findings),
      panel("Events", this.#all, this.#list.node),
    );
    this.node = el("section", { class: "view" },
      el("div", { class: "bar" }, el("a", { href: "#/containers", class: "back" }, "← containers"), this.#heading, this.#who),
      this.#gone, this.#body);
    this.update();
  }

  close() {
    this.#stream?.close();
    this.#list.close();
    clearTimeout(this.#timer);
  }

  update() {
    const c = this.#store.get(this.#key);
    this.#body.hidden = !c;
    this.#gone.hidden = Boolean(c);
    if (!c) {
      text(this.#heading, this.title);
      text(this.#gone, "The observatory knows no such container (any more).");
      return;
    }
    // Its id and not its name: names come again.
    this.#stream ??= new Stream({ container: c.cgroup }, () => this.#soon());
    this.title = c.name || c.key;
    text(this.#heading, this.title);
    const parts = [c.state, c.image, c.runtime, c.pid ? `pid ${c.pid}` : "", c.started ? `since ${ago(c.started)}` : "", c.cgroup,
      c.generation > 1 ? `generation ${c.generation}` : ""];
    text(this.#who, parts.filter(Boolean).join(" · "));
    this.#all.setAttribute("href", href("events", undefined, { container: c.name }));
    for (const tile of this.#tiles) {
      text(tile.node[0], tile.value(c));
      text(tile.node[1], tile.below(c));
    }
    this.#drawFindings(c);
    this.#drawWalls(c);
    this.#drawMemory(c);
    this.#drawPhases(c);
  }

  #drawMemory(c) {
    this.#memory.update(this.#store.series.get(c.key), c.limits?.memory_bytes, this.#stream?.events ?? []);
  }

  #drawFindings(c) {
    const found = sorted((this.#store.findings ?? []).filter((f) => f.container?.id === c.id));
    this.#noFinding.hidden = found.length > 0;
    text(this.#noFinding, this.#store.findings === null ? "this observatory does not look for leaks" : "none");
    const known = JSON.stringify(found);
    if (known === this.#known) return;
    this.#known = known;
    this.#findings.replaceChildren(...found.map((f) => finding(f, this.#store, false)));
  }

  #drawWalls(c) {
    const all = this.#store.namespaces?.[0];
    const own = all?.containers.find((one) => one.cgroup === c.key);
    if (!own) return;
    const items = Object.entries(own.namespaces).map(([kind, inode]) => {
      const host = inode !== null && inode === all.host[kind];
      const others = all.containers.filter((one) => one.cgroup !== c.key && inode && one.namespaces[kind] === inode).map((one) => one.name);
      const what = host ? "the host's" : others.length > 0 ? `shared with ${others.slice(0, 5).join(", ")}` : inode ? "own" : "not readable";
      return el("li", { class: host ? "ns-host" : others.length > 0 ? "ns-shared" : "ns-own", title: `${kind}:[${inode}]` }, `${kind}: ${what}`);
    });
    this.#walls.replaceChildren(...items);
  }

  /** Charts of thousands of events are drawn at most twice a second. */
  #soon() {
    clearTimeout(this.#timer);
    const wait = Math.max(0, 500 - (performance.now() - this.#drawn));
    this.#timer = setTimeout(() => {
      this.#drawn = performance.now();
      const events = this.#stream.events.slice();
      this.#list.set(events);
      this.#life.update(events);
      const c = this.#store.get(this.#key);
      if (c) this.#drawMemory(c);
    }, wait);
  }

  #drawPhases(c) {
    const phases = c.start_phases ?? [];
    const known = JSON.stringify(phases);
    if (known === this.#knownPhases) return;
    this.#knownPhases = known;
    if (phases.length === 0) {
      this.#phases.replaceChildren(el("p", { class: "note" }, "It started before the observatory."));
      return;
    }
    const whole = phases.reduce((sum, phase) => sum + phase.ns, 0);
    const bar = el("div", { class: "phase-bar" }, phases.map((phase, n) => {
      const part = el("span", { class: `phase phase-${n}`, title: `${phase.phase}: ${duration(phase.ns)}` });
      part.style.flexGrow = String(Math.max(phase.ns, whole / 200));
      return part;
    }));
    const list = el("ol", { class: "phase-list" }, phases.map((phase, n) =>
      el("li", {}, el("span", { class: `key phase-${n}`, "aria-hidden": "true" }), ` ${phase.phase} `, el("strong", {}, duration(phase.ns)))));
    this.#phases.replaceChildren(bar, list, el("p", { class: "note" }, `${duration(whole)} from its cgroup to the program`));
  }
}
