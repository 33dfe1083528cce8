// Elements, which change only where their content does.

// element makes an element with properties and children.
export function element(name, properties = {}, ...children) {
  const e = Object.assign(document.createElement(name), properties);
  e.append(...children);
  return e;
}

const SVG = "http://www.w3.org/2000/svg";

// drawing makes an SVG element with attributes and children.
export function drawing(name, attributes = {}, ...children) {
  const e = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

export function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

export function setAttribute(e, name, value) {
  if (e.getAttribute(name) !== value) e.setAttribute(name, value);
}

// facts shows a list of {label, value, alarm, title} in a dl, whose items stay in place.
export function facts(dl, list) {
  const items = new Map([...dl.children].map((item) => [item.dataset.label, item]));
  list.forEach(({ label, value, unit, alarm, title }, i) => {
    let item = items.get(label);
    if (!item) {
      item = element("div", {}, element("dt", { textContent: label }), element("dd", {}, element("span"), element("small")));
      item.dataset.label = label;
      if (title) item.title = title;
    }
    items.delete(label);
    setText(item.lastChild.firstChild, value);
    setText(item.lastChild.lastChild, unit ?? "");
    item.classList.toggle("alarm", Boolean(alarm));
    if (dl.children[i] !== item) dl.insertBefore(item, dl.children[i] ?? null);
  });
  for (const item of items.values()) item.remove();
}
