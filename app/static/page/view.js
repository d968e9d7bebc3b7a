// The one place that names the vendored libraries: markup as tagged templates, components with hooks.
import { h, render, Fragment } from "../vendor/preact/preact.js";
import htm from "../vendor/htm/htm.js";

export const html = htm.bind(h);
export { render, Fragment };
export { useCallback, useEffect, useMemo, useRef, useState } from "../vendor/preact/hooks.js";
