// The verdict as the service defines it, so that a page can say at once what another false-alarm rate would change.

const SLACK = 1e-9; // as the service rounds: 0.29 * 100 must count as 29
export const VERDICT_MIN = 10;

/** How many of n calibration images may lie above the border at this rate, at least 1. */
export const mayAlarm = (rate, n) => Math.min(Math.max(Math.floor(rate * (n + 1) + SLACK), 1), Math.max(n, 1));

/** A p-value in plain words: how many of the n normal images score as high. */
export const standing = (p, n) => {
  const above = Math.round(p * (n + 1)) - 1;
  return above ? `${above} of ${n} normal images score as high` : `none of ${n} normal images scores as high`;
};

/** The rate that the border really has. */
export const realRate = (rate, n) => mayAlarm(rate, n) / (n + 1);

export const isSupported = (rate, n) => Math.floor(rate * (n + 1) + SLACK) >= 1;

/** Whether an image with this p-value alarms; null when there are too few images for a verdict. */
export const alarms = (p, rate, n) => (p === null || n < VERDICT_MIN ? null : p <= realRate(rate, n) + 1e-12);

/** The border among calibration scores in ascending order: an alarm is a score strictly above it. */
export const border = (ascending, rate) => (ascending.length ? ascending[ascending.length - mayAlarm(rate, ascending.length)] : null);
