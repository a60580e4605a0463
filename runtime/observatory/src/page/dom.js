// Elements are made here and nowhere else, and text becomes text nodes: whatever a container is called, it is
// never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** An HTML element. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Sets the text of an element if it differs. */
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/** The address of a view; the parameters that are empty are left out. */
export function href(view, path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  const tail = query.size > 0 ? `?${query}` : "";
  return `#/${view}${path === undefined ? "" : `/${encodeURIComponent(path)}`}${tail}`;
}
