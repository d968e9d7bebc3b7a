// Fields that several screens ask for.
import { html } from "./view.js";

/** A false-alarm rate, shown in per cent and told as a share. */
export const RateField = ({ rate, setRate, label = "False-alarm rate" }) => html`<label class="field">
  <span>${label}</span>
  <span class="with-unit"><input
    type="number"
    min="0.01"
    max="99"
    step="any"
    value=${Number((100 * rate).toPrecision(6))}
    onInput=${(event) => {
      const value = Number(event.target.value) / 100;
      if (value > 0 && value < 1) setRate(value);
    }}
  /> %</span>
</label>`;

export const Choice = ({ label, value, setValue, options, ...rest }) => html`<label class="field">
  <span>${label}</span>
  <select value=${value} onChange=${(event) => setValue(event.target.value)} ...${rest}>
    ${options.map(([id, words]) => html`<option value=${id} selected=${id === value}>${words}</option>`)}
  </select>
</label>`;

export const Text = ({ label, value, setValue, ...rest }) => html`<label class="field">
  <span>${label}</span>
  <input type="text" value=${value} onInput=${(event) => setValue(event.target.value)} ...${rest} />
</label>`;

export const Check = ({ label, value, setValue }) => html`<label class="check">
  <input type="checkbox" checked=${value} onChange=${(event) => setValue(event.target.checked)} /> <span>${label}</span>
</label>`;
