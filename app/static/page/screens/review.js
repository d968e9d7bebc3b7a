// What a person should look at next: strange images without a verdict of theirs, alarms in the bank, and pairs.
import { ask, askOn, imagePath, inCollection, pages, part } from "../api.js";
import { useAction, useAsked, useJudges, useLatest } from "../asking.js";
import { giveFeedback, KINDS, undoFeedback } from "../feedback.js";
import { count, moment, nameOf, plural, pValue, ROLES, short, significant } from "../format.js";
import { Empty, Loading, ProblemNote } from "../notices.js";
import { Pairs } from "../pairs.js";
import { Picture, Thumb } from "../pictures.js";
import { LIVE, ScorerChoice, ScoringProgress, useScorer } from "../scorers.js";
import { ScoreBar, Standing } from "../verdicts.js";
import { html, useEffect, useRef, useState } from "../view.js";

const NEXT = 8;

/** Images to look at, strangest first: those nobody judged, then alarms in the bank that nobody has confirmed as good. */
const queueOf = async (name, scorer, options) => {
  const by = scorer === LIVE ? "" : `&scorer=${part(scorer)}`;
  const given = await pages(inCollection(name, "/feedback"), "feedback");
  // One after the other: the progress that is told is that of one.
  const open = await askOn(inCollection(name, `/scores?role=unlabelled&limit=500${by}`), options);
  const bank = await askOn(inCollection(name, `/scores?role=normal&limit=500${by}`), options);
  const settled = new Set(given.filter((one) => !one.undone_at).map((one) => one.image));
  const alarms = bank.images.filter((one) => one.anomalous && !settled.has(one.id));
  return { images: [...open.images, ...alarms], calibration: open.calibration, given };
};

const Explained = ({ name, image, scorer }) => {
  const [found, setFound] = useState(null);
  useEffect(() => {
    const stop = new AbortController();
    ask(inCollection(name, "/anomaly"), { method: "POST", json: { ids: [image.id], neighbours: 4, scorer }, signal: stop.signal }).then(
      (answer) => setFound(answer.results[0]),
      () => {}, // the image can be judged without its neighbours
    );
    return () => stop.abort();
  }, [image.id]);
  return html`<div><h3>Nearest normal images</h3><div class="review-near">${(found?.neighbours || []).map((near) => html`<${Thumb} collection=${name} image=${near} note=${significant(near.distance)} />`)}</div></div>`;
};

const History = ({ name, given, changed }) => {
  const [undo, isUndoing, problem] = useAction(async (id) => {
    await undoFeedback(name, id);
    changed();
  });
  const judged = given.filter((one) => KINDS[one.kind]);
  if (!judged.length) return null;
  return html`<details class="panel"><summary>Said so far: ${count(judged.length)}</summary>
    <ul class="history">${judged.slice(0, 50).map((one) => html`<li>
      <${Picture} path=${imagePath(name, one.image)} alt="" width="36" height="36" />
      <span>${KINDS[one.kind]}: ${short(one.image)} <span class="quiet">${moment(one.created_at)}</span></span>
      ${one.undone_at ? html`<span class="quiet">undone</span>` : html`<button type="button" disabled=${isUndoing} onClick=${() => undo(one.id)} aria-label=${`Undo: ${KINDS[one.kind]} ${short(one.image)}`}>Undo</button>`}
    </li>`)}</ul>
    <${ProblemNote} problem=${problem} title="Not undone." />
  </details>`;
};

const Judging = ({ name, image, calibration, scorer, onDone, onSkip }) => {
  const panel = useRef(null);
  const [say, isSaying, problem] = useAction(async (kind) => {
    // Of an image that passed there is no false alarm: calling it normal is a change of role.
    const given = kind === "normal" ? await ask(inCollection(name, `/images/${part(image.id)}`), { method: "PATCH", json: { role: "normal" } }) : await giveFeedback(name, kind, image);
    onDone(image, kind, given);
  });
  const ways = image.anomalous
    ? [["confirmed", "Confirm: a defect", "c"], ["false_alarm", "False alarm: normal", "f"]]
    : [["missed", "Missed: a defect", "m"], ["normal", "Normal", "n"]];
  const pressed = (event) => {
    if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey || isSaying) return;
    const way = ways.find(([, , letter]) => letter === event.key.toLowerCase());
    if (way) say(way[0]);
    else if (event.key.toLowerCase() === "s") onSkip(image);
  };
  useEffect(() => panel.current.focus({ preventScroll: true }), [image.id]);
  return html`<section ref=${panel} class="panel review" tabindex="-1" aria-label=${`Image to judge: ${nameOf(image)}`} onKeyDown=${pressed}>
    <div class="image-large"><${Picture} path=${imagePath(name, image.id, "content")} alt=${`Image ${nameOf(image)}`} /></div>
    <div class="review-side">
      <h2>${nameOf(image)}</h2>
      <${Standing} result=${image} calibration=${calibration} />
      <${ScoreBar} score=${image.score} threshold=${calibration.threshold} />
      <p class="quiet small">Kept as ${ROLES[image.role]}${image.took_part ? `; ${scorer} has learnt from it` : ""}.</p>
      <div class="row ways">
        ${ways.map(([kind, words, letter]) => html`<button type="button" class=${kind === "confirmed" || kind === "missed" ? "danger strong" : "strong"} disabled=${isSaying} onClick=${() => say(kind)} aria-keyshortcuts=${letter}>${words} <kbd aria-hidden="true">${letter.toUpperCase()}</kbd></button>`)}
        <button type="button" disabled=${isSaying} onClick=${() => onSkip(image)} aria-keyshortcuts="s">Skip <kbd aria-hidden="true">S</kbd></button>
      </div>
      <${ProblemNote} problem=${problem} title="Not noted." />
      <${Explained} name=${name} image=${image} scorer=${scorer} />
    </div>
  </section>`;
};

export const Review = ({ name, asked, changed }) => {
  const [queue, setQueue] = useState(null);
  const [last, setLast] = useState(null);
  const [progress, setProgress] = useState(null);
  const [scorer, setScorer] = useScorer(asked);
  const { judges } = useJudges(name);
  const [load, isLoading, problem] = useLatest(async (signal) => {
    setProgress(null);
    const found = await queueOf(name, scorer, { signal, tell: setProgress });
    if (!signal.aborted) setQueue(found);
  });
  const { data: pairs, reload: nextPair } = useAsked(inCollection(name, "/feedback/next-pair"), true);
  useEffect(() => {
    setQueue(null);
    load();
  }, [name, scorer]);
  const without = (image) => setQueue((before) => ({ ...before, images: before.images.filter((one) => one.id !== image.id) }));
  const done = (image, kind, given) => {
    without(image);
    setLast({ image, kind, given });
    changed();
  };
  const [undo, isUndoing, undoProblem] = useAction(async () => {
    if (last.kind === "normal") await ask(inCollection(name, `/images/${part(last.image.id)}`), { method: "PATCH", json: { role: last.image.role } });
    else await undoFeedback(name, last.given.id);
    setQueue((before) => ({ ...before, images: [last.image, ...before.images] }));
    setLast(null);
    changed();
  });
  const skip = (image) => setQueue((before) => ({ ...before, images: [...before.images.filter((one) => one.id !== image.id), image] }));
  const [first, ...rest] = queue?.images || [];
  return html`${(judges?.length > 1 || scorer !== LIVE) && html`<div class="row bottom"><${ScorerChoice} scorer=${scorer} setScorer=${setScorer} judges=${judges} /></div>`}
    <${ProblemNote} problem=${problem} title="There is no queue." />
    ${!queue && isLoading && (progress ? html`<${ScoringProgress} scorer=${scorer} progress=${progress} />` : html`<${Loading} what="Looking for what is strange" />`)}
    ${queue && html`<div class="row between"><p role="status"><strong>${plural(queue.images.length, "image")}</strong> to look at, the strangest first.</p>
      ${last && html`<p class="said">${last.kind === "normal" ? "Normal" : KINDS[last.kind]}: ${nameOf(last.image)}. <button type="button" disabled=${isUndoing} onClick=${undo}>Undo</button></p>`}</div>`}
    <${ProblemNote} problem=${undoProblem} title="Not undone." />
    ${queue && !first && html`<${Empty} title="Nothing is waiting"><p>Add images as “unlabelled” under Images, and the strange ones come up here.</p><//>`}
    ${first && html`<${Judging} key=${first.id} name=${name} image=${first} calibration=${queue.calibration} scorer=${scorer} onDone=${done} onSkip=${skip} />`}
    ${rest.length > 0 && html`<section aria-label="Next in the queue"><h2>Next</h2><div class="grid">${rest.slice(0, NEXT).map((one) => html`<${Thumb} key=${one.id} collection=${name} image=${one} mark=${`is-${one.role}`} note=${`p = ${pValue(one.p_value)}`} />`)}</div></section>`}
    ${pairs && html`<${Pairs} name=${name} asked=${pairs} next=${nextPair} />`}
    ${queue && html`<${History} name=${name} given=${queue.given} changed=${() => {
      load();
      changed();
    }} />`}`;
};
