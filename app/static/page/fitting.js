// Fitting a method to a collection where it is wanted, with its progress as it happens.
import { ask, inCollection, part } from "./api.js";
import { useAction, useJob } from "./asking.js";
import { JobProgress, ProblemNote } from "./notices.js";
import { html, useState } from "./view.js";

/** Ask for the fit: the job. */
export const fit = (name, scorer, body = {}) => ask(inCollection(name, `/scorers/${part(scorer)}`), { method: "PUT", json: body });

/** A button that fits `method`, or takes it at once where it is fitted already. */
export const FitHere = ({ name, method, scorers, onReady }) => {
  const ready = scorers.find((one) => one.method === method && one.serving);
  const [id, setId] = useState(null);
  const [start, isStarting, problem] = useAction(async () => setId((await fit(name, method)).id));
  const [job, jobProblem] = useJob(id, (last) => last.state === "succeeded" && onReady(method));
  if (ready) return html`<button type="button" onClick=${() => onReady(ready.id)}>Show heat maps with ${ready.id}</button>`;
  return html`<div class="fit-here">
    ${id ? html`<${JobProgress} job=${job} label=${`Fitting ${method}`} />` : html`<button type="button" disabled=${isStarting} onClick=${start}>Fit ${method} now</button>`}
    <${ProblemNote} problem=${problem || jobProblem} title="Not fitted." />
  </div>`;
};
