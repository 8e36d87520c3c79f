/** Small steps of building the page; text always goes in as text, never as markup. */

/** The element of this id, which the page is known to have. */
export const byId = (id) => document.getElementById(id);

/**
 * @param {string} tag
 * @param {Record<string, unknown>} [properties] properties, `class`, or attributes with a dash
 * @param {...(Node|string)} children
 */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

/** An icon of the page's own sheet of symbols. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.classList.add("icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

export function percent(share) {
  const value = share * 100;
  if (value < 0.1) return "< 0.1 %";
  return `${value.toFixed(value < 9.95 || value > 99 ? 1 : 0)} %`;
}

export const count = (number) => number.toLocaleString("en");
