// Heat maps over images, on the scorer's one scale: the same colour means the same strangeness in every image.
import { lengthOf, significant } from "./format.js";
import { Picture } from "./pictures.js";
import { html } from "./view.js";

/** An image with its heat map above it, as strongly as `strength` (0 to 1) says. */
export const HeatPicture = ({ path, file, alt, heatmap, strength }) => {
  const region = heatmap?.region;
  return html`<div class="heat">
    <${Picture} path=${path} file=${file} alt=${alt} />
    ${heatmap &&
    html`<img
      class="heat-layer"
      src=${heatmap.overlay}
      alt=""
      style=${{
        left: lengthOf(region.left),
        top: lengthOf(region.top),
        width: lengthOf(region.right - region.left),
        height: lengthOf(region.bottom - region.top),
        opacity: String(strength),
      }}
    />`}
  </div>`;
};

/** The slider of all heat maps on a screen, with the scale that they share. */
export const HeatControl = ({ strength, setStrength, heatmap }) => html`<div class="heat-control">
  <label>Heat map <input type="range" min="0" max="1" step="0.05" value=${strength} onInput=${(event) => setStrength(Number(event.target.value))} aria-valuetext=${`${Math.round(100 * strength)} per cent`} /></label>
  <div class="heat-scale" aria-label="Scale of the heat map">
    <div class="heat-ramp" aria-hidden="true"></div>
    <div class="heat-marks"><span>${significant(heatmap.low)}<br /><small>usual</small></span><span>${significant(heatmap.border)}<br /><small>border</small></span><span>${significant(heatmap.high)}<br /><small>strange</small></span></div>
  </div>
</div>`;
