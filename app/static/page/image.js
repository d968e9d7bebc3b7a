// One stored image, large, with what is known of it and what can be done with it.
import { ask, imagePath, inCollection, part } from "./api.js";
import { useAction, useAsked } from "./asking.js";
import { select } from "./carried.js";
import { Choice } from "./fields.js";
import { bytes, moment, nameOf, ROLES, significant } from "./format.js";
import { Loading, ProblemNote } from "./notices.js";
import { Picture, Thumb } from "./pictures.js";
import { go, screenOf } from "./route.js";
import { ScoreBar, Standing } from "./verdicts.js";
import { html, useEffect, useRef, useState } from "./view.js";

const Scored = ({ name, id, scorer }) => {
  const [answer, setAnswer] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    const stop = new AbortController();
    ask(inCollection(name, "/anomaly"), { method: "POST", json: { ids: [id], ...(scorer ? { scorer } : {}) }, signal: stop.signal }).then(setAnswer, (error) => error.name !== "AbortError" && setProblem(error));
    return () => stop.abort();
  }, [name, id, scorer]);
  if (problem) return html`<p class="quiet">${problem.message}</p>`;
  if (!answer) return html`<${Loading} what="Scoring" />`;
  const [result] = answer.results;
  if (result.problem) return html`<${ProblemNote} problem=${result.problem} />`;
  return html`<div class="scored">
    <${Standing} result=${result} calibration=${answer.calibration} scorer=${scorer} />
    <${ScoreBar} score=${result.score} threshold=${answer.calibration.threshold} />
    <h3>Nearest normal images</h3>
    <div class="strip">${result.neighbours.map((near) => html`<${Thumb} collection=${name} image=${near} note=${significant(near.distance)} />`)}</div>
  </div>`;
};

export const ImageDialog = ({ collection, id, scorer, onClose, changed }) => {
  const name = collection.name;
  const dialog = useRef(null);
  const { data: image, problem, reload } = useAsked(inCollection(name, `/images/${part(id)}`));
  useEffect(() => {
    if (!dialog.current.open) dialog.current.showModal();
  }, []);
  const [setRole, isSaving, saveProblem] = useAction(async (role) => {
    await ask(inCollection(name, `/images/${part(id)}`), { method: "PATCH", json: { role } });
    reload();
    changed();
  });
  const [remove, isRemoving, removeProblem] = useAction(async () => {
    if (!window.confirm(`Delete ${nameOf(image)} from ${name}?`)) return;
    await ask(inCollection(name, `/images/${part(id)}`), { method: "DELETE" });
    changed();
    dialog.current.close();
  });
  const alike = () => {
    select(name, [image]);
    go(screenOf(name, "search"));
  };
  const facts = image && [
    ["Size", `${image.width} × ${image.height}, ${image.format}, ${bytes(image.bytes)}`],
    ["Arrived", moment(image.created_at)],
    ...(image.label ? [["Label", image.label]] : []),
    ...(image.group ? [["Group", image.group]] : []),
    ...Object.entries(image.metadata).map(([field, value]) => [field, typeof value === "object" ? JSON.stringify(value) : String(value)]),
    ["Id", image.id],
  ];
  return html`<dialog ref=${dialog} class="image-dialog" aria-labelledby="image-title" onClose=${onClose} onClick=${(event) => event.target === dialog.current && dialog.current.close()}>
    <div class="dialog-head">
      <h2 id="image-title">${image ? nameOf(image) : "Image"}</h2>
      <button type="button" class="quiet-button" onClick=${() => dialog.current.close()} aria-label="Close">✕</button>
    </div>
    <${ProblemNote} problem=${problem || saveProblem || removeProblem} />
    ${image &&
    html`<div class="image-body">
      <div class="image-large"><${Picture} path=${imagePath(name, id, "content")} alt=${`Stored image ${nameOf(image)}`} /></div>
      <div class="image-side">
        <${Scored} key=${image.sequence} name=${name} id=${id} scorer=${scorer} />
        <div class="row">
          <${Choice} label="Role" value=${image.role} setValue=${setRole} disabled=${isSaving} options=${Object.entries(ROLES)} />
          <button type="button" onClick=${alike}>More like this</button>
          <button type="button" class="danger" disabled=${isRemoving} onClick=${remove}>Delete</button>
        </div>
        <dl class="facts">${facts.map(([field, value]) => html`<dt>${field}</dt><dd>${value}</dd>`)}</dl>
      </div>
    </div>`}
    ${!image && !problem && html`<${Loading} />`}
  </dialog>`;
};
