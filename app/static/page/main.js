// The shell: what is open, the way to every screen, theme and key.
import { Collection } from "./collection.js";
import { setKey } from "./api.js";
import { useAsked } from "./asking.js";
import { Icon } from "./icons.js";
import { go, address, useRoute } from "./route.js";
import { Collections } from "./screens/collections.js";
import { Jobs } from "./screens/jobs.js";
import { html, render, useEffect, useRef, useState } from "./view.js";

const version = document.querySelector('meta[name="oddity-version"]').content;

const ThemeButton = () => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const shown = () => document.documentElement.dataset.theme || (system.matches ? "dark" : "light");
  const [theme, setTheme] = useState(shown);
  useEffect(() => {
    const changed = () => setTheme(shown());
    system.addEventListener("change", changed);
    return () => system.removeEventListener("change", changed);
  }, []);
  const other = theme === "dark" ? "light" : "dark";
  const change = () => {
    document.documentElement.dataset.theme = other;
    setTheme(other);
    try {
      localStorage.setItem("oddity-theme", other);
    } catch {
      // Then the choice lasts until the page is closed.
    }
  };
  return html`<button type="button" class="quiet-button" onClick=${change} title=${`Use the ${other} theme`} aria-label=${`Use the ${other} theme`}><${Icon} name=${other === "dark" ? "moon" : "sun"} /></button>`;
};

const KeyDialog = ({ onDone }) => {
  const dialog = useRef(null);
  const [value, setValue] = useState("");
  useEffect(() => dialog.current.showModal(), []);
  const save = (event) => {
    event.preventDefault();
    setKey(value.trim());
    onDone(true);
  };
  return html`<dialog ref=${dialog} class="small-dialog" aria-labelledby="key-title" onClose=${() => onDone(false)}>
    <form onSubmit=${save}>
      <h2 id="key-title">API key</h2>
      <p>This service asks for a key. It is kept in this tab only, and forgotten when the tab is closed.</p>
      <label class="field"><span>Key</span><input type="password" autocomplete="off" required value=${value} onInput=${(event) => setValue(event.target.value)} /></label>
      <div class="row end">
        <button type="button" onClick=${() => dialog.current.close()}>Not now</button>
        <button class="primary">Use this key</button>
      </div>
    </form>
  </dialog>`;
};

const Page = () => {
  const { steps, asked } = useRoute();
  const [turn, setTurn] = useState(0); // a new key: everything is asked again
  const [isKeyOpen, setKeyOpen] = useState(false);
  const { data, problem, reload } = useAsked("/v1/collections?limit=1000");
  const main = useRef(null);
  useEffect(() => {
    const wanted = () => setKeyOpen(true);
    window.addEventListener("oddity-key-wanted", wanted);
    return () => window.removeEventListener("oddity-key-wanted", wanted);
  }, []);
  useEffect(reload, [turn, steps.join("/")]);
  const keyDone = (isNew) => {
    setKeyOpen(false);
    if (isNew) setTurn((one) => one + 1);
  };
  const [place = "collections", name, screen] = steps;
  const collections = data?.collections;
  useEffect(() => {
    document.title = ["Oddity", name, screen || (name ? "images" : place)].filter(Boolean).join(" · ");
  }, [place, name, screen]);
  const link = (where, words, isHere) => html`<a href=${address([where].filter(Boolean))} aria-current=${isHere ? "page" : undefined}>${words}</a>`;
  return html`<a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      main.current.focus();
    }}>Skip to the content</a>
    <header class="bar">
      <a class="brand" href="#/"><img src="/static/icon.svg" alt="" width="22" height="22" /> Oddity</a>
      <nav aria-label="Places" class="places">
        ${link("", "Collections", place === "collections")}
        ${link("jobs", "Jobs", place === "jobs")}
      </nav>
      ${collections?.length > 0 &&
      html`<label class="switcher"><span class="unseen">Collection</span><select value=${place === "c" ? name : ""} onChange=${(event) => event.target.value && go(address(["c", event.target.value, screen || "images"]))}>
        <option value="">Go to a collection…</option>
        ${collections.map((one) => html`<option value=${one.name} selected=${place === "c" && one.name === name}>${one.name}</option>`)}
      </select></label>`}
      <span class="spring"></span>
      <a href="/docs" class="quiet wide-only">REST interface</a>
      <button type="button" class="quiet-button" onClick=${() => setKeyOpen(true)} title="API key" aria-label="Key"><${Icon} name="key" /> <span class="wide-only" aria-hidden="true">Key</span></button>
      <${ThemeButton} />
    </header>
    <main id="main" ref=${main} tabindex="-1">
      ${place === "c" && name
        ? html`<${Collection} key=${`${name} ${turn}`} name=${name} screen=${screen || "images"} asked=${asked} changed=${reload} />`
        : place === "jobs"
          ? html`<${Jobs} key=${turn} />`
          : html`<${Collections} key=${turn} collections=${collections} problem=${problem} changed=${reload} />`}
    </main>
    <footer class="quiet"><span>Oddity ${version}</span> <a href="/docs">REST interface</a></footer>
    ${isKeyOpen && html`<${KeyDialog} onDone=${keyDone} />`}`;
};

const place = document.getElementById("page");
place.replaceChildren();
render(html`<${Page} />`, place);
