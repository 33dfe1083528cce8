import { avatar, el } from "./dom.js";

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short" });

/** One message as it is shown. */
export interface Line {
  user: string;
  name: string;
  text: string;
  mine: boolean;
}

/** Returns the element of a message. `meta` stands in its corner: the time, or that it is on its way. */
export function bubble({ name, text, mine }: Line, meta: HTMLElement): HTMLElement {
  const content = el("div", "bubble", el("span", "text", text), meta);
  content.dir = "auto"; // the text decides, as it may be in any language
  return el("div", mine ? "message mine" : "message", avatar(name), el("b", "by", mine ? "You" : name), content);
}

/** Returns a time for the corner of a message; one of another day has its date. */
export function timeOf(at: Date): HTMLElement {
  const today = at.toDateString() === new Date().toDateString();
  const time = el("time", "meta", (today ? clock : calendar).format(at)) as HTMLTimeElement;
  time.dateTime = at.toISOString();
  return time;
}
