// Two scorers on the same images: where they agree, and above all where they do not.
import { imagePath, inCollection } from "./api.js";
import { useAction, useAsked } from "./asking.js";
import { useSelection } from "./carried.js";
import { DropZone } from "./dropping.js";
import { Choice } from "./fields.js";
import { plural, pValue, significant } from "./format.js";
import { Note, ProblemNote, Progress } from "./notices.js";
import { Picture } from "./pictures.js";
import { openImage } from "./route.js";
import { scoreAll } from "./screens/score.js";
import { Verdict } from "./verdicts.js";
import { html, useState } from "./view.js";

const STORED = 24;

const Side = ({ result }) => html`<td><${Verdict} anomalous=${result.anomalous} /><span class="phone-only quiet number">p = ${pValue(result.p_value)}</span></td><td class="number wide-only">${pValue(result.p_value)}</td><td class="number wide-only">${significant(result.score)}</td>`;

export const Comparison = ({ collection, name, scorers }) => {
  const selection = useSelection(name);
  const ids = scorers.map((one) => one.id);
  const [first, setFirst] = useState(ids[0]);
  const [second, setSecond] = useState(ids[1]);
  const { data: stored } = useAsked(inCollection(name, `/scores?limit=${STORED}`));
  const [rows, setRows] = useState(null);
  const [done, setDone] = useState(null);
  const other = second || ids.find((one) => one !== first);
  const [compare, isComparing, problem] = useAction(async (source) => {
    setRows(null);
    const total = 2 * ((source.files || source.images).length);
    const sides = [];
    for (const [place, scorer] of [first, other].entries()) {
      sides.push(await scoreAll(name, { ...source, parameters: { scorer, neighbours: 0 } }, (some, all) => setDone([place * all + some, total])));
    }
    const pairs = sides[0].results.map((one, place) => ({ one, two: sides[1].results[place] })).filter(({ one, two }) => !one.problem && !two.problem);
    setRows(pairs.sort((a, b) => Number(b.one.anomalous !== b.two.anomalous) - Number(a.one.anomalous !== a.two.anomalous) || a.one.p_value + a.two.p_value - b.one.p_value - b.two.p_value));
  });
  if (ids.length < 2) {
    return html`<${Note}><p><strong>Compare two scorers.</strong> Only ${ids.join(", ") || "none"} is ready here; fit another below, and both can judge the same images.</p><//>`;
  }
  const options = ids.map((one) => [one, one]);
  const learnt = rows?.filter(({ one, two }) => one.took_part || two.took_part).length;
  const agree = rows?.filter(({ one, two }) => one.anomalous === two.anomalous).length;
  return html`<section class="panel" aria-label="Compare two scorers">
    <h2>Compare two scorers on the same images</h2>
    <div class="row bottom">
      <${Choice} label="First" value=${first} setValue=${setFirst} options=${options} />
      <${Choice} label="Second" value=${other} setValue=${setSecond} options=${options} />
      <button type="button" class="primary" disabled=${isComparing || first === other || !stored?.images.length} onClick=${() => compare({ images: stored.images })}>Compare on ${plural(stored?.images.length || 0, "stored image")}</button>
      ${selection.images.length > 0 && html`<button type="button" disabled=${isComparing || first === other} onClick=${() => compare({ images: selection.images })}>On the ${selection.images.length} chosen</button>`}
    </div>
    <${DropZone} onFiles=${(files) => compare({ files })} isBusy=${isComparing || first === other} title="Compare" hint="Or drop other images here." />
    ${isComparing && done && html`<${Progress} label="Scoring with both" done=${done[0]} total=${done[1]} />`}
    <${ProblemNote} problem=${problem} title="Not compared." />
    ${rows &&
    html`<p role="status"><strong>They agree on ${agree} of ${plural(rows.length, "image")}</strong> at the collection's false-alarm rate${agree < rows.length ? "; the others come first" : ""}.${learnt ? ` ${plural(learnt, "image")} took part in a fit, so that scorer has seen ${learnt === 1 ? "it" : "them"} before: compare new images for a fair picture.` : ""}</p>
      <div class="table-frame" tabindex="0" role="region" aria-label="Both scorers, image by image"><table>
        <thead><tr><th scope="col">Image</th><th scope="col">${first}</th><th scope="col" class="wide-only">p</th><th scope="col" class="wide-only">score</th><th scope="col">${other}</th><th scope="col" class="wide-only">p</th><th scope="col" class="wide-only">score</th></tr></thead>
        <tbody>${rows.map(({ one, two }) => html`<tr class=${one.anomalous === two.anomalous ? "" : "differs"}>
          <th scope="row"><span class="with-picture"><${Picture} path=${one.id && imagePath(name, one.id)} file=${one.file} alt="" width="36" height="36" />${one.id ? html`<button type="button" class="link" onClick=${() => openImage(one.id)}>${one.title}</button>` : one.title}</span></th>
          <${Side} result=${one} /><${Side} result=${two} />
        </tr>`)}</tbody>
      </table></div>`}
  </section>`;
};
