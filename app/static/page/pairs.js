// Which of two images is odder? Scorers that learn from comparisons use the answers when they are fitted next.
import { ask, imagePath, inCollection, newWork } from "./api.js";
import { useAction } from "./asking.js";
import { count } from "./format.js";
import { ProblemNote } from "./notices.js";
import { Picture } from "./pictures.js";
import { html } from "./view.js";

export const Pairs = ({ name, asked, next }) => {
  const [pair] = asked.pairs;
  const [say, isSaying, problem] = useAction(async (answer) => {
    const body = { kind: "pair", left: pair.left, right: pair.right, answer };
    await ask(inCollection(name, "/feedback"), { method: "POST", json: body, work: newWork() });
    next();
  });
  if (!pair) return null;
  const image = (side, words) => html`<button type="button" class="pair-image" disabled=${isSaying} onClick=${() => say(side)} aria-label=${`The ${words} one is odder`}><${Picture} path=${imagePath(name, pair[side], "content")} alt="" /></button>`;
  return html`<section class="panel" aria-label="Which of two is odder?">
    <div class="row between"><h2>Which of the two is odder?</h2><span class="quiet" role="status">${count(asked.answers.now)} answered</span></div>
    <div class="pair">${image("left", "left")}${image("right", "right")}</div>
    <div class="row"><button type="button" disabled=${isSaying} onClick=${() => say("same")}>Both alike</button><button type="button" disabled=${isSaying} onClick=${() => say("cannot_say")}>Cannot say</button></div>
    <${ProblemNote} problem=${problem} title="Not noted." />
  </section>`;
};
