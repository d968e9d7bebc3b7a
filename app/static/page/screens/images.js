// The images of a collection: looking through them, adding, choosing some for further work.
import { ask, batches, formOf, inCollection, newWork, part } from "../api.js";
import { useAction, useLatest } from "../asking.js";
import { useSelection } from "../carried.js";
import { DropZone } from "../dropping.js";
import { Choice } from "../fields.js";
import { nameOf, plural, ROLES } from "../format.js";
import { Empty, Loading, ProblemNote, Progress } from "../notices.js";
import { Thumb } from "../pictures.js";
import { go, screenOf } from "../route.js";
import { html, useEffect, useState } from "../view.js";

const PAGE = 120;
const MARKS = { normal: "", anomalous: "is-anomalous", unlabelled: "is-unlabelled", example: "is-example" };

const Adding = ({ name, changed }) => {
  const [role, setRole] = useState("normal");
  const [done, setDone] = useState(null);
  const [add, isAdding, problem] = useAction(async (files) => {
    const told = { done: 0, total: files.length, created: 0, updated: 0, duplicate: 0, refused: [] };
    setDone({ ...told });
    for (const some of batches(files)) {
      const answer = await ask(inCollection(name, "/images"), { method: "POST", form: formOf(some, { role }), work: newWork() });
      answer.items.forEach((item, place) => item.problem && told.refused.push({ file: some[place].name, detail: item.problem.detail }));
      for (const kind of ["created", "updated", "duplicate"]) told[kind] += answer[kind];
      told.done += some.length;
      setDone({ ...told });
    }
    changed();
  });
  const ended = done && !isAdding;
  return html`<${DropZone} onFiles=${add} isBusy=${isAdding} title="Add images" hint="Drop files or a folder here.">
      <${Choice} label="as" value=${role} setValue=${setRole} options=${[["normal", "normal: the bank"], ["unlabelled", "unlabelled: for review"], ["anomalous", "anomalous: known defects"]]} />
    <//>
    <div aria-live="polite">
      ${done && isAdding && html`<${Progress} label="Adding images" done=${done.done} total=${done.total} />`}
      <${ProblemNote} problem=${problem} title=${done ? `${plural(done.done, "image")} of ${done.total} were sent, then it stopped.` : ""} />
      ${ended && !problem && html`<p class="note good">${plural(done.created, "image")} added${done.updated ? `, ${done.updated} replaced` : ""}${done.duplicate ? `, ${done.duplicate} already there` : ""}${done.refused.length ? `, ${done.refused.length} refused` : ""}.</p>`}
      ${ended && done.refused.length > 0 && html`<ul class="refused">${done.refused.slice(0, 20).map((one) => html`<li><strong>${one.file}</strong>: ${one.detail}</li>`)}</ul>`}
    </div>`;
};

const SelectionBar = ({ name, selection, changed }) => {
  const ids = selection.images.map((one) => one.id);
  const [setRole, isChanging, roleProblem] = useAction(async (role) => {
    for (const id of ids) await ask(inCollection(name, `/images/${part(id)}`), { method: "PATCH", json: { role } });
    selection.clear();
    changed();
  });
  const [remove, isRemoving, removeProblem] = useAction(async () => {
    if (!window.confirm(`Delete ${plural(ids.length, "image")} from ${name}?`)) return;
    await ask(inCollection(name, "/images/delete"), { method: "POST", json: { ids } });
    selection.clear();
    changed();
  });
  return html`<div class="selection-bar" role="region" aria-label="Chosen images">
    <strong>${plural(ids.length, "image")} chosen</strong>
    <button type="button" onClick=${() => go(screenOf(name, "score"))}>Score</button>
    <button type="button" onClick=${() => go(screenOf(name, "search"))}>More like these</button>
    <label class="inline">Make them <select disabled=${isChanging} onChange=${(event) => event.target.value && setRole(event.target.value)}>
      <option value="">…</option>
      ${Object.entries(ROLES).filter(([id]) => id !== "example").map(([id, words]) => html`<option value=${id}>${words}</option>`)}
    </select></label>
    <button type="button" class="danger" disabled=${isRemoving} onClick=${remove}>Delete</button>
    <button type="button" class="quiet-button" onClick=${selection.clear}>Choose none</button>
    <${ProblemNote} problem=${roleProblem || removeProblem} />
  </div>`;
};

export const Images = ({ collection, name, changed }) => {
  const [role, setRole] = useState("");
  const [images, setImages] = useState(null);
  const [next, setNext] = useState(null);
  const selection = useSelection(name);
  const [load, isLoading, problem] = useLatest(async (signal, cursor) => {
    const asked = new URLSearchParams({ limit: PAGE, ...(role ? { role } : {}), ...(cursor ? { cursor } : {}) });
    const answer = await ask(inCollection(name, `/images?${asked}`), { signal });
    setImages((before) => (cursor ? [...before, ...answer.images] : answer.images));
    setNext(answer.next);
  });
  useEffect(() => {
    load("");
  }, [name, role, collection.revision]);
  const roles = Object.entries(ROLES).filter(([id]) => collection.roles[id] || id === "normal");
  return html`<${Adding} name=${name} changed=${changed} />
    ${collection.images > 0 &&
    html`<div class="row between">
      <${Choice} label="Show" value=${role} setValue=${setRole} options=${[["", `all ${collection.images}`], ...roles.map(([id, words]) => [id, `${words} (${collection.roles[id]})`])]} />
    </div>`}
    <${ProblemNote} problem=${problem} title="The images cannot be shown." />
    ${!images && isLoading && html`<${Loading} />`}
    ${images?.length === 0 && html`<${Empty} title=${role ? `No ${ROLES[role]} image` : "No images yet"}><p>Twenty normal images are enough to begin; a hundred support a false-alarm rate of 1 %.</p><//>`}
    ${images?.length > 0 &&
    html`<ul class="grid">${images.map(
      (image) => html`<li key=${image.id}><${Thumb} collection=${name} image=${image} mark=${MARKS[image.role]} note=${image.role === "normal" ? "" : image.label || image.role}>
        <label class="pick"><input type="checkbox" checked=${selection.has(image.id)} onChange=${() => selection.toggle(image)} aria-label=${`Choose ${nameOf(image)}`} /></label>
      <//></li>`,
    )}</ul>`}
    ${next && html`<button type="button" disabled=${isLoading} onClick=${() => load(next)}>Show more</button>`}
    ${selection.images.length > 0 && html`<${SelectionBar} name=${name} selection=${selection} changed=${changed} />`}`;
};
