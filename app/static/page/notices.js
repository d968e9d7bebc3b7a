// What is said to people: problems as sentences, progress, what to do when there is nothing yet.
import { hasEnded } from "./api.js";
import { count, duration } from "./format.js";
import { html } from "./view.js";

export const ProblemNote = ({ problem, title = "", children }) =>
  problem &&
  html`<div class="note bad" role="alert">
    <p>${title && html`<strong>${title} </strong>`}${problem.message || problem.detail}${problem.advice ? ` ${problem.advice}` : ""}</p>
    ${children}
  </div>`;

export const Note = ({ children, kind = "" }) => html`<div class=${`note ${kind}`}>${children}</div>`;

export const Empty = ({ title, children }) => html`<div class="empty"><h2>${title}</h2>${children}</div>`;

export const Loading = ({ what = "Loading" }) => html`<p class="loading" role="status">${what}…</p>`;

/** A bar with words; without a total it only says that something is going on. */
export const Progress = ({ label, done, total, note }) => html`<div class="progress">
  <div class="progress-words"><span>${label}</span><span class="quiet">${note || (total ? `${count(done)} of ${count(total)}` : "")}</span></div>
  <progress aria-label=${label} ...${total ? { value: done, max: total } : {}}></progress>
</div>`;

const STATES = { queued: "waiting for its turn", running: "running", succeeded: "done", failed: "failed", cancelled: "cancelled" };

export const stateOf = (job) => (job.cancel_requested && !hasEnded(job) ? "stopping" : STATES[job.state]);

export const JobProgress = ({ job, label }) => {
  if (!job) return html`<${Progress} label=${label} />`;
  const { stage, done, total, remaining_s: remaining } = job.progress;
  if (job.state === "failed") return html`<${ProblemNote} problem=${job.problem} title=${`${label} failed.`} />`;
  if (hasEnded(job)) return html`<p class="quiet" role="status">${label}: ${stateOf(job)}.</p>`;
  const words = [stage || stateOf(job), total ? `${count(done)} of ${count(total)}` : "", remaining ? `${duration(remaining)} left` : ""];
  return html`<${Progress} label=${label} done=${done} total=${total} note=${words.filter(Boolean).join(" · ")} />`;
};
