// A verdict in words and shape, never in colour alone.
import { pValue, significant } from "./format.js";
import { standing } from "./judging.js";
import { html } from "./view.js";

const WORDS = { true: ["Anomalous", "bad", "◆"], false: ["Belongs", "good", "●"], null: ["No verdict", "none", "○"] };

export const verdictOf = (anomalous) => WORDS[String(anomalous ?? null)][0];

export const Verdict = ({ anomalous }) => {
  const [word, kind, shape] = WORDS[String(anomalous ?? null)];
  return html`<span class=${`verdict ${kind}`}><span aria-hidden="true">${shape}</span> ${word}</span>`;
};

/** The verdict on an image, and in words what it rests on. */
export const Standing = ({ result, calibration, anomalous = result.anomalous, scorer }) => html`<p><${Verdict} anomalous=${anomalous} />${scorer && html` <span class="quiet">by ${scorer}</span>`}</p>
  <p><span class="number">p = ${pValue(result.p_value)}</span> <span class="quiet">score ${significant(result.score)}</span></p>
  ${result.p_value !== null && calibration.n > 0 && html`<p class="quiet small">${standing(result.p_value, calibration.n)}</p>`}`;

/** Where a score lies: the border at half of the bar. */
export const ScoreBar = ({ score, threshold }) => {
  if (threshold === null || threshold === undefined) return null;
  const share = threshold > 0 ? Math.min(1, Math.max(0, score / (2 * threshold))) : score > threshold ? 1 : 0.25;
  return html`<div class="score-bar" role="img" aria-label=${`score ${significant(score)}, border ${significant(threshold)}`}>
    <div class=${score > threshold ? "fill bad" : "fill good"} style=${{ width: `${100 * share}%` }}></div>
    <div class="tick"></div>
  </div>`;
};
