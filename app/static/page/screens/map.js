// All images on a plane: what lies near what, coloured by how strange it is; looked at closer by wheel, fingers or keys.
import { imagePath, inCollection, part } from "../api.js";
import { useAsked, useJudges } from "../asking.js";
import { Check, Choice } from "../fields.js";
import { count, nameOf, pValue, ROLES, significant } from "../format.js";
import { Icon } from "../icons.js";
import { Empty, Loading, ProblemNote } from "../notices.js";
import { Picture } from "../pictures.js";
import { openImage } from "../route.js";
import { LIVE, ScorerChoice, ScoringProgress, useScorer } from "../scorers.js";
import { html, useMemo, useRef, useState } from "../view.js";
import { useZoom } from "../zooming.js";

const PICTURES_MAX = 400;
const LAYOUTS = [["principal", "widest directions"], ["neighbours", "neighbourhoods (t-SNE)"]];
const LIMITS = ["200", "500", "1000", "2000"];

/** How far along the colour scale: strangest images at 1, whatever the unit of the score. */
const heatOf = (images) => {
  const sorted = images.map((one) => one.score).sort((a, b) => a - b);
  const low = sorted[Math.floor(sorted.length / 2)] ?? 0;
  const high = sorted.at(-1) ?? 1;
  return (score) => (high > low ? Math.min(1, Math.max(0, (score - low) / (high - low))) : 0);
};

const Plane = ({ name, images, hasPictures }) => {
  const [at, setAt] = useState(null);
  const heat = useMemo(() => heatOf(images), [images]);
  const zoom = useZoom(images);
  const go = (number) => {
    setAt(number);
    zoom.bringIn(images[number]);
  };
  const pressed = (event) => {
    if (zoom.pressed(event)) return;
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (by) {
      event.preventDefault();
      go(at === null ? 0 : Math.min(images.length - 1, Math.max(0, at + by)));
    } else if (event.key === "Enter" && at !== null) openImage(images[at].id);
  };
  const place = (event) => event.target.closest("[data-place]")?.dataset.place;
  const shown = at === null ? null : images[at];
  return html`<div class="map-frame">
      <div
        ref=${zoom.frame}
        class=${`map ${hasPictures ? "with-pictures" : ""} ${zoom.isZoomed ? "is-zoomed" : ""}`}
        role="application"
        tabindex="0"
        aria-label=${`Map of ${images.length} images. Arrow keys step from the strangest on, Enter opens one; plus and minus zoom, Shift and an arrow moves, 0 shows everything.`}
        aria-describedby="map-words"
        style=${zoom.style}
        onKeyDown=${pressed}
        onMouseOver=${(event) => place(event) && setAt(Number(place(event)))}
        onClick=${(event) => place(event) && !zoom.wasMoved() && openImage(images[Number(place(event))].id)}
        ...${zoom.handlers}
      >
        ${images.map((one, number) => html`<span
          key=${one.id}
          data-place=${number}
          class=${`point is-${one.role} ${number === at ? "is-at" : ""}`}
          style=${{ "--x": String(one.x), "--y": String(one.y), "--heat": `${Math.round(100 * heat(one.score))}%`, zIndex: String(number === at ? 9999 : images.length - number) }}
        >${hasPictures && html`<${Picture} path=${imagePath(name, one.id)} alt="" draggable="false" />`}</span>`)}
      </div>
      <div class="map-tools" role="group" aria-label="Zoom">
        <button type="button" aria-label="Zoom in" title="Zoom in (+)" disabled=${!zoom.canZoomIn} onClick=${() => zoom.by(1.6)}><${Icon} name="plus" /></button>
        <button type="button" aria-label="Zoom out" title="Zoom out (−)" disabled=${!zoom.isZoomed} onClick=${() => zoom.by(1 / 1.6)}><${Icon} name="minus" /></button>
        <button type="button" aria-label="Show everything" title="Show everything (0)" disabled=${!zoom.isZoomed} onClick=${zoom.whole}><${Icon} name="whole" /></button>
      </div>
    </div>
    <div class="map-foot">
      <div class="map-words" id="map-words" role="status">${shown ? html`<span class="map-preview"><${Picture} key=${shown.id} path=${imagePath(name, shown.id)} alt="" /></span><span><strong>${nameOf(shown)}</strong><br />${ROLES[shown.role]}, score ${significant(shown.score)}, p = ${pValue(shown.p_value)}</span>` : html`<span class="quiet">Point at an image, or step with the arrow keys; click or press Enter to open it.</span>`}</div>
      <div class="map-scale"><span>usual</span><span class="map-ramp" aria-hidden="true"></span><span>strangest</span></div>
    </div>`;
};

export const ImageMap = ({ name, asked }) => {
  const [layout, setLayout] = useState("principal");
  const [limit, setLimit] = useState("500");
  const [wantsPictures, setWantsPictures] = useState(true);
  const [scorer, setScorer] = useScorer(asked);
  const { judges } = useJudges(name);
  const by = scorer === LIVE ? "" : `&scorer=${part(scorer)}`;
  const { data, problem, progress } = useAsked(inCollection(name, `/map?layout=${layout}&limit=${limit}${by}`));
  const images = data?.images || [];
  const waiting = layout === "neighbours" ? "Looking for neighbourhoods; this takes some seconds" : "Laying out the images";
  return html`<div class="row bottom">
      ${(judges?.length > 1 || scorer !== LIVE) && html`<${ScorerChoice} scorer=${scorer} setScorer=${setScorer} judges=${judges} />`}
      <${Choice} label="Laid out by" value=${layout} setValue=${setLayout} options=${LAYOUTS} />
      <${Choice} label="At most" value=${limit} setValue=${setLimit} options=${LIMITS.map((one) => [one, `${one} images`])} />
      <${Check} label="Show the images" value=${wantsPictures} setValue=${setWantsPictures} />
    </div>
    <${ProblemNote} problem=${problem} title="There is no map." />
    ${!data && !problem && (progress ? html`<${ScoringProgress} scorer=${scorer} progress=${progress} />` : html`<${Loading} what=${waiting} />`)}
    ${data && !images.length && html`<${Empty} title="Nothing to lay out"><p>Add at least two normal images.</p><//>`}
    ${images.length > 0 &&
    html`<${Plane} key=${layout} name=${name} images=${images} hasPictures=${wantsPictures && images.length <= PICTURES_MAX} />
      <p class="quiet">${count(images.length)} of ${count(data.stored)} images. ${layout === "principal" ? "Distances mean what they say, apart from directions that are not shown." : "Neighbours are neighbours; sizes of groups and gaps between them mean nothing."}</p>`}`;
};
