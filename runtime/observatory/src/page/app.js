// Which view is shown, and whether the observatory answers.

import { text } from "./dom.js";
import { Store } from "./store.js";
import { Container } from "./view-container.js";
import { Containers } from "./view-containers.js";
import { Events } from "./view-events.js";
import { Findings } from "./view-findings.js";
import { Namespaces } from "./view-namespaces.js";

const VIEWS = { containers: Containers, container: Container, events: Events, findings: Findings, namespaces: Namespaces };

const store = new Store();
const main = document.getElementById("main");
const status = document.getElementById("status");
let view = null;

/** `#/view/path?name=value`. */
function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [name, argument = ""] = path.split("/", 2);
  const parameters = Object.fromEntries(new URLSearchParams(query));
  return { name: name in VIEWS ? name : "containers", argument: decodeURIComponent(argument), parameters };
}

function show() {
  const { name, argument, parameters } = route();
  const first = view === null;
  view?.close();
  view = new VIEWS[name](store, argument, parameters);
  main.replaceChildren(view.node);
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.dataset.view === name || (name === "container" && link.dataset.view === "containers");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  store.want(...view.needs);
  document.title = `${view.title} – terrarium`;
  // A reader that has gone elsewhere begins there.
  if (!first) main.focus({ preventScroll: true });
}

store.addEventListener("change", () => {
  const running = store.containers.filter((container) => container.state === "running").length;
  text(status, `${running} running`);
  status.className = "live";
  const serious = (store.findings ?? []).filter((f) => f.severity === "critical" || f.severity === "high").length;
  const count = document.getElementById("finding-count");
  count.hidden = serious === 0;
  text(count, String(serious));
  view.update();
  document.title = `${view.title} – terrarium`;
});

store.addEventListener("trouble", (event) => {
  text(status, `No answer (${event.detail})`);
  status.className = "trouble";
});

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", show);
text(document.getElementById("host"), location.host);
show();
store.start();
