// Where the border lies, and what another false-alarm rate would change, at once.
import { ask, inCollection, part } from "../api.js";
import { useAction, useAsked, useJudges, useRested } from "../asking.js";
import { RateField } from "../fields.js";
import { count, percent, plural, ROLES, significant } from "../format.js";
import { Histogram } from "../histogram.js";
import { alarms, border, isSupported, realRate, VERDICT_MIN } from "../judging.js";
import { Empty, Loading, Note, ProblemNote } from "../notices.js";
import { Thumb } from "../pictures.js";
import { LIVE, ScorerChoice, ScoringProgress, useScorer } from "../scorers.js";
import { html, useMemo, useState } from "../view.js";

const [LOWEST, HIGHEST] = [0.001, 0.5];
const SHOWN = 24;
const toSlider = (rate) => (1000 * Math.log(rate / LOWEST)) / Math.log(HIGHEST / LOWEST);
const fromSlider = (place) => Number((LOWEST * (HIGHEST / LOWEST) ** (place / 1000)).toPrecision(2));

const Changes = ({ name, title, images, words }) =>
  images.length > 0 &&
  html`<section class="panel" aria-label=${title}>
    <h2>${title}: ${count(images.length)}</h2>
    <p class="quiet">${words}</p>
    <div class="grid">${images.slice(0, SHOWN).map((one) => html`<${Thumb} key=${one.id} collection=${name} image=${one} mark=${`is-${one.role}`} note=${`${significant(one.score)} · ${ROLES[one.role]}`} />`)}</div>
    ${images.length > SHOWN && html`<p class="quiet">and ${count(images.length - SHOWN)} more.</p>`}
  </section>`;

export const Threshold = ({ collection, name, asked, changed }) => {
  const own = collection.false_alarm_rate;
  const [rate, setRate] = useState(own);
  const rested = useRested(rate);
  const [scorer, setScorer] = useScorer(asked);
  const { judges } = useJudges(name);
  const by = scorer === LIVE ? "" : `&scorer=${part(scorer)}`;
  const { data: told, problem, progress } = useAsked(inCollection(name, `/scores?limit=2000&false_alarm_rate=${rested}${by}`), true);
  const data = told?.scorer === scorer ? told : null;
  const [keep, isKeeping, keepProblem] = useAction(async () => {
    await ask(inCollection(name), { method: "PATCH", json: { false_alarm_rate: rate } });
    changed();
  });
  const images = data?.images || [];
  const scores = data?.calibration.scores || [];
  const n = scores.length;
  const found = useMemo(() => {
    const is = (one, at) => alarms(one.p_value, at, n);
    return {
      begin: images.filter((one) => is(one, rate) && !is(one, own)),
      stop: images.filter((one) => !is(one, rate) && is(one, own)),
      of: Object.keys(ROLES).map((role) => {
        if (role === "normal") return [role, n, scores.filter((one) => one > border(scores, rate)).length]; // those that the border rests on
        const some = images.filter((one) => one.role === role);
        return [role, some.length, some.filter((one) => is(one, rate)).length];
      }),
    };
  }, [data, rate, own]);
  const choice = judges?.length > 1 || scorer !== LIVE ? html`<${ScorerChoice} scorer=${scorer} setScorer=${setScorer} judges=${judges} />` : null;
  if (problem && !data) return html`<div class="row bottom">${choice}</div><${ProblemNote} problem=${problem} />`;
  if (!data) return html`<div class="row bottom">${choice}</div>${progress ? html`<${ScoringProgress} scorer=${scorer} progress=${progress} />` : html`<${Loading} what="Looking at the scores" />`}`;
  if (n < VERDICT_MIN) {
    return html`<${Empty} title="Too few normal images for a border"><p>${plural(n, "image")} can be compared with the others; ${VERDICT_MIN} are needed for a verdict, and ${Math.ceil(1 / own - 1)} for a false-alarm rate of ${percent(own)}.</p><//>`;
  }
  const at = border(scores, rate);
  const spread = data.calibration.requested === rate ? data.calibration.spread : null;
  const groups = [
    { id: "normal", words: "normal", scores },
    ...["example", "unlabelled", "anomalous"].map((role) => ({ id: role, words: ROLES[role], scores: images.filter((one) => one.role === role).map((one) => one.score) })).filter((one) => one.scores.length),
  ];
  return html`<p>An image alarms when its score lies above the border. You say how many good images may alarm by mistake; the border follows.</p>
    <div class="panel">
      <div class="row bottom">
        ${choice}
        <label class="field grow"><span>Fewer false alarms to the left, fewer misses to the right</span>
          <input type="range" min="0" max="1000" step="1" value=${toSlider(rate)} aria-label="False-alarm rate, slider" aria-valuetext=${percent(rate)} onInput=${(event) => setRate(fromSlider(Number(event.target.value)))} />
        </label>
        <${RateField} rate=${rate} setRate=${setRate} />
        <button type="button" class="primary" disabled=${isKeeping || rate === own} onClick=${keep}>Use for ${name}</button>
        <button type="button" disabled=${rate === own} onClick=${() => setRate(own)}>Back to ${percent(own)}</button>
      </div>
      <${ProblemNote} problem=${keepProblem} title="The rate was not changed." />
      <${Histogram} groups=${groups} border=${at} />
      <div aria-live="polite" class="facts-row">
        <p><strong>Border ${significant(at)}</strong><br /><span class="quiet">a false-alarm rate of ${percent(realRate(rate, n))}, from ${plural(n, "normal image")}${spread ? `; with that many the true rate lies between ${percent(spread[0])} and ${percent(spread[1])} in 95 of 100 cases` : ""}</span></p>
        ${found.of.filter(([, some]) => some).map(([role, some, above]) => html`<p><strong>${count(above)} of ${count(some)}</strong><br /><span class="quiet">${ROLES[role]} ${above === 1 ? "alarms" : "alarm"}</span></p>`)}
      </div>
      ${!isSupported(rate, n) && html`<${Note}>${plural(n, "normal image")} support no rate below ${percent(1 / (n + 1))}, which is used. For ${percent(rate)} there must be ${count(Math.ceil(1 / rate - 1))}.<//>`}
      ${data.stored > images.length && html`<p class="quiet">${count(images.length)} of ${count(data.stored)} images are shown: those that calibrate, and the newest of the others.</p>`}
    </div>
    ${rate !== own && !found.begin.length && !found.stop.length && html`<p class="quiet" role="status">No image shown here would change its verdict.</p>`}
    <${Changes} name=${name} title="Would alarm" images=${found.begin} words=${`At ${percent(own)} they pass; at ${percent(rate)} they are anomalous.`} />
    <${Changes} name=${name} title="Would pass" images=${found.stop} words=${`At ${percent(own)} they are anomalous; at ${percent(rate)} they pass.`} />`;
};
