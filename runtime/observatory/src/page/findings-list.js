// Findings with what they rest on.

import { el, href } from "./dom.js";
import { ago } from "./format.js";

export const SEVERITIES = ["critical", "high", "medium", "low", "info"];

/** The worst first. */
export function sorted(findings) {
  const rank = (finding) => SEVERITIES.indexOf(finding.severity);
  return [...findings].sort((a, b) => rank(a) - rank(b) || String(a.check).localeCompare(String(b.check)));
}

/** One finding. */
export function finding(f, store, withContainer) {
  const container = store.containers.find((c) => c.id === f.container?.id && c.name === f.container?.name);
  const name = f.container?.name ?? "";
  const rows = [["declared", f.declared], ["observed", f.observed], ["what to do", f.remedy]]
    .filter(([, value]) => value)
    .map(([label, value]) => [el("dt", {}, label), el("dd", {}, String(value))]);
  const evidence = (f.evidence ?? []).map((e) =>
    el("li", {}, el("span", { class: "sub" }, `${e.kind ?? ""} `), el("code", {}, [e.path, e.value].filter(Boolean).join(" → ") || JSON.stringify(e))));
  const who = container ? el("a", { href: href("container", container.key) }, name) : el("span", {}, name);
  return el(
    "li", { class: `finding ${SEVERITIES.includes(f.severity) ? f.severity : ""}` },
    el("h3", {}, el("span", { class: "severity" }, String(f.severity)), el("code", {}, String(f.check)), withContainer ? [" in ", who] : null),
    el("dl", {}, rows),
    evidence.length > 0 ? el("details", {}, el("summary", {}, `evidence (${evidence.length})`), el("ul", {}, evidence)) : null,
    el("p", { class: "sub" }, `${f.source ?? ""}; seen ${f.count ?? 1}×, first ${ago(f.first_seen)}, last ${ago(f.last_seen)}`),
  );
}
