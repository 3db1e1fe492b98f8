// Numbers, sizes and times for people.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export const dash = "–";

export const count = (n) => (n == null ? dash : whole.format(n));
export const brief = (n) => (n == null ? dash : n < 10_000 ? whole.format(Math.round(n)) : short.format(n));
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export function bytes(n) {
  if (n == null) return dash;
  let unit = 0;
  while (n >= 1024 && unit < UNITS.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${n >= 100 ? Math.round(n) : Number(n.toFixed(1))} ${UNITS[unit]}`;
}

// Bytes of a text such as "256 MiB"; NaN if it is none.
export function parseBytes(text) {
  const found = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*$/i.exec(text);
  if (!found) return NaN;
  const power = " kmgt".indexOf(found[2].toLowerCase() || " ");
  return Math.round(Number(found[1]) * (found[3] || power === 0 ? 1024 : 1000) ** power);
}

// A text that `parseBytes` gives back exactly.
export function exactBytes(n) {
  let unit = 0;
  while (n > 0 && n % 1024 === 0 && unit < UNITS.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return unit === 0 ? String(n) : `${n} ${UNITS[unit]}`;
}

export function micros(us) {
  if (us == null) return dash;
  if (us < 1000) return `${Math.round(us)} µs`;
  const digits = (n) => Number(n.toPrecision(3));
  return us < 1_000_000 ? `${digits(us / 1000)} ms` : `${digits(us / 1_000_000)} s`;
}

export function age(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return plural(Math.floor(seconds / 86_400), "day");
}

export const time = (ms) => clock.format(ms);
