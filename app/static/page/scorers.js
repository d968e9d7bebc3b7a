// Which scorer judges: the address says it, so it stays the same from screen to screen.
import { Choice } from "./fields.js";
import { Progress } from "./notices.js";
import { address, go, read } from "./route.js";
import { html } from "./view.js";

export const LIVE = "dn2"; // always ready: follows the bank

/** The scorer that the address names, and what names another one there. */
export const useScorer = (asked) => {
  const change = (id) => {
    const { steps, asked: now } = read();
    go(address(steps, { ...now, scorer: id === LIVE ? "" : id }), true);
  };
  return [asked.scorer || LIVE, change];
};

/** Those that can judge here; one that is asked for and is not ready stays to be seen. */
export const ScorerChoice = ({ scorer, setScorer, judges, ...rest }) => {
  const ready = judges || [];
  const options = ready.map((one) => [one.id, one.fit?.heatmap ? `${one.id} (heat map)` : one.id]);
  if (!ready.some((one) => one.id === scorer)) options.push([scorer, judges ? `${scorer} (not fitted here)` : scorer]);
  return html`<${Choice} label="Scorer" value=${scorer} setValue=${setScorer} options=${options} ...${rest} />`;
};

/** How far a scorer is that looks at the images for the first time. */
export const ScoringProgress = ({ scorer, progress }) =>
  html`<${Progress} label=${`${scorer} looks at each image for the first time`} done=${progress.done} total=${progress.total} />`;
