// All containers: live numbers, sorted and chosen.

import { sparkline } from "./chart.js";
import { el, href, text } from "./dom.js";
import { bytes, duration, number, percent, rate } from "./format.js";
import { Rows } from "./rows.js";

const SORTS = {
  name: (c) => c.name,
  runtime: (c) => c.runtime,
  cpu: (c) => c.rates.cpu ?? -1,
  memory: (c) => c.memory?.usage_bytes ?? -1,
  tasks: (c) => tasks(c) ?? -1,
  clones: (c) => c.counters?.processes ?? -1,
  namespaces: (c) => (c.counters?.namespaces_created ?? 0) + (c.counters?.namespaces_entered ?? 0),
  mounts: (c) => c.counters?.mount_operations ?? -1,
  hits: (c) => c.counters?.memory_limit_hits ?? -1,
  stall: (c) => c.counters?.memory_stall_ns ?? -1,
  kills: (c) => c.counters?.oom_kills ?? -1,
};

const COLUMNS = [
  { title: "Name", sort: "name", class: "name" },
  { title: "Runtime", sort: "runtime", class: "runtime" },
  { title: "CPU", sort: "cpu", class: "num", hint: "of one CPU" },
  { title: "last 5 min", class: "sparks" },
  { title: "Memory", sort: "memory", class: "memory", hint: "in use, and of the limit" },
  { title: "Tasks", sort: "tasks", class: "num", hint: "tasks now" },
  { title: "Clones", sort: "clones", class: "num", hint: "processes made so far" },
  { title: "NS", sort: "namespaces", class: "num", hint: "made and entered so far" },
  { title: "Mounts", sort: "mounts", class: "num", hint: "mount operations so far" },
  { title: "Limit hits", sort: "hits", class: "num", hint: "entries into reclaim at the memory limit" },
  { title: "Stalled", sort: "stall", class: "num", hint: "time that tasks stood at the memory limit" },
  { title: "OOM kills", sort: "kills", class: "num" },
];

/** Tasks now: threads, where the kernel counts them. */
export const tasks = (c) => c.tasks?.threads ?? c.tasks?.processes;

export class Containers {
  title = "Containers";
  needs = ["findings"];
  #store;
  #parameters;
  #rows;
  #count = el("p", { class: "note", role: "status" });
  #search;
  #state;
  #services;
  #empty = el("p", { class: "empty", hidden: true });

  constructor(store, _, parameters) {
    this.#store = store;
    this.#parameters = { sort: "cpu", order: "down", ...parameters };
    this.#search = el("input", {
      type: "search", id: "search", value: parameters.q, placeholder: "name, image, id or label", autocomplete: "off",
      spellcheck: "false", oninput: () => this.#choose("q", this.#search.value),
    });
    this.#state = el(
      "select", { id: "state", onchange: () => this.#choose("state", this.#state.value) },
      ["", "creating", "created", "running", "paused", "stopped"].map((state) =>
        el("option", { value: state, selected: state === (parameters.state ?? "") }, state || "any state")),
    );
    this.#services = el("input", {
      type: "checkbox", id: "services", checked: parameters.services === "yes",
      onchange: () => this.#choose("services", this.#services.checked ? "yes" : ""),
    });
    this.#rows = new Rows({
      label: "Containers", class: "containers", height: 38, columns: COLUMNS, key: (c) => c.key,
      make: (c) => this.#make(c), onsort: (by) => this.#sort(by),
    });
    this.node = el(
      "section", { class: "view tall" },
      el("div", { class: "bar" },
        el("h1", {}, "Containers"),
        el("label", { for: "search" }, "Find ", this.#search),
        el("label", { for: "state" }, "State ", this.#state),
        el("label", { for: "services", class: "check" }, this.#services, " services of the host"),
        this.#count),
      this.#rows.node, this.#empty,
    );
    this.update();
  }

  close() {
    this.#rows.close();
  }

  #choose(name, value) {
    this.#parameters[name] = value;
    history.replaceState(null, "", href("containers", undefined, this.#parameters));
    this.update();
  }

  #sort(by) {
    const words = by === "name" || by === "runtime";
    const same = this.#parameters.sort === by;
    const down = same ? this.#parameters.order === "up" : !words;
    this.#parameters.sort = by;
    this.#choose("order", down ? "down" : "up");
  }

  update() {
    const { sort, order, q = "", state, services } = this.#parameters;
    const find = q.toLowerCase();
    const chosen = this.#store.containers.filter((c) => {
      if (state && c.state !== state) return false;
      if (services !== "yes" && c.kind === "service") return false;
      return find === "" || haystack(c).includes(find);
    });
    const by = SORTS[sort] ?? SORTS.cpu;
    const sign = order === "up" ? 1 : -1;
    // What has ended stays for a while, below what goes on.
    const over = (c) => c.state === "stopped";
    chosen.sort((a, b) => {
      if (over(a) !== over(b)) return over(a) ? 1 : -1;
      const [x, y] = [by(a), by(b)];
      if (x === y) return a.key < b.key ? -1 : 1;
      return (x < y ? -1 : 1) * sign;
    });
    this.#rows.sorted(sort, order !== "up");
    this.#rows.set(chosen);
    text(this.#count, `${chosen.length} of ${this.#store.containers.length}`);
    this.#empty.hidden = chosen.length > 0;
    text(this.#empty, this.#store.containers.length === 0
      ? "No container yet. Start one: terrarium run ROOTFS -- sh"
      : "No container is like that.");
  }

  #make(container) {
    const dot = el("span", { class: "dot" });
    const name = el("a", { href: href("container", container.key) });
    const badge = el("a", { class: "badge", href: href("findings", undefined, { q: container.name }), hidden: true });
    const image = el("span", { class: "sub" });
    const spark = sparkline();
    const meter = el("span", { class: "meter-fill" });
    const share = el("span", { class: "sub" });
    const used = el("span", {});
    const cells = Object.fromEntries(
      ["runtime", "cpu", "tasks", "clones", "namespaces", "mounts", "hits", "stall", "kills"].map((id) => [id, el("span", {})]));
    const cell = (id, extra) => el("div", { role: "cell", class: id === "runtime" ? "runtime" : "num" }, cells[id], extra);
    const clones = el("span", { class: "sub" });
    const node = el(
      "div", {},
      el("div", { role: "cell", class: "name" }, dot, name, badge, image),
      cell("runtime"), cell("cpu"),
      el("div", { role: "cell", class: "sparks" }, spark.node),
      el("div", { role: "cell", class: "memory" }, used, share, el("span", { class: "meter", "aria-hidden": "true" }, meter)),
      cell("tasks"), cell("clones", clones), cell("namespaces"), cell("mounts"), cell("hits"), cell("stall"), cell("kills"),
    );
    let shown;
    const update = (c) => {
      if (shown === c) return;
      shown = c;
      dot.className = `dot ${c.state}`;
      dot.title = c.state;
      text(name, c.name || c.id || c.key);
      name.title = c.key;
      text(image, c.image);
      text(cells.runtime, c.runtime);
      text(cells.cpu, percent(c.rates.cpu));
      const limit = c.limits?.memory_bytes;
      const usage = c.memory?.usage_bytes;
      text(used, bytes(usage));
      const part = limit && usage !== null ? (100 * usage) / limit : null;
      text(share, part === null ? "" : `${percent(part)} of ${bytes(limit)}`);
      meter.style.width = `${Math.min(100, part ?? 0)}%`;
      meter.classList.toggle("full", part > 90);
      text(cells.tasks, number(tasks(c)));
      text(cells.clones, number(c.counters?.processes));
      text(clones, c.rates.clones ? rate(c.rates.clones) : "");
      text(cells.namespaces, number((c.counters?.namespaces_created ?? 0) + (c.counters?.namespaces_entered ?? 0)));
      text(cells.mounts, number(c.counters?.mount_operations));
      text(cells.hits, number(c.counters?.memory_limit_hits));
      text(cells.stall, c.counters?.memory_stall_ns ? duration(c.counters.memory_stall_ns) : "0");
      text(cells.kills, number(c.counters?.oom_kills));
      cells.kills.parentNode.classList.toggle("bad", (c.counters?.oom_kills ?? 0) > 0);
      const series = this.#store.series.get(c.key);
      if (series) spark.update(series.cpu, 5);
      const found = (this.#store.findings ?? []).filter((f) => f.container?.id === c.id && f.severity !== "info").length;
      badge.hidden = found === 0;
      text(badge, found === 1 ? "1 finding" : `${found} findings`);
    };
    return { node, update };
  }
}

function haystack(c) {
  const labels = Object.entries(c.labels ?? {}).map(([name, value]) => `${name}=${value}`);
  return [c.name, c.image, c.id, c.cgroup, c.runtime, c.pod, ...labels].join(" ").toLowerCase();
}
