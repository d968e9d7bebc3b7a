// Taking images from a person: by dropping files or folders, or by choosing them.
import { plural } from "./format.js";
import { Icon } from "./icons.js";
import { html, useRef, useState } from "./view.js";

// Also of formats that the service refuses: what is sent is answered by name.
const IMAGES = /\.(avif|bmp|gif|heic|heif|jpe?g|jxl|png|tiff?|webp)$/i;
const isImage = (file) => file.type.startsWith("image/") || IMAGES.test(file.name);

const read = async (entry) => {
  if (entry.isFile) return [await new Promise((found, failed) => entry.file(found, failed))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((listed, failed) => reader.readEntries(listed, failed));
    if (!some.length) return found;
    for (const one of some) found.push(...(await read(one)));
  }
};

const dropped = async (transfer) => {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  return (await Promise.all(entries.map(read))).flat();
};

/** A place to drop images; `onFiles` gets those that are images, in order of name for a folder. */
export const DropZone = ({ onFiles, title, hint, isBusy, children }) => {
  const [isOver, setOver] = useState(false);
  const [left, setLeft] = useState(0);
  const files = useRef(null);
  const folder = useRef(null);
  const take = (given) => {
    const images = given.filter(isImage);
    setLeft(given.length - images.length);
    if (images.length) onFiles(images);
  };
  const drop = async (event) => {
    event.preventDefault();
    setOver(false);
    if (!isBusy) take(await dropped(event.dataTransfer));
  };
  const chosen = (event) => {
    take([...event.target.files]);
    event.target.value = "";
  };
  return html`<div
    class=${`drop ${isOver ? "over" : ""}`}
    onDragOver=${(event) => {
      event.preventDefault();
      setOver(true);
    }}
    onDragLeave=${() => setOver(false)}
    onDrop=${drop}
  >
    <p class="drop-words"><${Icon} name="upload" /><span><strong>${title}</strong> <span class="quiet">${hint}</span></span></p>
    <div class="row">
      <button type="button" disabled=${isBusy} onClick=${() => files.current.click()}>Choose images</button>
      <button type="button" disabled=${isBusy} onClick=${() => folder.current.click()}>Choose a folder</button>
      ${children}
    </div>
    <input ref=${files} type="file" accept="image/*" multiple hidden aria-label=${`${title}: images`} onChange=${chosen} />
    <input ref=${folder} type="file" webkitdirectory hidden aria-label=${`${title}: a folder`} onChange=${chosen} />
    ${left > 0 && html`<p class="quiet">${plural(left, "file")} left out: not an image by name.</p>`}
  </div>`;
};
