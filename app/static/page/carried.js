// Images chosen on one screen for work on another: the selection of each collection, for as long as the page is open.
import { useEffect, useState } from "./view.js";

const chosen = new Map();
const watchers = new Set();

export const selectionOf = (collection) => chosen.get(collection) || [];

export const select = (collection, images) => {
  chosen.set(collection, images);
  watchers.forEach((tell) => tell());
};

/** The chosen images of a collection ({id, metadata}), and what changes them. */
export const useSelection = (collection) => {
  const [, setTurn] = useState(0);
  useEffect(() => {
    const tell = () => setTurn((one) => one + 1);
    watchers.add(tell);
    return () => watchers.delete(tell);
  }, []);
  const images = selectionOf(collection);
  return {
    images,
    has: (id) => images.some((one) => one.id === id),
    toggle: (image) =>
      select(collection, images.some((one) => one.id === image.id) ? images.filter((one) => one.id !== image.id) : [...images, image]),
    set: (some) => select(collection, some),
    clear: () => select(collection, []),
  };
};
