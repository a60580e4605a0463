// Numbers as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** A size. */
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** A number with few digits. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  return Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 1 : 0);
}

/** Something per second. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  return value === 0 ? "0/s" : `${value < 0.05 ? "<0.1" : number(Math.round(value * 10) / 10)}/s`;
}

/** Percent of one CPU, or of a limit. */
export function percent(value) {
  return value === null || value === undefined ? "–" : `${value.toFixed(value < 9.95 ? 1 : 0)}%`;
}

/** A duration, given in nanoseconds. */
export function duration(ns) {
  if (ns === null || ns === undefined) return "–";
  if (ns < 1e3) return `${ns} ns`;
  if (ns < 1e6) return `${(ns / 1e3).toFixed(ns < 1e5 ? 1 : 0)} µs`;
  if (ns < 1e9) return `${(ns / 1e6).toFixed(ns < 1e8 ? 1 : 0)} ms`;
  const s = ns / 1e9;
  if (s < 60) return `${s.toFixed(s < 10 ? 2 : 1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** The time of day in this browser's zone, to the millisecond, of an RFC 3339 time. */
export function clock(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return String(time ?? "");
  const two = (n) => String(n).padStart(2, "0");
  const ms = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

/** A time in the past, as how long ago. */
export function ago(time) {
  const ms = Date.now() - new Date(time).getTime();
  return Number.isNaN(ms) ? "–" : `${duration(Math.max(0, Math.round(ms / 1000)) * 1e9)} ago`;
}

/** A word of a shell's command line. */
export function quoted(word) {
  return /^[\w.:/@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

const DETAILS = [
  [["process", "exe"], ""],
  [["process", "kind"], ""],
  [["process", "cause"], ""],
  [["process", "exit_code"], "code="],
  [["process", "signal"], "signal="],
  [["namespace", "kind"], ""],
  [["namespace", "via"], "via="],
  [["namespace", "from"], "from="],
  [["namespace", "to"], "to="],
  [["namespace", "target"], "target="],
  [["mount", "fstype"], "type="],
  [["mount", "source"], "source="],
  [["mount", "target"], "target="],
  [["memory", "scope"], "limit="],
  [["memory", "limit_bytes"], "limit_bytes="],
  [["memory", "reclaimed_bytes"], "reclaimed_bytes="],
  [["finding", "check"], ""],
  [["finding", "observed"], ""],
  [["residue", "check"], ""],
  [["residue", "observed"], ""],
  [["container", "state_before"], "before="],
  [["stream", "lost"], "lost="],
  [["target", "cgroup", "path"], "to="],
];

/** What is particular to the type of an event; the same words as `terrarium events` prints. */
export function detail(event) {
  const parts = [];
  for (const [path, label] of DETAILS) {
    const value = path.reduce((at, name) => at?.[name], event);
    if (value !== undefined && value !== null && value !== "") parts.push(`${label}${value}`);
  }
  for (const name of ["process", "namespace", "mount"]) {
    const flags = event[name]?.flag_names;
    if (Array.isArray(flags) && flags.length > 0) parts.push(flags.join("|"));
  }
  if (typeof event.duration_ns === "number") parts.push(duration(event.duration_ns));
  return parts.join(" ");
}

/** `ok`, or the name of the error, or nothing. */
export function result(event) {
  const ok = event.result?.ok;
  if (ok === true) return "ok";
  return ok === false ? String(event.result.errno ?? "error") : "";
}
