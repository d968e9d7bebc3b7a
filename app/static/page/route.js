// Where the page is: #/c/NAME/SCREEN?image=ID. The address alone says what is shown, so it can be kept and sent on.
import { useEffect, useState } from "./view.js";

export const read = () => {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const steps = path.split("/").filter(Boolean).map(decoded);
  return { steps, asked: Object.fromEntries(new URLSearchParams(query)) };
};

const decoded = (step) => {
  try {
    return decodeURIComponent(step);
  } catch {
    return step;
  }
};

export const address = (steps, asked = {}) => {
  const query = new URLSearchParams(Object.entries(asked).filter(([, value]) => value)).toString();
  return `#/${steps.map(encodeURIComponent).join("/")}${query ? `?${query}` : ""}`;
};

export const screenOf = (collection, screen, asked) => address(["c", collection, screen], asked);

/** Go elsewhere; with `instead` the way back leads past where we are. */
export const go = (where, instead = false) => {
  if (instead) {
    history.replaceState(null, "", where);
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  } else location.hash = where;
};

export const useRoute = () => {
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const changed = () => setRoute(read());
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return route;
};

/** Show one image of the collection that is open, above whatever is on the screen. */
export const openImage = (id) => {
  const { steps, asked } = read();
  go(address(steps, { ...asked, image: id }));
};

export const closeImage = () => {
  const { steps, asked } = read();
  go(address(steps, { ...asked, image: "" }), true);
};
