// What looks like this? By image, by examples and counter-examples, among those that a filter lets through.
import { ask, formOf, imagePath, inCollection } from "../api.js";
import { useLatest } from "../asking.js";
import { select, selectionOf } from "../carried.js";
import { DropZone } from "../dropping.js";
import { Check, Choice, Text } from "../fields.js";
import { nameOf, plural, significant } from "../format.js";
import { Empty, ProblemNote } from "../notices.js";
import { Picture, Thumb } from "../pictures.js";
import { html, useEffect, useState } from "../view.js";

const CONDITIONS = [["match", "is"], ["any", "is one of"], ["gte", "is at least"], ["lte", "is at most"]];
const typed = (text) => (text.trim() !== "" && !Number.isNaN(Number(text)) ? Number(text) : { true: true, false: false }[text] ?? text);

/** The filter of the service from rows of (key, how, value, not). */
const filterOf = (rows) => {
  const whole = rows.filter((one) => one.key.trim());
  if (!whole.length) return undefined;
  const clause = ({ key, how, value }) => {
    if (how === "match") return { key, match: typed(value) };
    if (how === "any") return { key, in: value.split(",").map((one) => typed(one.trim())) };
    return { key, range: { [how]: typed(value) } };
  };
  const told = {};
  for (const [name, some] of [["must", whole.filter((one) => !one.isNot)], ["must_not", whole.filter((one) => one.isNot)]]) {
    if (some.length) told[name] = some.map(clause);
  }
  return told;
};

const FilterRow = ({ row, setRow, remove }) => html`<li class="row bottom">
  <${Text} label="Field" value=${row.key} setValue=${(key) => setRow({ ...row, key })} placeholder="filename" list="fields" />
  <${Choice} label="Condition" value=${row.how} setValue=${(how) => setRow({ ...row, how })} options=${CONDITIONS} />
  <${Text} label="Value" value=${row.value} setValue=${(value) => setRow({ ...row, value })} />
  <${Check} label="not" value=${row.isNot} setValue=${(isNot) => setRow({ ...row, isNot })} />
  <button type="button" class="quiet-button" onClick=${remove} aria-label="Remove this condition">✕</button>
</li>`;

const Examples = ({ name, title, images, remove }) =>
  images.length > 0 &&
  html`<div class="examples" role="group" aria-label=${title}><span>${title}</span>${images.map(
    (one) => html`<span class="chip"><${Picture} path=${imagePath(name, one.id)} alt=${nameOf(one)} width="28" height="28" /><button type="button" class="quiet-button" onClick=${() => remove(one)} aria-label=${`Leave out ${nameOf(one)}`}>✕</button></span>`,
  )}</div>`;

export const Search = ({ collection, name }) => {
  const [file, setFile] = useState(null);
  const [positive, setPositive] = useState(selectionOf(name));
  const [negative, setNegative] = useState([]);
  const [rows, setRows] = useState([]);
  const [k, setK] = useState("24");
  const [farthest, setFarthest] = useState("");
  const [results, setResults] = useState(null);
  const [search, isSearching, problem] = useLatest(async (signal) => {
    if (!file && !positive.length) return setResults(null);
    const parameters = { k: Number(k), filter: filterOf(rows), ...(farthest.trim() ? { max_distance: Number(farthest) } : {}) };
    const examples = { positive: positive.map((one) => one.id), ...(negative.length ? { negative: negative.map((one) => one.id) } : {}) };
    const body = file ? { form: formOf([file], parameters) } : { json: { ...parameters, ...examples } };
    const answer = await ask(inCollection(name, "/query"), { method: "POST", ...body, signal });
    const [found] = answer.results;
    if (found.problem) throw new Error(found.problem.detail);
    return setResults(found);
  });
  const byExamples = (more, less) => {
    setFile(null);
    setPositive(more);
    setNegative(less);
  };
  useEffect(() => {
    search();
  }, [file, positive, negative]);
  useEffect(() => {
    const added = selectionOf(name);
    if (added.length) select(name, []); // taken over as examples
  }, []);
  const without = (some, image) => some.filter((one) => one.id !== image.id);
  const more = (image) => byExamples([...without(positive, image), image], without(negative, image));
  const less = (image) => byExamples(without(positive, image), [...without(negative, image), image]);
  const canLess = positive.length > 0;
  return html`<${DropZone} onFiles=${([first]) => {
      setFile(first);
      setPositive([]);
      setNegative([]);
    }} isBusy=${isSearching} title="What looks like this?" hint="Drop one image here, or choose some under Images." />
    <form class="panel" onSubmit=${(event) => {
      event.preventDefault();
      search();
    }}>
      ${file && html`<div class="examples"><span>Like</span><span class="chip"><${Picture} file=${file} alt=${file.name} width="28" height="28" /><span class="name">${file.name}</span></span></div>`}
      <${Examples} name=${name} title="More like" images=${positive} remove=${(one) => byExamples(without(positive, one), positive.length > 1 ? negative : [])} />
      <${Examples} name=${name} title="Less like" images=${negative} remove=${(one) => byExamples(positive, without(negative, one))} />
      <datalist id="fields">${["filename", "$role", "$label", "$group"].map((one) => html`<option value=${one} />`)}</datalist>
      <ul class="plain-list" aria-label="Conditions">${rows.map((row, place) => html`<${FilterRow} row=${row} setRow=${(changed) => setRows(rows.map((one, other) => (other === place ? changed : one)))} remove=${() => setRows(rows.filter((_, other) => other !== place))} />`)}</ul>
      <div class="row bottom">
        <button type="button" onClick=${() => setRows([...rows, { key: "", how: "match", value: "", isNot: false }])}>Add a condition</button>
        <${Choice} label="How many" value=${k} setValue=${setK} options=${["12", "24", "48", "96"].map((one) => [one, one])} />
        <${Text} label="Not farther than" value=${farthest} setValue=${setFarthest} inputmode="decimal" size="6" />
        <button class="primary" disabled=${isSearching || (!file && !positive.length)}>Search</button>
      </div>
    </form>
    <${ProblemNote} problem=${problem} title="Nothing was found out." />
    <p role="status" class="quiet">${results ? `${plural(results.length, "image")}, nearest first; ${collection.metric === "cosine" ? "distance is 1 − cos" : "distance is Euclidean"}.` : ""}</p>
    ${!results && !file && !positive.length && !problem && html`<${Empty} title="Nothing asked yet"><p>Drop an image above, or choose some under Images: what looks like them comes up here, nearest first. Then say more like this, less like that.</p><//>`}
    ${results?.length === 0 && html`<${Empty} title="No image fits"><p>Loosen a condition or allow a larger distance.</p><//>`}
    ${results?.length > 0 && html`<ul class="grid">${results.map(
      (image) => html`<li key=${image.id}><${Thumb} collection=${name} image=${image} note=${significant(image.distance)}>
        <span class="more-less">
          <button type="button" onClick=${() => more(image)} aria-label=${`More like ${nameOf(image)}`}>+</button>
          <button type="button" disabled=${!canLess} title=${canLess ? "" : "First choose one to be more like."} onClick=${() => less(image)} aria-label=${`Less like ${nameOf(image)}`}>−</button>
        </span>
      <//></li>`,
    )}</ul>`}`;
};
