// Long work: what runs, what has ended and how.
import { ask, hasEnded, part } from "../api.js";
import { useAction, useAsked, useJob } from "../asking.js";
import { duration, moment } from "../format.js";
import { Empty, JobProgress, Loading, ProblemNote, stateOf } from "../notices.js";
import { screenOf } from "../route.js";
import { html, useEffect } from "../view.js";

const KINDS = {
  fit: "Fit a scorer",
  import: "Import images",
  duplicates: "Find duplicates",
  snapshot: "Write a snapshot",
  restore: "Restore a snapshot",
  clean: "Clean the bank",
  compress: "Compress the bank",
  calibrate: "Calibrate",
  compact: "Compact",
  index: "Write the index file",
  embed: "Learn an embedding",
};

export const titleOf = (job) => `${KINDS[job.kind] || job.kind}${job.parameters?.scorer ? ` ${job.parameters.scorer}` : ""}`;

const took = (job) => (job.started_at && job.finished_at ? duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000) : "");

const Live = ({ job, changed }) => {
  const [now] = useJob(job.id, changed);
  const shown = now || job;
  const [cancel, isCancelling, problem] = useAction(() => ask(`/v1/jobs/${part(job.id)}/cancel`, { method: "POST" }));
  return html`<li class="panel">
    <${JobProgress} job=${shown} label=${`${titleOf(shown)}${shown.collection ? ` · ${shown.collection}` : ""}`} />
    ${!hasEnded(shown) && html`<button type="button" disabled=${isCancelling || shown.cancel_requested} onClick=${cancel} aria-label=${`Cancel ${titleOf(shown)}`}>Cancel</button>`}
    <${ProblemNote} problem=${problem} />
  </li>`;
};

const Ended = ({ job }) => html`<tr>
  <th scope="row">${titleOf(job)}</th>
  <td data-head="Collection">${job.collection ? html`<a href=${screenOf(job.collection, "images")}>${job.collection}</a>` : "–"}</td>
  <td data-head="State" class=${job.state === "failed" ? "bad-words" : ""}>${stateOf(job)}</td>
  <td data-head="Asked for">${moment(job.created_at)}</td>
  <td data-head="Took">${took(job) || "–"}</td>
  <td data-head="Outcome" class="wide">${job.problem?.detail || (job.result ? html`<details><summary>Result</summary><pre tabindex="0">${JSON.stringify(job.result, null, 1).slice(0, 4000)}</pre></details>` : "")}</td>
</tr>`;

export const Jobs = () => {
  const { data, problem, reload } = useAsked("/v1/jobs?limit=100");
  useEffect(() => {
    const timer = setInterval(reload, 5000); // jobs that others begin
    return () => clearInterval(timer);
  }, []);
  const jobs = data?.jobs || [];
  const live = jobs.filter((one) => !hasEnded(one));
  const ended = jobs.filter(hasEnded);
  return html`<h1>Jobs</h1>
    <${ProblemNote} problem=${problem} title="The jobs cannot be shown." />
    ${!data && !problem && html`<${Loading} />`}
    ${data && !jobs.length && html`<${Empty} title="No job yet"><p>Fitting a scorer, importing a folder or looking for duplicates is a job; each shows here how far it is.</p><//>`}
    ${live.length > 0 && html`<ul class="plain-list">${live.map((one) => html`<${Live} key=${one.id} job=${one} changed=${reload} />`)}</ul>`}
    ${ended.length > 0 &&
    html`<div class="table-frame" tabindex="0" role="region" aria-label="Jobs that have ended"><table class="stacks">
      <thead><tr><th scope="col">Job</th><th scope="col">Collection</th><th scope="col">State</th><th scope="col">Asked for</th><th scope="col">Took</th><th scope="col">Outcome</th></tr></thead>
      <tbody>${ended.map((one) => html`<${Ended} key=${one.id} job=${one} />`)}</tbody>
    </table></div>`}`;
};
