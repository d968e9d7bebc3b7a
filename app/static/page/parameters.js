// A form from the JSON schema of a method's parameters.
import { html } from "./view.js";

const kindOf = (field) => (field.anyOf ? { ...field, ...field.anyOf.find((one) => one.type !== "null") } : field);
const isSimple = (field) => Boolean(field.enum) || ["integer", "number", "boolean", "string"].includes(field.type);

/** What was changed, as the service takes it. */
export const given = (schema, values) =>
  Object.fromEntries(
    Object.entries(values)
      .filter(([, value]) => value !== "")
      .map(([id, value]) => {
        const field = kindOf(schema.properties[id]);
        const isNumber = ["integer", "number"].includes(field.type) || (field.enum && typeof field.enum[0] === "number");
        return [id, typeof value === "boolean" ? value : isNumber ? Number(value) : isSimple(field) ? value : JSON.parse(value)];
      }),
  );

const shown = (value) => (value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value));

export const Parameters = ({ schema, values, setValues }) => html`<div class="parameters">${Object.entries(schema.properties || {}).map(([id, raw]) => {
  const field = kindOf(raw);
  const set = (value) => setValues({ ...values, [id]: value });
  const value = values[id] ?? raw.default;
  const input = field.enum
    ? html`<select onChange=${(event) => set(event.target.value)}>${field.enum.map((one) => html`<option value=${one} selected=${String(one) === String(value)}>${one}</option>`)}</select>`
    : field.type === "boolean"
      ? html`<input type="checkbox" checked=${value} onChange=${(event) => set(event.target.checked)} />`
      : html`<input type=${["integer", "number"].includes(field.type) ? "number" : "text"} step=${field.type === "integer" ? 1 : "any"} min=${field.minimum} max=${field.maximum} value=${values[id] ?? ""} placeholder=${shown(raw.default) || "unset"} onInput=${(event) => set(event.target.value)} />`;
  return html`<label class="field"><span>${id.replaceAll("_", " ")}</span>${input}<small class="quiet">${raw.description}</small></label>`;
})}</div>`;
