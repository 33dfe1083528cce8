/** Returns the element of the page with this ID. */
export function byID<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

/** Returns a new element. Strings become text, never HTML. */
export function el(tag: string, className: string, ...children: (Node | string)[]): HTMLElement {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

export function button(className: string, label: string, click: () => void): HTMLElement {
  const element = el("button", className, label) as HTMLButtonElement;
  element.type = "button";
  element.onclick = click;
  return element;
}

/** The number of colors in style.css, .c0 to .c7. */
const COLORS = 8;

/** Returns the disc with the first letter of a name. The same name has the same color everywhere. */
export function avatar(name: string): HTMLElement {
  let hash = 0;
  for (const char of name) hash = (hash * 31 + char.codePointAt(0)!) >>> 0;
  const disc = el("span", `avatar c${hash % COLORS}`, [...name][0]?.toUpperCase() ?? "?");
  disc.ariaHidden = "true";
  return disc;
}

/** Returns a random text of n bytes in hexadecimal. */
export function random(n: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(n)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Joins names as English does: "Ada", "Ada and Bob", "Ada, Bob and 2 others". */
export function list(names: string[]): string {
  const [first = "", second = "", ...more] = names;
  if (names.length < 2) return first;
  if (more.length === 0) return `${first} and ${second}`;
  return `${first}, ${second} and ${more.length} other${more.length > 1 ? "s" : ""}`;
}
