// One collection: its facts, the way to its screens, and the image that is open above them.
import { inCollection } from "./api.js";
import { useAsked } from "./asking.js";
import { count, percent, plural } from "./format.js";
import { ImageDialog } from "./image.js";
import { Loading, Note, ProblemNote } from "./notices.js";
import { closeImage, screenOf } from "./route.js";
import { Classes } from "./screens/classes.js";
import { Duplicates } from "./screens/duplicates.js";
import { Images } from "./screens/images.js";
import { ImageMap } from "./screens/map.js";
import { Review } from "./screens/review.js";
import { Score } from "./screens/score.js";
import { Scorers } from "./screens/scorers.js";
import { Search } from "./screens/search.js";
import { Threshold } from "./screens/threshold.js";
import { html, useEffect, useRef, useState } from "./view.js";

const COMPARING = ["score", "threshold", "review", "map"]; // need normal images, and a scorer

const SCREENS = {
  images: ["Images", Images],
  score: ["Score", Score],
  threshold: ["Threshold", Threshold],
  review: ["Review", Review],
  search: ["Search", Search],
  map: ["Map", ImageMap],
  classes: ["Classes", Classes],
  duplicates: ["Duplicates", Duplicates],
  scorers: ["Scorers", Scorers],
};

export const Collection = ({ name, screen, asked, changed }) => {
  const { data, problem, reload } = useAsked(inCollection(name));
  const tabs = useRef(null);
  const [ends, setEnds] = useState("");
  const look = () => {
    if (!tabs.current) return; // left meanwhile
    const { scrollLeft, clientWidth, scrollWidth } = tabs.current;
    setEnds(`${scrollLeft > 4 ? "more-before" : ""} ${scrollLeft + clientWidth < scrollWidth - 4 ? "more-after" : ""}`);
  };
  useEffect(() => {
    const bar = tabs.current;
    if (!bar) return undefined;
    const show = () => {
      const here = bar.querySelector("[aria-current]");
      if (here) bar.scrollLeft = here.offsetLeft - (bar.clientWidth - here.offsetWidth) / 2;
      look();
    };
    const watch = new ResizeObserver(show);
    watch.observe(bar);
    show();
    return () => watch.disconnect();
  }, [screen, Boolean(data)]);
  const refresh = () => {
    reload();
    changed();
  };
  if (problem && !data) {
    return html`<${ProblemNote} problem=${problem}><p><a href="#/">All collections</a></p><//>`;
  }
  if (!data) return html`<${Loading} what=${`Opening ${name}`} />`;
  const [title, Screen] = SCREENS[screen] || SCREENS.images;
  const { normal, anomalous, unlabelled, example } = data.roles;
  const others = [[anomalous, "anomalous"], [unlabelled, "unlabelled"], [example, "in classes"]].filter(([some]) => some);
  return html`<div class="collection-head">
      <h1>${name}</h1>
      <p class="quiet facts-line"><span>${plural(normal, "normal image")}</span>${others.map(([some, words]) => html` · <span>${count(some)} ${words}</span>`)} · <span>false-alarm rate ${percent(data.false_alarm_rate)}</span></p>
      ${data.description && html`<p>${data.description}</p>`}
      ${data.weights_label === "stand-in" && html`<p class="caution"><strong>Stand-in weights</strong> are random: good for trying out, not for judging photographs.</p>`}
    </div>
    <nav ref=${tabs} class=${`tabs ${ends}`} onScroll=${look} aria-label=${`Screens of ${name}`}>
      ${Object.entries(SCREENS).map(([id, [words]]) => html`<a href=${screenOf(name, id, COMPARING.includes(id) ? { scorer: asked.scorer } : {})} aria-current=${id === screen ? "page" : undefined}>${words}</a>`)}
    </nav>
    <section aria-label=${title} class="screen">
      ${!normal && COMPARING.includes(screen) && html`<${Note}>There is no normal image yet, so nothing can be compared. <a href=${screenOf(name, "images")}>Add some under Images.</a><//>`}
      <${Screen} key=${screen} collection=${data} name=${name} asked=${asked} changed=${refresh} />
    </section>
    ${asked.image && html`<${ImageDialog} key=${asked.image} collection=${data} id=${asked.image} scorer=${asked.scorer} onClose=${closeImage} changed=${refresh} />`}`;
};
