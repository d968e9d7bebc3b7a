// How the scores lie, with the border; drawn to the width there is.
import { significant } from "./format.js";
import { html, useEffect, useRef, useState } from "./view.js";

const HEIGHT = 240;
const FOOT = 26;
const HEAD = 22; // for the words at the border
const SIDE = 34; // for the counts

export const useWidth = () => {
  const place = useRef(null);
  const [width, setWidth] = useState(600);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.max(200, Math.round(entry.contentRect.width))));
    watch.observe(place.current);
    return () => watch.disconnect();
  }, []);
  return [place, width];
};

const counted = (scores, low, step, bins) => {
  const counts = new Array(bins).fill(0);
  for (const score of scores) counts[Math.min(bins - 1, Math.max(0, Math.floor((score - low) / step)))] += 1;
  return counts;
};

/** Bars of several kinds of images above one another; `groups` is [{id, words, scores}], the bank first. */
export const Histogram = ({ groups, border }) => {
  const [place, width] = useWidth();
  const all = groups.flatMap((one) => one.scores);
  if (!all.length) return null;
  const low = Math.min(...all, border ?? Infinity);
  const highest = Math.max(...all, border ?? -Infinity);
  const high = highest + 0.05 * (highest - low); // room beyond the border
  const bins = Math.max(12, Math.min(60, Math.round(width / 16)));
  const step = (high - low || 1) / bins;
  const rows = groups.map((one) => ({ ...one, counts: counted(one.scores, low, step, bins) }));
  const tallest = Math.max(...Array.from({ length: bins }, (_, bin) => rows.reduce((sum, one) => sum + one.counts[bin], 0)));
  const room = HEIGHT - FOOT - HEAD;
  const across = width - SIDE;
  const x = (score) => SIDE + ((score - low) / (step * bins)) * across;
  const bars = [];
  for (let bin = 0; bin < bins; bin += 1) {
    let top = HEIGHT - FOOT;
    for (const one of rows) {
      const height = (one.counts[bin] / tallest) * room;
      top -= height;
      if (height) bars.push(html`<rect class=${`bar-${one.id}`} x=${SIDE + (bin * across) / bins + 0.5} y=${top} width=${across / bins - 1} height=${height} />`);
    }
  }
  const words = groups.map((one) => `${one.scores.length} ${one.words}, ${one.scores.filter((score) => score > border).length} of them above the border`).join("; ");
  const at = border === null ? 0 : x(border);
  return html`<figure class="histogram" ref=${place}>
    <svg width=${width} height=${HEIGHT} role="img" aria-label=${`Histogram of scores: ${words}. The border is ${significant(border)}.`}>
      ${border !== null && html`<rect class="alarm-side" x=${at} y=${HEAD} width=${Math.max(0, width - at)} height=${HEIGHT - FOOT - HEAD} />`}
      ${[0.5, 1].map((share) => Math.round(share * tallest)).filter((some, place, all) => some && all.indexOf(some) === place).map((some) => html`<line class="axis" x1=${SIDE} x2=${width} y1=${HEIGHT - FOOT - (some / tallest) * room} y2=${HEIGHT - FOOT - (some / tallest) * room} /><text class="tick-words" x=${SIDE - 6} y=${HEIGHT - FOOT - (some / tallest) * room + 4} text-anchor="end">${some}</text>`)}
      ${bars}
      <line class="axis base" x1=${SIDE} x2=${width} y1=${HEIGHT - FOOT + 0.5} y2=${HEIGHT - FOOT + 0.5} />
      <text class="tick-words" x=${SIDE} y=${HEIGHT - 8}>${significant(low)}</text>
      <text class="tick-words" x=${width} y=${HEIGHT - 8} text-anchor="end">${significant(high)}</text>
      ${border !== null && html`<line class="border-line" x1=${at} x2=${at} y1="0" y2=${HEIGHT - FOOT} /><text class="border-words" x=${at > width - 150 ? at - 6 : at + 6} y="13" text-anchor=${at > width - 150 ? "end" : "start"}>${at > width - 150 ? `alarms from ${significant(border)} →` : `→ alarms above ${significant(border)}`}</text>`}
    </svg>
    <figcaption class="legend">${groups.map((one) => html`<span><i class=${`key-${one.id}`} aria-hidden="true"></i> ${one.words} (${one.scores.length})</span>`)}<span class="quiet">images by score: to the right is stranger</span></figcaption>
  </figure>`;
};
