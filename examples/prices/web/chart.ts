// The charts of a panel, on two canvases: the lag of each price, and the prices of each second.

/** The milliseconds that a chart shows. */
export const WINDOW = 30_000;

/** The state that the charts of all panels share. */
export interface View {
  now: number;
  /** The lag at the top of the charts, in milliseconds. */
  top: number;
  /** The prices published in a second, and the number published up to a time. */
  rate: number;
  publishedAt: (time: number) => number;
  /** Changes of the rate of the links. */
  changes: { at: number; text: string }[];
}

export interface Arrival { at: number; lag: number }

const FONT = "11px system-ui, 'Liberation Sans', sans-serif";

/** A context in CSS pixels, and the colors of the page's style. */
function begin(canvas: HTMLCanvasElement) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = devicePixelRatio;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const style = getComputedStyle(canvas);
  const c = canvas.getContext("2d")!;
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  c.font = FONT;
  const color = (name: string): string => style.getPropertyValue(name);
  return { c, width, height, color };
}

export function drawLag(canvas: HTMLCanvasElement, view: View, arrivals: Arrival[], gaps: { at: number }[]): void {
  const { c, width, height, color } = begin(canvas);
  const x = (at: number): number => width * (1 - (view.now - at) / WINDOW);
  const y = (lag: number): number => height - 2 - (height - 16) * (lag / view.top);
  c.fillStyle = color("--line");
  for (const share of [0, 0.5, 1]) c.fillRect(0, Math.round(y(view.top * share)), width, 1);
  for (const change of view.changes) c.fillRect(Math.round(x(change.at)), 0, 1, height);

  c.fillStyle = color("--series");
  let last = "";
  for (const { at, lag } of arrivals) {
    const left = Math.round(x(at) * 2) / 2;
    const above = Math.round(y(lag));
    const place = left + " " + above;
    if (place !== last) c.fillRect(left - 1, above - 1, 2, 2);
    last = place;
  }
  c.fillStyle = color("--bad");
  for (const { at } of gaps) c.fillRect(Math.round(x(at)) - 1, 15, 2, 12);

  c.textBaseline = "bottom";
  for (const share of [0.5, 1]) label(c, `${(view.top * share) / 1000} s`, 2, y(view.top * share) - 1, color);
  c.textAlign = "left";
  let free = width; // labels do not overlap: the newest come first
  for (const { at, text } of view.changes.toReversed()) {
    const long = c.measureText(text).width + 4;
    const left = x(at) + 4 + long > free ? x(at) - long : x(at) + 4;
    if (left + long > free) continue;
    label(c, text, left, 13, color);
    free = left;
  }
}

/** Writes a text that stays readable over dots. */
function label(c: CanvasRenderingContext2D, text: string, x: number, y: number, color: (name: string) => string): void {
  c.lineWidth = 3;
  c.strokeStyle = color("--card");
  c.strokeText(text, x, y);
  c.fillStyle = color("--dim");
  c.fillText(text, x, y);
}

export function drawRate(canvas: HTMLCanvasElement, view: View, arrivals: Arrival[]): void {
  const { c, width, height, color } = begin(canvas);
  const step = 1000;
  const top = view.rate * 2; // the bar of a burst is cut off, and its number stands beside it
  const x = (at: number): number => width * (1 - (view.now - at) / WINDOW);
  const y = (count: number): number => height - (height - 2) * Math.min(1, count / top);
  const counts = new Map<number, number>();
  for (const { at } of arrivals) {
    const second = Math.floor(at / step);
    counts.set(second, (counts.get(second) ?? 0) + 1);
  }
  c.fillStyle = color("--series");
  for (const [second, count] of counts) {
    const left = x(second * step);
    c.fillRect(left, y(count), Math.max(1, Math.min(width, x((second + 1) * step)) - left - 1), height);
  }
  c.fillStyle = color("--text");
  for (let second = Math.floor((view.now - WINDOW) / step); second < Math.floor((view.now - 400) / step); second++) {
    const count = view.publishedAt((second + 1) * step) - view.publishedAt(second * step);
    if (count > 0) c.fillRect(x(second * step), y(count), width / (WINDOW / step) + 1, 1.5);
  }
  c.textBaseline = "top";
  const [second, count] = [...counts].reduce((best, one) => (one[1] > best[1] ? one : best), [0, top]);
  if (count === top) return;
  const right = x((second + 1) * step);
  c.textAlign = right > 70 ? "right" : "left";
  label(c, `${count}`, right > 70 ? x(second * step) - 3 : right + 3, 1, color);
}
