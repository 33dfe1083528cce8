// Numbers as text.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const few = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });

// integer writes numbers below ten million with all their digits.
export const integer = (n) => (n < 1e7 ? whole : short).format(n);

// rate writes a number of events per second.
export function rate(n) {
  if (n > 0 && n < 0.05) return "<0.1";
  if (n < 10) return few.format(Math.round(n * 10) / 10);
  return n < 1e5 ? whole.format(n) : short.format(n);
}

const units = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(n) {
  let unit = 0;
  for (; n >= 1000 && unit < units.length - 1; unit++) n /= 1024;
  return `${n < 10 && unit > 0 ? n.toFixed(1) : whole.format(n)} ${units[unit]}`;
}

export function milliseconds(ms) {
  if (ms < 1) return `${Math.max(1, Math.round(ms * 1000))} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 10_000 ? `${whole.format(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

export function age(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

export const percent = (share) => `${whole.format(100 * share)} %`;

// words makes "inbound_memory_bytes" "Inbound memory".
export function words(name) {
  const text = name.replace(/_(total|bytes|seconds)$/, "").replace(/_(total|bytes|seconds)$/, "").replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
}
