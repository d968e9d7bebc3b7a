// Every collection at a glance, and making one.
import { ask, imagePath, inCollection } from "../api.js";
import { useAction, useAsked } from "../asking.js";
import { RateField, Text } from "../fields.js";
import { count, percent, plural } from "../format.js";
import { Loading, ProblemNote } from "../notices.js";
import { Picture } from "../pictures.js";
import { go, screenOf } from "../route.js";
import { html, useState } from "../view.js";

const SHOWN = 8;

const Card = ({ collection }) => {
  const { name, roles } = collection;
  const { data } = useAsked(inCollection(name, `/images?limit=${SHOWN}`));
  const others = [[roles.anomalous, "anomalous"], [roles.unlabelled, "unlabelled"], [roles.example, "in classes"]].filter(([some]) => some);
  return html`<li class="card">
    <a href=${screenOf(name, "images")} class="card-link">
      <div class=${`mosaic ${data?.images.length ? "" : "is-empty"}`} aria-hidden="true">${data && !data.images.length ? "No images yet" : (data?.images || []).map((one) => html`<${Picture} path=${imagePath(name, one.id)} alt="" loading="lazy" />`)}</div>
      <h2>${name}</h2>
    </a>
    <p>${plural(roles.normal, "normal image")}${others.map(([some, words]) => html` · ${count(some)} ${words}`)}</p>
    <p class="quiet">${collection.description || `False-alarm rate ${percent(collection.false_alarm_rate)}`}</p>
    <p class="card-ways"><a href=${screenOf(name, "score")} aria-label=${`Score images with ${name}`}>Score images</a> <a href=${screenOf(name, "search")} aria-label=${`Search ${name}`}>Search</a></p>
  </li>`;
};

const NewCollection = ({ changed }) => {
  const [name, setName] = useState("");
  const [rate, setRate] = useState(0.01);
  const [weights, setWeights] = useState("");
  const [make, isMaking, problem] = useAction(async (event) => {
    event.preventDefault();
    await ask(inCollection(name.trim()), { method: "PUT", json: { false_alarm_rate: rate, ...(weights.trim() ? { weights: weights.trim() } : {}) } });
    changed();
    go(screenOf(name.trim(), "images"));
  });
  return html`<form class="panel" id="new-collection" onSubmit=${make}>
    <h2>New collection</h2>
    <p class="quiet">A named set of images. Fill it with normal ones; whatever comes later is compared with them.</p>
    <div class="row bottom">
      <${Text} label="Name" value=${name} setValue=${setName} required maxlength="128" placeholder="line-3" />
      <${RateField} rate=${rate} setRate=${setRate} />
      <button class="primary" disabled=${isMaking}>Make it</button>
    </div>
    <details><summary>Weights of the network</summary>
      <div class="row bottom">
        <${Text} label="Weights" value=${weights} setValue=${setWeights} maxlength="1024" placeholder="as the service is set" list="weights" />
        <datalist id="weights">${["torchvision", "embedded", "stand-in"].map((one) => html`<option value=${one} />`)}</datalist>
        <p class="quiet">For photographs: <code>torchvision</code>, once <code>oddity weights fetch resnet18</code> has brought them, or <code>file:NAME</code> in the data folder.</p>
      </div>
    </details>
    <${ProblemNote} problem=${problem} />
  </form>`;
};

const FirstSteps = () => html`<div class="empty">
  <h2>Nothing here yet</h2>
  <p>Make a collection below and drop normal images into it. To look around first, run in another terminal (after <code>make serve</code>, the command is <code>.venv/bin/oddity</code>):</p>
  <pre tabindex="0"><code>oddity demo --server ${location.origin}</code></pre>
</div>`;

const MANY = 8; // from which on they are looked for by name

const Cards = ({ collections }) => {
  const [wanted, setWanted] = useState("");
  const found = collections.filter((one) => `${one.name} ${one.description}`.toLowerCase().includes(wanted.trim().toLowerCase()));
  return html`${collections.length > MANY && html`<div class="row"><${Text} label="Find a collection" value=${wanted} setValue=${setWanted} type="search" /></div>`}
    <ul class="cards">${found.map((one) => html`<${Card} key=${one.name} collection=${one} />`)}</ul>
    ${!found.length && html`<p class="quiet" role="status">No collection is called so.</p>`}`;
};

export const Collections = ({ collections, problem, changed }) => html`<div class="row between"><h1>Collections</h1>
    ${collections?.length > 0 && html`<button type="button" onClick=${() => document.getElementById("new-collection").querySelector("input").focus()}>New collection</button>`}</div>
  <${ProblemNote} problem=${problem} title="The collections cannot be shown." />
  ${!collections && !problem && html`<${Loading} />`}
  ${collections?.length === 0 && html`<${FirstSteps} />`}
  ${collections?.length > 0 && html`<${Cards} collections=${collections} />`}
  <${NewCollection} changed=${changed} />`;
