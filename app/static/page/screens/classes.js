// Kinds of images from a few examples each: registering, and asking which one an image is, or none of them.
import { ask, batches, formOf, imagePath, inCollection, newWork, part } from "../api.js";
import { useAction, useAsked } from "../asking.js";
import { useSelection } from "../carried.js";
import { DropZone } from "../dropping.js";
import { RateField, Text } from "../fields.js";
import { lengthOf, nameOf, percent, plural, pValue, significant } from "../format.js";
import { Empty, Note, ProblemNote, Progress } from "../notices.js";
import { Picture, Thumb } from "../pictures.js";
import { screenOf } from "../route.js";
import { html, useState } from "../view.js";

const SHOWN = 8;

const Registered = ({ name, one, changed }) => {
  const [remove, isRemoving, problem] = useAction(async () => {
    if (!window.confirm(`Forget the class ${one.label}? Its images stay, without a label, as what each was before.`)) return;
    await ask(inCollection(name, `/classes/${part(one.label)}`), { method: "DELETE" });
    changed();
  });
  return html`<li class="panel">
    <div class="row between"><h3>${one.label}</h3><span class="quiet">${plural(one.count, "example")}</span></div>
    <div class="strip">${one.examples.slice(0, SHOWN).map((id) => html`<${Thumb} collection=${name} image=${{ id }} caption="" />`)}</div>
    <div class="row"><button type="button" class="danger" disabled=${isRemoving} onClick=${remove} aria-label=${`Forget ${one.label}`}>Forget</button></div>
    <${ProblemNote} problem=${problem} title="Not forgotten." />
  </li>`;
};

const Registering = ({ name, changed }) => {
  const selection = useSelection(name);
  const [label, setLabel] = useState("");
  const [done, setDone] = useState("");
  const [register, isRegistering, problem] = useAction(async (files) => {
    if (!label.trim()) throw new Error("Say first what the class is called.");
    const path = inCollection(name, `/classes/${part(label.trim())}`);
    if (files) for (const some of batches(files)) await ask(path, { method: "PUT", form: formOf(some), work: newWork() });
    else await ask(path, { method: "PUT", json: { ids: selection.images.map((one) => one.id) }, work: newWork() });
    setDone(`${label.trim()} knows ${plural(files ? files.length : selection.images.length, "more example")}.`);
    if (!files) selection.clear();
    setLabel("");
    changed();
  });
  return html`<div class="panel">
    <h2>New class, or more examples of one</h2>
    <div class="row bottom">
      <${Text} label="Class" value=${label} setValue=${setLabel} maxlength="128" placeholder="scratch" />
      <button type="button" class="primary" disabled=${isRegistering || !selection.images.length} onClick=${() => register(null)}>Register the ${selection.images.length || ""} chosen</button>
      ${!selection.images.length && html`<span class="quiet">Choose images under <a href=${screenOf(name, "images")}>Images</a>, or drop examples below.</span>`}
    </div>
    ${selection.images.length > 0 && html`<div class="examples">${selection.images.slice(0, 24).map((one) => html`<span class="chip"><${Picture} path=${imagePath(name, one.id)} alt=${nameOf(one)} /></span>`)}</div>`}
    <${DropZone} onFiles=${register} isBusy=${isRegistering} title="Examples" hint="Five are enough to begin. They become examples, never normal images." />
    <${ProblemNote} problem=${problem} title="Not registered." />
    <p role="status" class="quiet">${done}</p>
  </div>`;
};

const Answer = ({ name, result, title, file, id }) => {
  if (result.problem) return html`<li class="result"><div class="result-words"><h3>${title}</h3><${ProblemNote} problem=${result.problem} /></div></li>`;
  const chances = Object.entries(result.probabilities).slice(0, 5);
  return html`<li class=${`result narrow ${result.unknown ? "is-unknown" : ""}`}>
    <div class="heat"><${Picture} path=${id && imagePath(name, id)} file=${file} alt=${title} /></div>
    <div class="result-words">
      <h3>${title}</h3>
      <p class="verdict">${result.label ?? "None of these"}</p>
      <p class="quiet">p = ${pValue(result.p_value)}, ${significant(result.score)} from the nearest class</p>
      <ul class="chances" aria-label="Probabilities">${chances.map(([label, share]) => html`<li><span class="name">${label}</span><span class="share"><span style=${{ width: lengthOf(share) }}></span></span><span class="number">${percent(share)}</span></li>`)}</ul>
    </div>
    <div class="result-near" role="group" aria-label="Nearest examples">${(result.nearest || []).map((near) => html`<${Thumb} collection=${name} image=${near} caption=${near.label} note=${significant(near.distance)} />`)}</div>
  </li>`;
};

const Classifying = ({ name, rate: own }) => {
  const selection = useSelection(name);
  const [rate, setRate] = useState(own);
  const [found, setFound] = useState(null);
  const [done, setDone] = useState(null);
  const [classify, isAsking, problem] = useAction(async (files) => {
    const results = [];
    let calibration = null;
    const keep = (answer, sources) => {
      calibration = answer.calibration;
      answer.results.forEach((result, place) => results.push({ result, ...sources[place] }));
      setDone([results.length, files ? files.length : selection.images.length]);
    };
    const path = inCollection(name, "/classify");
    if (files) {
      for (const some of batches(files, 8)) keep(await ask(path, { method: "POST", form: formOf(some, { false_alarm_rate: rate }) }), some.map((file) => ({ file, title: file.name })));
    } else {
      const ids = selection.images.map((one) => one.id);
      keep(await ask(path, { method: "POST", json: { ids, false_alarm_rate: rate } }), selection.images.map((one) => ({ id: one.id, title: nameOf(one) })));
    }
    setFound({ results, calibration });
  });
  return html`<h2>Which one is this?</h2>
    <${DropZone} onFiles=${classify} isBusy=${isAsking} title="Classify" hint="Drop images or a folder here.">
      ${selection.images.length > 0 && html`<button type="button" disabled=${isAsking} onClick=${() => classify(null)}>Classify the ${selection.images.length} chosen</button>`}
    <//>
    <${RateField} rate=${rate} setRate=${setRate} label="Known ones that may be called “none of these”" />
    ${isAsking && done && html`<${Progress} label="Classifying" done=${done[0]} total=${done[1]} />`}
    <${ProblemNote} problem=${problem} title="Not classified." />
    ${found && !found.calibration.supported && html`<${Note}>${plural(found.calibration.n, "example")} support no rate below ${percent(found.calibration.false_alarm_rate)}; more examples do.<//>`}
    ${found && html`<p role="status">${plural(found.results.length, "image")}, ${found.results.filter((one) => one.result.unknown).length} of none of the classes.</p>
    <ul class="results">${found.results.map((one) => html`<${Answer} name=${name} ...${one} />`)}</ul>`}`;
};

export const Classes = ({ collection, name, changed }) => {
  const { data, problem, reload } = useAsked(inCollection(name, "/classes"));
  const refresh = () => {
    reload();
    changed();
  };
  const classes = data?.classes || [];
  return html`<${ProblemNote} problem=${problem} />
    ${data && !classes.length && html`<${Empty} title="No classes yet"><p>Give a class a name and a few examples; from two classes on, images are told apart, and those of no class are said to be none of these.</p><//>`}
    ${classes.length > 0 && html`<ul class="cards narrow">${classes.map((one) => html`<${Registered} key=${one.label} name=${name} one=${one} changed=${refresh} />`)}</ul>`}
    <${Registering} name=${name} changed=${refresh} />
    ${classes.length > 0 && html`<${Classifying} name=${name} rate=${collection.false_alarm_rate} />`}`;
};
