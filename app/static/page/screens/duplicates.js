// Images that are there more than once: same bytes, same pixels, near copies, each told apart.
import { ask, hasEnded, inCollection, newWork, pages, part } from "../api.js";
import { useAction, useAsked, useJob } from "../asking.js";
import { Check } from "../fields.js";
import { moment, nameOf, plural, significant } from "../format.js";
import { Empty, JobProgress, ProblemNote } from "../notices.js";
import { Thumb } from "../pictures.js";
import { html, useEffect, useState } from "../view.js";

const LEVELS = {
  exact_bytes: ["The same file", "Byte for byte."],
  exact_pixels: ["The same pixels", "Other files that show exactly the same."],
  near: ["Near copies", "Packed again, resized or slightly changed."],
  similar: ["Similar", "Close to each other, but not copies."],
};

const Group = ({ name, group, changed }) => {
  const others = group.images.slice(1).map((one) => one.id);
  const [isGone, setGone] = useState(false);
  const [remove, isRemoving, problem] = useAction(async () => {
    if (!window.confirm(`Keep ${nameOf(group.images[0])} and delete ${plural(others.length, "image")}?`)) return;
    await ask(inCollection(name, "/images/delete"), { method: "POST", json: { ids: others } });
    setGone(true);
    changed();
  });
  if (isGone) return html`<li class="panel"><p class="quiet">One is kept; ${plural(others.length, "image")} deleted.</p></li>`;
  return html`<li class="panel">
    <div class="grid">${group.images.map((one, place) => html`<${Thumb} collection=${name} image=${one} note=${place === 0 ? "first" : !one.distance ? "" : `at ${significant(one.distance)}`} />`)}</div>
    <div class="row"><button type="button" class="danger" disabled=${isRemoving} onClick=${remove}>Keep the first, delete ${others.length === 1 ? "the other" : `the ${others.length} others`}</button></div>
    <${ProblemNote} problem=${problem} title="Not deleted." />
  </li>`;
};

export const Duplicates = ({ name, changed }) => {
  const { data: before, problem: listProblem } = useAsked(`/v1/jobs?collection=${part(name)}&kind=duplicates&limit=1`);
  const [id, setId] = useState(null);
  const [groups, setGroups] = useState(null);
  const [wantsSimilar, setWantsSimilar] = useState(false);
  const [load, , loadProblem] = useAction(async (job) => setGroups(await pages(inCollection(name, `/duplicates/${part(job)}`), "groups", 500)));
  const [job, jobProblem] = useJob(id, (last) => last.state === "succeeded" && load(last.id));
  const [search, isStarting, problem] = useAction(async () => {
    setGroups(null);
    const levels = ["exact_bytes", "exact_pixels", "near", ...(wantsSimilar ? ["similar"] : [])];
    setId((await ask(inCollection(name, "/duplicates"), { method: "POST", json: { levels }, work: newWork() })).id);
  });
  useEffect(() => {
    const last = before?.jobs[0];
    if (last && !id) setId(last.id);
  }, [before]);
  const isRunning = id && (!job || !hasEnded(job));
  return html`<div class="row bottom">
      <button type="button" class="primary" disabled=${isStarting || isRunning} onClick=${search}>Look for duplicates</button>
      <${Check} label="Similar images too" value=${wantsSimilar} setValue=${setWantsSimilar} />
    </div>
    <${ProblemNote} problem=${problem || jobProblem || loadProblem || listProblem} title="Not looked for." />
    ${id && (isRunning || job.state !== "succeeded") && html`<${JobProgress} job=${job} label="Looking for duplicates" />`}
    ${!id && before && html`<${Empty} title="Not looked for yet"><p>Copies in the bank count twice and make strangers look more usual than they are.</p><//>`}
    ${groups && html`<p role="status">${groups.length ? plural(groups.length, "set") : "No duplicates"}, as of ${moment(job.finished_at)}.</p>`}
    ${groups &&
    Object.entries(LEVELS).map(([level, [title, words]]) => {
      const some = groups.filter((one) => one.level === level);
      return some.length > 0 && html`<section aria-label=${title}><h2>${title}: ${plural(some.length, "set")}</h2><p class="quiet">${words}</p><ul class="cards">${some.map((one) => html`<${Group} key=${`${level} ${one.group}`} name=${name} group=${one} changed=${changed} />`)}</ul></section>`;
    })}`;
};
