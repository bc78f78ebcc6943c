// How values are written and what is said of a face. Knows no elements.

// On pictures, whose ground is any colour: the same as in annotated pictures. The panel's are in page.css.
export const ON_PICTURE = {
  neutral: "#b0bec5", happiness: "#ffca28", surprise: "#ff8a65", sadness: "#64b5f6",
  anger: "#ef5350", disgust: "#9ccc65", fear: "#ba68c8", contempt: "#4dd0c3",
};
export const UNSURE_ON_PICTURE = "#9e9e9e";
const MOVED = 0.0005; // a change that one decimal of a percentage shows

export const percent = (share, decimals = 1) => `${(100 * share).toFixed(decimals)}\u202f%`;
export const isUnsure = (face, threshold) => face.reliability < threshold;
export const probability = (face) => face.probabilities[face.label];

export function top(distribution) {
  return Object.keys(distribution).reduce((best, label) => (distribution[label] > distribution[best] ? label : best));
}

/** What balancing moved, as a triangle and points, and whether it is a point or more: [text, much]. */
export function moved(before, after) {
  const change = after - before;
  if (Math.abs(change) < MOVED) return ["", false];
  const points = (100 * Math.abs(change)).toFixed(1);
  return [`${change > 0 ? "▲" : "▼"}\u202f${points}`, Math.abs(change) >= 0.01];
}

/** One sentence on what balancing did to a face, in parts: plain text, and [text] for what is stressed. */
export function balancing(face) {
  const first = top(face.primary);
  const [before, after] = [face.primary[face.label], probability(face)];
  if (first !== face.label) {
    return ["Balancing changed the leading expression: the first guess was ", [first], ` (${percent(face.primary[first])}).`];
  }
  if (Math.abs(after - before) < MOVED) return ["Balancing left ", [face.label], ` at ${percent(after)}.`];
  const how = after < before ? "less sure" : "surer";
  return [`Balancing made it ${how}: `, [face.label], ` went from ${percent(before)} to ${percent(after)}.`];
}

/** What a screen reader is told of a face. */
export function spoken(face, threshold, others) {
  const label = `${face.label} ${percent(probability(face), 0)}`;
  const answer = isUnsure(face, threshold) ? `not sure enough; closest is ${label}` : label;
  return `${answer}, reliability ${face.reliability.toFixed(2)}${others ? `, ${others} more in the picture` : ""}`;
}

/** The same number as long as it is the same person, where the service follows people. */
export const identity = (face, index) => (face.track === null ? `face ${index}` : `track ${face.track}`);
