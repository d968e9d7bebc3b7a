// Numbers and words as people read them.

export const count = (value) => Number(value).toLocaleString("en-GB");
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** A score or distance with three significant digits. */
export const significant = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toString());

/** A share as per cent, with as many digits as it needs. */
export const percent = (share) => {
  const value = 100 * share;
  return `${value === 0 ? 0 : Number(value.toPrecision(value < 10 ? 2 : 3))}\u00a0%`; // never apart
};

/** The same as a length of CSS. */
export const lengthOf = (share) => `${100 * share}%`;

export const pValue = (value) => (value === null || value === undefined ? "–" : value < 0.001 ? value.toExponential(1) : value.toPrecision(2));

export const nameOf = (image) => image.metadata?.filename || short(image.id);
export const short = (id) => (id.length > 14 ? `${id.slice(0, 10)}…` : id);

export const bytes = (value) => {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (value >= size) return `${Number((value / size).toPrecision(3))} ${unit}`;
  return `${value} bytes`;
};

export const duration = (seconds) => {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Number((seconds / 3600).toPrecision(2))} h`;
};

export const moment = (text) => (text ? new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }) : "–");

export const ROLES = {
  normal: "normal",
  anomalous: "anomalous",
  unlabelled: "unlabelled",
  example: "example of a class",
};
