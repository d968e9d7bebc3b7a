// Telling the service that it was right or wrong about an image; the next score knows it.
import { ask, formOf, inCollection, newWork, part } from "./api.js";
import { useAction } from "./asking.js";
import { ProblemNote } from "./notices.js";
import { html, useState } from "./view.js";

export const KINDS = {
  false_alarm: "False alarm",
  confirmed: "Confirmed",
  missed: "Missed",
};

const WAYS = { false_alarm: "False alarm", confirmed: "Confirm the defect", missed: "Missed defect" };

/** Say it of a stored image (`id`) or of a file; resolves with the feedback as it is kept. */
export const giveFeedback = (name, kind, { id, file }) => {
  const body = id ? { json: { kind, id } } : { form: formOf([file], { kind }) };
  return ask(inCollection(name, "/feedback"), { method: "POST", work: newWork(), ...body });
};

export const undoFeedback = (name, id) => ask(inCollection(name, `/feedback/${part(id)}`), { method: "DELETE" });

/** Buttons below a verdict: what may be said of an alarm, or of an image that passed. */
export const FeedbackButtons = ({ name, source, anomalous, changed }) => {
  const [given, setGiven] = useState(null);
  const [give, isGiving, problem] = useAction(async (kind) => {
    setGiven(await giveFeedback(name, kind, source));
    changed();
  });
  const [undo, isUndoing, undoProblem] = useAction(async () => {
    await undoFeedback(name, given.id);
    setGiven(null);
    changed();
  });
  const offered = anomalous ? ["confirmed", "false_alarm"] : ["missed"];
  return html`<div class="feedback" aria-live="polite">
    ${given
      ? html`<span class="quiet">Noted: ${KINDS[given.kind].toLowerCase()}. The image is now ${given.changed.role.after}.</span> <button type="button" disabled=${isUndoing} onClick=${undo}>Undo</button>`
      : offered.map((kind) => html`<button type="button" disabled=${isGiving} onClick=${() => give(kind)}>${WAYS[kind]}</button>`)}
    <${ProblemNote} problem=${problem || undoProblem} />
  </div>`;
};
