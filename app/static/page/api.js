// Everything that is asked of the service: JSON in, JSON or a Problem with a sentence out.

const KEY = "oddity-key"; // kept for this tab only

/** A refusal or a failure, with a sentence for people and, where there is one, what to do about it. */
export class Problem extends Error {
  constructor(status, code, detail, advice = "", more = {}) {
    super(detail);
    this.status = status;
    this.code = code;
    this.advice = advice;
    this.more = more;
  }
}

export const key = () => sessionStorage.getItem(KEY) || "";
export const setKey = (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY));
const headersOf = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

/** A random name for one piece of work, so that sending it again does it once. */
export const newWork = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");

export const part = encodeURIComponent;
export const inCollection = (name, rest = "") => `/v1/collections/${part(name)}${rest}`;
export const imagePath = (name, id, what = "thumbnail") => inCollection(name, `/images/${part(id)}/${what}`);

const adviceFor = (status, response) => {
  const seconds = response.headers.get("Retry-After");
  if (status === 401) return "Enter a key under “Key” at the top of the page.";
  if (status === 403) return "Use a key that may do this.";
  if (status === 413) return "Send fewer or smaller images at once.";
  if (status === 429 || status === 503) return `Try again in ${seconds || "a few"} seconds.`;
  if (status >= 500) return "Look into the server's log; the answer's request id leads there.";
  return "";
};

const sent = async (path, options) => {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "The service does not answer.", "Check that it is running and that this machine reaches it.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const problem = new Problem(
    response.status,
    body.code || "unknown",
    body.code === "key_missing" ? "This service asks for an API key." : body.detail || body.title || `The service answered ${response.status}.`,
    adviceFor(response.status, response),
    body,
  );
  if (response.status === 401) window.dispatchEvent(new CustomEvent("oddity-key-wanted"));
  throw problem;
};

/** The JSON answer to a request; `json` or `form` is its body. Raises Problem. */
export const ask = async (path, { method = "GET", json, form, work, signal } = {}) => {
  const headers = headersOf();
  if (json !== undefined) headers["Content-Type"] = "application/json";
  if (work) headers["Idempotency-Key"] = work;
  const response = await sent(path, { method, headers, body: form ?? (json === undefined ? undefined : JSON.stringify(json)), signal });
  return response.status === 204 ? null : response.json();
};

/** The answer of a scorer that is not through with all images at once: it is asked again until it is; `tell` hears how far it is. */
export const askOn = async (path, { signal, tell } = {}) => {
  for (;;) {
    try {
      return await ask(path, { signal });
    } catch (problem) {
      if (problem.code !== "still_scoring") throw problem;
      tell?.(problem.more);
    }
  }
};

/** The bytes behind a path, for pictures that need a key. Raises Problem. */
export const bytes = async (path, signal) => (await sent(path, { headers: headersOf(), signal })).blob();

/** Follow a job as it runs: `tell` is called at each change; resolves with the job at its end. Raises Problem. */
export const follow = async (id, tell, signal) => {
  const path = `/v1/jobs/${part(id)}`;
  const response = await sent(`${path}/events`, { headers: headersOf(), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let last = null;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data) tell((last = JSON.parse(data.slice(6))));
    }
  }
  return last && hasEnded(last) ? last : ask(path, { signal });
};

export const hasEnded = (job) => ["succeeded", "failed", "cancelled"].includes(job.state);

/** Every item of a paged list, up to `most`. */
export const pages = async (path, name, most = 1000) => {
  const found = [];
  let cursor = "";
  do {
    const joined = path.includes("?") ? "&" : "?";
    const answer = await ask(`${path}${joined}limit=${Math.min(most, 1000)}${cursor ? `&cursor=${part(cursor)}` : ""}`);
    found.push(...answer[name]);
    cursor = answer.next;
  } while (cursor && found.length < most);
  return found.slice(0, most);
};

/** A form with files under `files` and parameters beside them; those that are undefined are left out. */
export const formOf = (files, parameters = {}) => {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") form.append(name, typeof value === "object" ? JSON.stringify(value) : String(value));
  }
  return form;
};

/** Cut files into requests of a bearable size: by number and by bytes. */
export const batches = (files, most = 16, mostBytes = 24 * 2 ** 20) => {
  const cut = [];
  let size = 0;
  for (const file of files) {
    if (!cut.length || cut.at(-1).length >= most || size + file.size > mostBytes) {
      cut.push([]);
      size = 0;
    }
    cut.at(-1).push(file);
    size += file.size;
  }
  return cut;
};
