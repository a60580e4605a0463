// Small pictures of numbers. Their colours come from the style sheet.

import { el, svg } from "./dom.js";
import { bytes, clock, detail, duration } from "./format.js";

/** A line of the last values, as `{ node, update(values, top) }`. */
export function sparkline() {
  const line = svg("polyline", { class: "spark-line" });
  const node = svg("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" }, line);
  return {
    node,
    update(values, top) {
      const most = Math.max(top, ...values);
      const step = 100 / Math.max(1, values.length - 1);
      const points = values.map((value, n) => `${(n * step).toFixed(1)},${(23 - (22 * value) / most).toFixed(1)}`);
      line.setAttribute("points", points.join(" "));
    },
  };
}

const WIDTH = 1000;

/** The memory of a container against its limit, with stalls and kills marked. */
export class MemoryChart {
  #height = 180;
  #area = svg("path", { class: "area" });
  #line = svg("polyline", { class: "line" });
  #limit = svg("line", { class: "limit", x1: 0, x2: WIDTH });
  #marks = svg("g");
  #top = el("span", { class: "axis top" });
  #from = el("span", { class: "axis from" });
  #to = el("span", { class: "axis to" });

  constructor() {
    const picture = svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${this.#height}`, preserveAspectRatio: "none", role: "img", "aria-label": "Memory in use over the last five minutes, against its limit" },
      this.#area, this.#line, this.#limit, this.#marks,
    );
    this.node = el("div", { class: "chart" }, picture, this.#top, this.#from, this.#to);
  }

  update(series, limit, events) {
    if (!series || series.time.length === 0) return;
    const most = Math.max(limit ?? 0, ...series.memory, 1) * 1.08;
    const now = series.time.at(-1);
    const start = Math.min(series.time[0], now - 60000);
    const x = (time) => ((time - start) / (now - start)) * WIDTH;
    const y = (value) => this.#height - (value / most) * this.#height;
    const points = series.time.map((time, n) => `${x(time).toFixed(1)},${y(series.memory[n]).toFixed(1)}`);
    this.#line.setAttribute("points", points.join(" "));
    this.#area.setAttribute("d", `M${x(series.time[0]).toFixed(1)},${this.#height}L${points.join("L")}L${WIDTH},${this.#height}Z`);
    const at = limit ? y(limit) : -10;
    this.#limit.setAttribute("y1", at);
    this.#limit.setAttribute("y2", at);
    this.#top.textContent = limit ? `limit ${bytes(limit)}` : `no limit; top ${bytes(most)}`;
    this.#from.textContent = clock(start).slice(0, 8);
    this.#to.textContent = clock(now).slice(0, 8);
    this.#marks.replaceChildren(...this.#marked(events, start, x));
  }

  #marked(events, start, x) {
    const marks = [];
    let last = -10;
    for (const event of events) {
      const time = Date.parse(event.time);
      const killed = event.type === "memory.oom";
      if ((!killed && event.type !== "memory.limit") || time < start) continue;
      const at = x(time);
      // Stalls that fall on one another are drawn once.
      if (!killed && at - last < 2) continue;
      if (!killed) last = at;
      const what = killed ? "OOM kill" : `stood ${duration(event.duration_ns)} at the limit`;
      const title = svg("title", {}, `${clock(event.time)} ${what}`);
      marks.push(
        killed
          ? svg("g", { class: "kill" }, title, svg("line", { x1: at, x2: at, y1: 0, y2: this.#height }))
          : svg("line", { class: "stall", x1: at, x2: at, y1: this.#height - 26, y2: this.#height }, title),
      );
    }
    return marks;
  }
}

/** What lanes a life has, by the beginning of the events' type. */
const LANES = ["container", "process", "namespace", "mount", "cgroup", "memory", "guard", "finding", "residue"];

/** The events of a container on a line of time, a lane a domain. */
export class Life {
  #lanes = new Map();
  #list = el("div", { class: "lanes" });
  #from = el("span", {});
  #to = el("span", {});

  constructor() {
    this.node = el("div", { class: "life" }, this.#list, el("p", { class: "lane-axis" }, this.#from, this.#to));
  }

  update(events) {
    if (events.length === 0) return;
    const first = Date.parse(events[0].time);
    const last = Math.max(Date.parse(events.at(-1).time), first + 1000);
    const by = new Map();
    for (const event of events) {
      const domain = event.type.split(".", 1)[0];
      if (!by.has(domain)) by.set(domain, []);
      by.get(domain).push(event);
    }
    for (const domain of LANES) {
      const some = by.get(domain);
      let lane = this.#lanes.get(domain);
      if (!some) {
        if (lane) lane.node.hidden = true;
        continue;
      }
      if (!lane) {
        const ticks = svg("svg", { viewBox: `0 0 ${WIDTH} 20`, preserveAspectRatio: "none", "aria-hidden": "true", class: `lane-${domain}` });
        const count = el("span", { class: "lane-count" });
        lane = { node: el("div", { class: "lane" }, el("span", { class: "lane-name" }, domain), ticks, count), ticks, count };
        this.#lanes.set(domain, lane);
      }
      lane.node.hidden = false;
      lane.count.textContent = String(some.length);
      lane.ticks.replaceChildren(...this.#ticks(some, first, last));
    }
    const shown = LANES.filter((domain) => this.#lanes.has(domain)).map((domain) => this.#lanes.get(domain).node);
    if (shown.length !== this.#list.children.length) this.#list.replaceChildren(...shown);
    this.#from.textContent = clock(events[0].time);
    this.#to.textContent = clock(last);
  }

  /** One tick for all that fall on the same place. */
  #ticks(events, first, last) {
    const places = new Map();
    for (const event of events) {
      const at = Math.round(((Date.parse(event.time) - first) / (last - first)) * (WIDTH - 4)) & ~3;
      const place = places.get(at);
      const bad = event.result?.ok === false || event.severity === "warning" || event.severity === "critical";
      if (place) {
        place.count += 1;
        place.bad ||= bad;
      } else places.set(at, { event, count: 1, bad });
    }
    return [...places].map(([at, { event, count, bad }]) => {
      const more = count > 1 ? ` and ${count - 1} more` : "";
      const title = svg("title", {}, `${clock(event.time)} ${event.type} ${detail(event)}${more}`);
      return svg("rect", { x: at, y: count > 3 ? 2 : 6, width: 3, height: count > 3 ? 16 : 8, class: bad ? "bad" : null }, title);
    });
  }
}
