// All images on a plane: what lies near what, coloured by how strange it is.
import { imagePath, inCollection } from "../api.js";
import { useAsked } from "../asking.js";
import { Check, Choice } from "../fields.js";
import { count, nameOf, pValue, ROLES, significant } from "../format.js";
import { Empty, Loading, ProblemNote } from "../notices.js";
import { Picture } from "../pictures.js";
import { openImage } from "../route.js";
import { html, useMemo, useRef, useState } from "../view.js";

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

export const ImageMap = ({ name }) => {
  const [layout, setLayout] = useState("principal");
  const [limit, setLimit] = useState("500");
  const [wantsPictures, setWantsPictures] = useState(true);
  const [at, setAt] = useState(null);
  const frame = useRef(null);
  const { data, problem } = useAsked(inCollection(name, `/map?layout=${layout}&limit=${limit}`));
  const images = data?.images || [];
  const heat = useMemo(() => heatOf(images), [data]);
  const hasPictures = wantsPictures && images.length <= PICTURES_MAX;
  const step = (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (by) {
      event.preventDefault();
      setAt(at === null ? 0 : Math.min(images.length - 1, Math.max(0, at + by)));
    } else if (event.key === "Enter" && at !== null) openImage(images[at].id);
  };
  const place = (event) => event.target.closest("[data-place]")?.dataset.place;
  const shown = at === null ? null : images[at];
  return html`<div class="row bottom">
      <${Choice} label="Laid out by" value=${layout} setValue=${setLayout} options=${LAYOUTS} />
      <${Choice} label="At most" value=${limit} setValue=${setLimit} options=${LIMITS.map((one) => [one, `${one} images`])} />
      <${Check} label="Show the images" value=${wantsPictures} setValue=${setWantsPictures} />
    </div>
    <${ProblemNote} problem=${problem} title="There is no map." />
    ${!data && !problem && html`<${Loading} what=${layout === "neighbours" ? "Looking for neighbourhoods; this takes some seconds" : "Laying out the images"} />`}
    ${data && !images.length && html`<${Empty} title="Nothing to lay out"><p>Add at least two normal images.</p><//>`}
    ${images.length > 0 &&
    html`<div
        ref=${frame}
        class=${`map ${hasPictures ? "with-pictures" : ""}`}
        role="application"
        tabindex="0"
        aria-label=${`Map of ${images.length} images. Arrow keys step from the strangest on, Enter opens one.`}
        aria-describedby="map-words"
        onKeyDown=${step}
        onMouseOver=${(event) => place(event) && setAt(Number(place(event)))}
        onClick=${(event) => place(event) && openImage(images[Number(place(event))].id)}
      ><div class="map-plane">
        ${images.map((one, number) => {
          const strength = `${Math.round(100 * heat(one.score))}%`;
          return html`<span
            key=${one.id}
            data-place=${number}
            class=${`point is-${one.role} ${number === at ? "is-at" : ""}`}
            style=${{ left: `${50 + 50 * one.x}%`, top: `${50 - 50 * one.y}%`, zIndex: String(number === at ? 9999 : images.length - number), "--heat": strength }}
          >${hasPictures && html`<${Picture} path=${imagePath(name, one.id)} alt="" />`}</span>`;
        })}
      </div></div>
      <div class="map-foot">
        <div class="map-words" id="map-words" role="status">${shown ? html`<span class="map-preview"><${Picture} key=${shown.id} path=${imagePath(name, shown.id)} alt="" /></span><span><strong>${nameOf(shown)}</strong><br />${ROLES[shown.role]}, score ${significant(shown.score)}, p = ${pValue(shown.p_value)}</span>` : html`<span class="quiet">Point at an image, or step with the arrow keys; click or press Enter to open it.</span>`}</div>
        <div class="map-scale"><span>usual</span><span class="map-ramp" aria-hidden="true"></span><span>strangest</span></div>
      </div>
      <p class="quiet">${count(images.length)} of ${count(data.stored)} images. ${layout === "principal" ? "Distances mean what they say, apart from directions that are not shown." : "Neighbours are neighbours; sizes of groups and gaps between them mean nothing."}</p>`}`;
};
