// Images on the page: stored ones by path, dropped ones from the file itself.
import { bytes, imagePath, key } from "./api.js";
import { nameOf } from "./format.js";
import { openImage } from "./route.js";
import { html, useEffect, useState } from "./view.js";

const useUrl = (path, file) => {
  const isDirect = path && !key(); // with a key the picture is fetched, since an <img> sends none
  const [url, setUrl] = useState(null);
  useEffect(() => {
    if (isDirect || (!path && !file)) return undefined;
    const stop = new AbortController();
    let made = null;
    const show = (blob) => setUrl((made = URL.createObjectURL(blob)));
    if (file) show(file);
    else bytes(path, stop.signal).then(show, () => {}); // the alternative text stays
    return () => {
      stop.abort();
      if (made) URL.revokeObjectURL(made);
    };
  }, [path, file, isDirect]);
  return isDirect ? path : url;
};

/** A picture from a path of the service or from a file of this machine. */
export const Picture = ({ path, file, alt, ...rest }) => {
  const url = useUrl(path, file);
  return html`<img src=${url || undefined} alt=${alt} decoding="async" ...${rest} />`;
};

/** A stored image, small; it opens the image. */
export const Thumb = ({ collection, image, caption, note, mark, label, onOpen, children }) => html`<figure class=${`thumb ${mark || ""}`}>
  <button type="button" class="thumb-open" onClick=${() => (onOpen ? onOpen(image.id) : openImage(image.id))} aria-label=${label || `Open ${nameOf(image)}`}>
    <${Picture} path=${imagePath(collection, image.id)} alt="" loading="lazy" width="96" height="96" />
  </button>
  ${children}
  <figcaption><span class="name" title=${nameOf(image)}>${caption ?? nameOf(image)}</span>${note && html`<span class="quiet">${note}</span>`}</figcaption>
</figure>`;
