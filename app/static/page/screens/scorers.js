// Ways to judge: what each does and needs, fitting it while watching, and two of them on the same images.
import { ask, inCollection, part } from "../api.js";
import { useAction, useJob, useJudges } from "../asking.js";
import { Comparison } from "../comparison.js";
import { fit } from "../fitting.js";
import { bytes, duration, moment, plural } from "../format.js";
import { JobProgress, Loading, ProblemNote } from "../notices.js";
import { Parameters, given } from "../parameters.js";
import { html, useState } from "../view.js";

const NEEDS = { labels: "labels", unlabelled: "unlabelled images", groups: "groups", sequence: "a sequence", boxes: "boxes", ratings: "ratings", pairs: "comparisons of two" };
const GIVES = { heat_map: "heat map", class_probabilities: "class probabilities", group_score: "score of a set", explanation: "explanation", cleaned_bank: "cleaned bank" };

const stateOf = (scorer) => {
  if (!scorer) return "not fitted here";
  if (scorer.live) return "always ready: follows the bank";
  if (scorer.state !== "ready") return scorer.state;
  const { added, removed } = scorer.fit.stale;
  return `fitted on ${plural(scorer.fit.images, "image")}, ${moment(scorer.fit.fitted_at)}${added || removed ? `; since then ${added} added, ${removed} removed` : ""}`;
};

const Method = ({ name, method, scorer, reload }) => {
  const [values, setValues] = useState({});
  const [job, jobProblem] = useJob(scorer?.state === "fitting" ? scorer.job : null, reload);
  const [start, isStarting, problem] = useAction(async () => {
    await fit(name, method.id, { params: given(method.params, values) });
    reload();
  });
  const [drop, isDropping, dropProblem] = useAction(async () => {
    if (!window.confirm(`Forget what ${method.id} has learnt from ${name}?`)) return;
    await ask(inCollection(name, `/scorers/${part(method.id)}`), { method: "DELETE" });
    reload();
  });
  const needs = method.needs.required.filter((one) => NEEDS[one]).map((one) => NEEDS[one]);
  const gives = method.gives.outputs.filter((one) => GIVES[one]).map((one) => GIVES[one]);
  const isFitting = scorer?.state === "fitting";
  return html`<li class="panel method" aria-label=${method.id}>
    <div class="row between"><h3>${method.title}</h3><code>${method.id}</code></div>
    <p>${method.sentence}</p>
    <p class="quiet">${[method.status === "trial" ? "on trial" : method.status, needs.length ? `needs ${needs.join(", ")}` : "", gives.length ? `gives ${gives.join(", ")}` : ""].filter(Boolean).join(" · ")}</p>
    <p><span class=${scorer?.serving ? "dot ready" : "dot"} aria-hidden="true"></span> ${stateOf(scorer)}</p>
    ${isFitting && html`<${JobProgress} job=${job} label=${`Fitting ${method.id}`} />`}
    ${scorer?.problem && !isFitting && html`<${ProblemNote} problem=${scorer.problem} title="The last fit failed." />`}
    <${ProblemNote} problem=${problem || dropProblem || jobProblem} title="That did not work." />
    ${!method.live &&
    html`<details><summary>Parameters</summary><${Parameters} schema=${method.params} values=${values} setValues=${setValues} /></details>
      <div class="row">
        <button type="button" disabled=${isStarting || isFitting} onClick=${start} aria-label=${`${scorer ? "Fit again" : "Fit"} ${method.id}`}>${scorer ? "Fit again" : "Fit"}</button>
        ${scorer && html`<button type="button" class="danger" disabled=${isDropping} onClick=${drop} aria-label=${`Forget ${method.id}`}>Forget</button>`}
      </div>`}
    <details><summary>Card</summary><dl class="facts">
      <dt>Paper</dt><dd>${method.paper.authors}, ${method.paper.year}: <a href=${method.paper.link} rel="noreferrer">${method.paper.title}</a></dd>
      <dt>Score</dt><dd>${method.gives.unit}</dd>
      ${scorer?.fit && html`<dt>Learnt</dt><dd>${bytes(scorer.fit.bytes)} in ${duration(scorer.fit.seconds)}, calibrated on ${plural(scorer.fit.calibration.n, "image")}</dd>`}
      <dt>Beware</dt><dd><ul>${method.beware.map((one) => html`<li>${one}</li>`)}</ul></dd>
    </dl></details>
  </li>`;
};

export const Scorers = ({ collection, name }) => {
  const { judges, methods, here, problem, reload } = useJudges(name);
  if (problem) return html`<${ProblemNote} problem=${problem} />`;
  if (!judges) return html`<${Loading} />`;
  const rank = { supported: 0, trial: 1, retiring: 2 };
  const own = new Map(here.map((one) => [one.id, one]));
  const shown = methods
    .filter((one) => one.role === "scorer")
    .sort((a, b) => Number(b.live) - Number(a.live) || Boolean(own.get(b.id)) - Boolean(own.get(a.id)) || rank[a.status] - rank[b.status]);
  return html`<${Comparison} collection=${collection} name=${name} scorers=${judges} />
    <h2>Methods</h2>
    <ul class="cards">${shown.map((one) => html`<${Method} key=${one.id} name=${name} method=${one} scorer=${own.get(one.id)} reload=${reload} />`)}</ul>`;
};
