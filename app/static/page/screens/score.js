// Does this belong? Images or a set of them, with the reasons.
import { ask, batches, formOf, imagePath, inCollection } from "../api.js";
import { useAction, useJudges, useLatest } from "../asking.js";
import { useSelection } from "../carried.js";
import { DropZone } from "../dropping.js";
import { Check, RateField } from "../fields.js";
import { lengthOf, percent, plural, pValue, significant, nameOf } from "../format.js";
import { HeatControl, HeatPicture } from "../heat.js";
import { alarms, isSupported, realRate, VERDICT_MIN } from "../judging.js";
import { Note, ProblemNote, Progress } from "../notices.js";
import { Thumb } from "../pictures.js";
import { FeedbackButtons } from "../feedback.js";
import { FitHere } from "../fitting.js";
import { ScorerChoice, useScorer } from "../scorers.js";
import { ScoreBar, Standing, Verdict } from "../verdicts.js";
import { html, useState } from "../view.js";

/** Score files or stored images in bearable requests; `tell` hears how far it is. */
export const scoreAll = async (name, { files = [], images = [], parameters, signal }, tell) => {
  const total = files.length + images.length;
  const found = { calibration: null, results: [] };
  const keep = (answer, sources) => {
    found.calibration = answer.calibration;
    answer.results.forEach((result, place) => found.results.push({ ...result, ...sources[place] }));
    tell(found.results.length, total);
  };
  tell(0, total);
  for (const some of batches(files, 8)) {
    const answer = await ask(inCollection(name, "/anomaly"), { method: "POST", form: formOf(some, parameters), signal });
    keep(answer, some.map((file) => ({ file, title: file.name })));
  }
  for (let from = 0; from < images.length; from += 16) {
    const some = images.slice(from, from + 16);
    const answer = await ask(inCollection(name, "/anomaly"), { method: "POST", json: { ...parameters, ids: some.map((one) => one.id) }, signal });
    keep(answer, some.map((one) => ({ id: one.id, title: nameOf(one) })));
  }
  return found;
};

const Why = ({ name, result, scorer, map, setMap }) => {
  const [explain, isExplaining, problem] = useAction(async () => {
    const parameters = { scorer, method: "occlusion", neighbours: 1 };
    const body = result.id ? { json: { ...parameters, ids: [result.id] } } : { form: formOf([result.file], parameters) };
    const answer = await ask(inCollection(name, "/explain"), { method: "POST", ...body });
    const [told] = answer.results;
    if (told.problem) throw new Error(told.problem.detail);
    setMap(told.map);
  });
  return html`<div class="feedback">
    <button type="button" aria-pressed=${Boolean(map)} disabled=${isExplaining} onClick=${() => (map ? setMap(null) : explain())}>${isExplaining ? "Covering it part by part…" : "What does this rest on?"}</button>
    ${map && html`<p class="quiet" role="status">Coloured parts raise the score: covered by ${map.baseline.kind === "normal" ? "the nearest normal image" : map.baseline.kind} they would lower it, at red by ${significant(map.high)} or more.</p>`}
    <${ProblemNote} problem=${problem} title="Not explained." />
  </div>`;
};

const Result = ({ name, result, scorer, rate, calibration, strength, changed }) => {
  const [map, setMap] = useState(null);
  if (result.problem) {
    return html`<li class="result"><div class="result-words"><h3>${result.title}</h3><${ProblemNote} problem=${result.problem} title="Not scored." /></div></li>`;
  }
  const anomalous = alarms(result.p_value, rate, calibration.n);
  return html`<li class=${`result ${anomalous ? "is-anomalous" : ""}`}>
    <${HeatPicture} path=${result.id && imagePath(name, result.id, "content")} file=${result.file} alt=${result.title} heatmap=${map || result.heatmap} strength=${map ? 0.8 : strength} />
    <div class="result-words">
      <h3>${result.title}</h3>
      <${Standing} result=${result} calibration=${calibration} anomalous=${anomalous} />
      ${rate === calibration.requested && html`<${ScoreBar} score=${result.score} threshold=${calibration.threshold} />`}
      ${result.known_anomaly && html`<p class="quiet">Nearest known defect: ${nameOf(result.known_anomaly)} at ${significant(result.known_anomaly.distance)}.</p>`}
    </div>
    <div class="result-ways">
      <${FeedbackButtons} name=${name} source=${result} anomalous=${anomalous} changed=${changed} />
      <${Why} name=${name} result=${result} scorer=${scorer} map=${map} setMap=${setMap} />
    </div>
    <div class="result-near" role="group" aria-label="Nearest normal images">
      <p class="caption" aria-hidden="true">Nearest normal images</p>
      ${result.neighbours.map((near) => html`<${Thumb} collection=${name} image=${near} caption=${nameOf(near)} note=${significant(near.distance)} />`)}
    </div>
  </li>`;
};

const SetResult = ({ name, set }) => html`<div class="panel">
  <h2>The set of ${set.members.length}, judged as one</h2>
  <p><${Verdict} anomalous=${set.anomalous} /> p = ${pValue(set.p_value)}, score ${significant(set.score)}; border ${significant(set.calibration.threshold)} from ${plural(set.calibration.n, "normal set")}.</p>
  <ol class="members">${set.members.map((member, place) => {
    const source = set.sources[place];
    return html`<li>
      <${HeatPicture} path=${source.id && imagePath(name, source.id)} file=${source.file} alt="" />
      <span class="name">${source.title}</span>
      ${member.problem ? html`<span class="bad-words">${member.problem.detail}</span>` : html`<span class="share"><span style=${{ width: lengthOf(member.share) }}></span></span><span class="quiet">brings ${percent(member.share)} of the distance</span>`}
    </li>`;
  })}</ol>
</div>`;

export const Score = ({ collection, name, asked, changed }) => {
  const selection = useSelection(name);
  const { judges, methods, problem: scorersProblem, reload } = useJudges(name);
  const [scorer, setScorer] = useScorer(asked);
  const [rate, setRate] = useState(collection.false_alarm_rate);
  const [isSet, setIsSet] = useState(false);
  const [found, setFound] = useState(null);
  const [set, setSet] = useState(null);
  const [done, setDone] = useState(null);
  const [strength, setStrength] = useState(0.8);
  const [last, setLast] = useState(null);
  const usable = judges || [];
  const hasHeat = (id) => Boolean(usable.find((one) => one.id === id)?.fit?.heatmap);
  const [score, isScoring, problem] = useLatest(async (signal, given, as = scorer, wantsHeat = hasHeat(as)) => {
    setLast(given);
    setFound(null);
    setSet(null);
    if (isSet) {
      const { files = [], images = [] } = given;
      const body = files.length ? { form: formOf(files, { false_alarm_rate: rate }) } : { json: { ids: images.map((one) => one.id), false_alarm_rate: rate } };
      const answer = await ask(inCollection(name, "/groups/anomaly"), { method: "POST", ...body, signal });
      const sources = files.length ? files.map((file) => ({ file, title: file.name })) : images.map((one) => ({ id: one.id, title: nameOf(one) }));
      setSet({ ...answer, sources });
      return;
    }
    const parameters = { scorer: as, false_alarm_rate: rate, ...(wantsHeat ? { heatmap: true } : {}) };
    setFound(await scoreAll(name, { ...given, parameters, signal }, (some, total) => setDone([some, total])));
  });
  const alarmed = found?.results.filter((one) => !one.problem && alarms(one.p_value, rate, found.calibration.n)).length;
  const heat = found?.results.find((one) => one.heatmap)?.heatmap;
  const mapper = methods?.find((one) => one.role === "scorer" && one.status === "supported" && one.gives.outputs.includes("heat_map"));
  const n = found?.calibration.n;
  return html`<${DropZone} onFiles=${(files) => score({ files })} isBusy=${isScoring} title="Does this belong?" hint="Drop images or a folder here. They are scored, not stored.">
      ${selection.images.length > 0 && html`<button type="button" disabled=${isScoring} onClick=${() => score({ images: selection.images })}>Score the ${selection.images.length} chosen</button>`}
    <//>
    <div class="row bottom">
      <${ScorerChoice} scorer=${scorer} setScorer=${(id) => {
        setScorer(id);
        if (last && !isSet) score(last, id);
      }} judges=${judges} disabled=${isSet} />
      <${RateField} rate=${rate} setRate=${setRate} />
      <${Check} label="Judge them as one set" value=${isSet} setValue=${setIsSet} />
    </div>
    <${ProblemNote} problem=${scorersProblem} />
    <div aria-live="polite">
      ${isScoring && done && html`<${Progress} label="Scoring" done=${done[0]} total=${done[1]} />`}
      <${ProblemNote} problem=${problem} title="Not scored." />
      ${found && n < VERDICT_MIN && html`<p class="summary"><strong>No verdict yet:</strong> ${plural(n, "normal image")} can be compared with, and ${VERDICT_MIN} are needed.</p>`}
      ${found && n >= VERDICT_MIN && html`<p class="summary"><strong>${alarmed} of ${plural(found.results.length, "image")} ${alarmed === 1 ? "is" : "are"} anomalous</strong> at a false-alarm rate of ${percent(realRate(rate, n))}, from ${plural(n, "normal image")}.${isSupported(rate, n) ? "" : ` That many support no rate below ${percent(1 / (n + 1))}; add normal images for ${percent(rate)}.`}</p>`}
    </div>
    ${set && html`<${SetResult} name=${name} set=${set} />`}
    ${found && heat && html`<${HeatControl} strength=${strength} setStrength=${setStrength} heatmap=${heat} />`}
    ${found && !heat && mapper && !hasHeat(scorer) && html`<${Note} kind="beside"><p><strong>Where in the image?</strong> The scorer ${scorer} judges the whole image. A heat map needs ${mapper.id}, fitted on this collection.</p><${FitHere} name=${name} method=${mapper.id} scorers=${usable} onReady=${(id) => {
      reload();
      setScorer(id);
      if (last) score(last, id, true);
    }} /><//>`}
    ${found && html`<ul class="results">${[...found.results].sort((a, b) => Number(Boolean(a.problem)) - Number(Boolean(b.problem)) || b.score - a.score).map((one) => html`<${Result} key=${`${one.title} ${one.score}`} name=${name} result=${one} scorer=${scorer} rate=${rate} calibration=${found.calibration} strength=${strength} changed=${changed} />`)}</ul>`}`;
};
