// How the scores lie, with the border; drawn to the width there is.
import { significant } from "./format.js";
import { html, useEffect, useRef, useState } from "./view.js";

const HEIGHT = 220;
const FOOT = 26;

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
  const high = Math.max(...all, border ?? -Infinity);
  const bins = Math.max(12, Math.min(60, Math.round(width / 16)));
  const step = (high - low || 1) / bins;
  const rows = groups.map((one) => ({ ...one, counts: counted(one.scores, low, step, bins) }));
  const tallest = Math.max(...Array.from({ length: bins }, (_, bin) => rows.reduce((sum, one) => sum + one.counts[bin], 0)));
  const x = (score) => ((score - low) / (step * bins)) * width;
  const room = HEIGHT - FOOT - 14;
  const bars = [];
  for (let bin = 0; bin < bins; bin += 1) {
    let top = HEIGHT - FOOT;
    for (const one of rows) {
      const height = (one.counts[bin] / tallest) * room;
      top -= height;
      if (height) bars.push(html`<rect class=${`bar-${one.id}`} x=${(bin * width) / bins + 0.5} y=${top} width=${width / bins - 1} height=${height} />`);
    }
  }
  const words = groups.map((one) => `${one.scores.length} ${one.words}, ${one.scores.filter((score) => score > border).length} of them above the border`).join("; ");
  const at = border === null ? 0 : x(border);
  return html`<figure class="histogram" ref=${place}>
    <svg width=${width} height=${HEIGHT} role="img" aria-label=${`Histogram of scores: ${words}. The border is ${significant(border)}.`}>
      ${bars}
      <line class="axis" x1="0" x2=${width} y1=${HEIGHT - FOOT + 0.5} y2=${HEIGHT - FOOT + 0.5} />
      <text class="tick-words" x="0" y=${HEIGHT - 8}>${significant(low)}</text>
      <text class="tick-words" x=${width} y=${HEIGHT - 8} text-anchor="end">${significant(high)}</text>
      ${border !== null && html`<line class="border-line" x1=${at} x2=${at} y1="0" y2=${HEIGHT - FOOT} /><text class="border-words" x=${at > width - 110 ? at - 6 : at + 6} y="11" text-anchor=${at > width - 110 ? "end" : "start"}>border ${significant(border)}</text>`}
    </svg>
    <figcaption class="legend">${groups.map((one) => html`<span><i class=${`key-${one.id}`} aria-hidden="true"></i> ${one.words} (${one.scores.length})</span>`)}<span class="quiet">score: to the right is stranger</span></figcaption>
  </figure>`;
};
