// Numbers as people read them; a proper minus sign, and "–" where there is none.

const NONE = "–";
const whole = (value) => (Number.isFinite(value) ? value.toLocaleString("en") : NONE);
const minus = (text) => text.replace("-", "−");

function number(value, digits = 3, fixed = false) {
  if (!Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return minus(value.toExponential(Math.max(0, digits - 1)));
  const places = size === 0 ? 0 : Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return minus(
    value.toLocaleString("en", {
      maximumFractionDigits: Math.min(places, 6),
      minimumFractionDigits: fixed ? Math.min(places, 6) : 0,
    }),
  );
}

// Three digits that count, zeros at the end included: for numbers that stand beside each other.
const precise = (value) => number(value, 3, true);

const signed = (value) => (value > 0 ? "+" : "") + precise(value);
const reward = (value) => (Number.isFinite(value) ? minus(value.toFixed(Math.abs(value) >= 100 ? 1 : 2)) : NONE);
const signedReward = (value) => (value > 0 ? "+" : "") + reward(value);
const percent = (share, places = 0) => (Number.isFinite(share) ? `${(100 * share).toFixed(places)}\u00a0%` : NONE);
const seconds = (value) => (Number.isFinite(value) ? `${precise(value)} s` : NONE);

function short(value) {
  for (const [size, unit] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (Math.abs(value) >= size) return number(value / size) + unit;
  }
  return number(value);
}

const interval = (mean, show = precise) =>
  Number.isFinite(mean.low) ? `${show(mean.low)} to ${show(mean.high)}` : NONE;

// Marks of an axis from low to high, 1, 2 or 5 times a power of ten apart: the fewest that are nearly `wanted`.
function ticks(low, high, wanted = 5, least = 0) {
  const power = 10 ** Math.floor(Math.log10(high - low || 1));
  const steps = [5, 2, 1, 0.5, 0.2, 0.1].map((m) => Math.max(least, m * power));
  const marks = steps.map((step) => marksAt(low, high, step));
  return marks.find((found) => found.length >= wanted - 1) ?? marks.at(-1);
}

function marksAt(low, high, step) {
  const marks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9 && marks.length < 50; k += 1) {
    marks.push(Number((k * step).toPrecision(12)));
  }
  return marks;
}

// Range of values with a margin; a single value gets room on both sides.
function extent(values, margin = 0.06) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  const room = (high - low) * margin || Math.abs(high) * 0.1 || 1;
  return [low - room, high + room];
}
