import { drawing, element, setAttribute, setText } from "./dom.js";

export const WINDOW = 5 * 60_000;

const WIDTH = 300;
const HEIGHT = 84;
const COLORS = 6;
const GAP = 3000; // between two points that are further apart, the line shows the average

// Chart draws lines over the last five minutes.
export class Chart {
  constructor(parent, title) {
    this.title = title;
    this.summary = element("span");
    this.lines = drawing("g");
    this.picture = drawing(
      "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
      drawing("line", { class: "axis", x1: 0, y1: HEIGHT, x2: WIDTH, y2: HEIGHT }), this.lines,
    );
    this.legend = element("ul", { className: "legend" });
    parent.append(element(
      "figure", {},
      element("figcaption", { textContent: title }, this.summary),
      this.picture,
      element("div", { className: "times" }, element("span", { textContent: "5 min ago" }), element("span", { textContent: "now" })),
      this.legend,
    ));
  }

  // update draws lines, {label, rates, note}; rates are {at, since, value} in the order of time.
  update(lines, { now, summary, none }) {
    const shown = lines.slice(0, COLORS);
    const top = Math.max(1e-9, ...shown.flatMap(({ rates }) => rates.map(({ value }) => value)));
    setText(this.summary, summary);
    while (this.lines.childElementCount > shown.length) this.lines.lastChild.remove();
    while (this.lines.childElementCount < shown.length) {
      this.lines.append(drawing("polyline", { class: `s${this.lines.childElementCount}` }));
    }
    shown.forEach(({ rates }, i) => setAttribute(this.lines.children[i], "points", path(rates, now, top)));
    this.describe(shown, none);
  }

  describe(shown, none) {
    const entries = shown.length ? shown.map(({ label, note }) => [label, note]) : [[none, ""]];
    const written = entries.map((entry) => entry.join(" ")).join(", ");
    setAttribute(this.picture, "aria-label", `${this.title}: ${written}`);
    if (this.legend.childElementCount !== entries.length || this.wasEmpty !== (shown.length === 0)) {
      this.legend.replaceChildren(...entries.map((_, i) => shown.length
        ? element("li", {}, element("i", { className: `s${i}` }), element("span"), element("b"))
        : element("li", { className: "none" }, element("span"), element("b"))));
    }
    this.wasEmpty = shown.length === 0;
    entries.forEach(([label, note], i) => {
      setText(this.legend.children[i].querySelector("span"), label);
      setText(this.legend.children[i].querySelector("b"), note);
    });
  }
}

function path(rates, now, top) {
  const x = (at) => (WIDTH * (1 - (now - at) / WINDOW)).toFixed(1);
  const y = (value) => (HEIGHT - (HEIGHT - 3) * (value / top)).toFixed(1);
  return rates.map(({ at, since, value }) =>
    (at - since > GAP ? `${x(Math.max(since, now - WINDOW))},${y(value)} ` : "") + `${x(at)},${y(value)}`).join(" ");
}
