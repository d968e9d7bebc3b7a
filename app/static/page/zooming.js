// Looking closer at a plane whose points have places x, y: by wheel, two fingers, buttons or keys.
//
// The points stand where CSS puts them from --x, --y and what is set here on their frame, so that moving and zooming
// draws nothing anew: --cx, --cy is the place in the middle, --ex, --ey how far the points reach from theirs, --k how
// much closer it is than when everything is seen.
import { useEffect, useMemo, useRef, useState } from "./view.js";

const CLOSEST = 40;
const MARGIN = 26; // pixels beside the outermost points; as in page.css
const STILL = 4; // pixels within which a press is a click
const STEP = 1.6;

const boxOf = (places) => {
  const [xs, ys] = [places.map((one) => one.x), places.map((one) => one.y)];
  const side = (some) => [(Math.min(...some) + Math.max(...some)) / 2, Math.max(0.05, (Math.max(...some) - Math.min(...some)) / 2)];
  const [[x, ex], [y, ey]] = [side(xs), side(ys)];
  return { x, y, ex, ey };
};

export const useZoom = (places) => {
  const frame = useRef(null);
  const box = useMemo(() => boxOf(places), [places]);
  const [view, setView] = useState({ x: box.x, y: box.y, k: 1 });
  const fingers = useRef(new Map());
  const moved = useRef(false);
  const start = useRef(null);
  useEffect(() => setView({ x: box.x, y: box.y, k: 1 }), [box.x, box.y, box.ex, box.ey]);

  /** Pixels that one step of the plane takes when everything is seen. */
  const unit = () => Math.min((frame.current.clientWidth / 2 - MARGIN) / box.ex, (frame.current.clientHeight / 2 - MARGIN) / box.ey);
  const within = ({ x, y, k }) => {
    const near = Math.min(CLOSEST, Math.max(1, k));
    const keep = (value, middle, reach) => Math.min(middle + reach * (1 - 1 / near), Math.max(middle - reach * (1 - 1 / near), value));
    return { k: near, x: keep(x, box.x, box.ex), y: keep(y, box.y, box.ey) };
  };
  /** Closer by a factor, with what lies `across`, `down` pixels from the middle staying where it is. */
  const closer = (factor, across = 0, down = 0) =>
    setView((before) => {
      const k = Math.min(CLOSEST, Math.max(1, before.k * factor));
      const gain = (1 / before.k - 1 / k) / unit();
      return within({ k, x: before.x + across * gain, y: before.y - down * gain });
    });
  const move = (across, down) => setView((before) => within({ ...before, x: before.x - across / (unit() * before.k), y: before.y + down / (unit() * before.k) }));
  const whole = () => setView({ x: box.x, y: box.y, k: 1 });
  const fromMiddle = (event) => {
    const { left, top, width, height } = frame.current.getBoundingClientRect();
    return [event.clientX - left - width / 2, event.clientY - top - height / 2];
  };

  const wheel = (event) => {
    const factor = Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : event.ctrlKey ? 0.01 : 0.0018));
    if (view.k === 1 && factor < 1) return; // there is nothing more to see: the page scrolls
    event.preventDefault();
    closer(factor, ...fromMiddle(event));
  };
  const down = (event) => {
    if (event.button) return;
    if (!fingers.current.size) moved.current = false;
    fingers.current.set(event.pointerId, [event.clientX, event.clientY]);
    start.current = [event.clientX, event.clientY];
  };
  const drag = (event) => {
    const before = fingers.current.get(event.pointerId);
    if (!before) return;
    if (!moved.current && Math.hypot(event.clientX - start.current[0], event.clientY - start.current[1]) < STILL) return;
    if (!moved.current) frame.current.setPointerCapture(event.pointerId);
    moved.current = true;
    fingers.current.set(event.pointerId, [event.clientX, event.clientY]);
    const other = [...fingers.current].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = ([x, y]) => Math.max(8, Math.hypot(x - other[0], y - other[1]));
      const [across, downwards] = fromMiddle({ clientX: (event.clientX + other[0]) / 2, clientY: (event.clientY + other[1]) / 2 });
      closer(apart([event.clientX, event.clientY]) / apart(before), across, downwards);
      move((event.clientX - before[0]) / 2, (event.clientY - before[1]) / 2);
    } else move(event.clientX - before[0], event.clientY - before[1]);
  };
  const up = (event) => fingers.current.delete(event.pointerId);

  /** Whether the key was one of these. */
  const pressed = (event) => {
    const along = { ArrowRight: [-1, 0], ArrowLeft: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return false; // the browser's own zoom
    if (event.key === "+" || event.key === "=") closer(STEP);
    else if (event.key === "-") closer(1 / STEP);
    else if (event.key === "0") whole();
    else if (event.shiftKey && along) move(...along.map((one) => one * 80));
    else return false;
    event.preventDefault();
    return true;
  };
  /** Move only as far as it takes to see this place. */
  const bringIn = ({ x, y }) =>
    setView((before) => {
      const reach = (side) => (0.95 * (side / 2 - MARGIN)) / (unit() * before.k);
      const { clientWidth, clientHeight } = frame.current;
      const seen = (value, middle, far) => (Math.abs(value - middle) > far ? value : middle);
      return within({ ...before, x: seen(x, before.x, reach(clientWidth)), y: seen(y, before.y, reach(clientHeight)) });
    });
  return {
    frame,
    style: { "--cx": String(view.x), "--cy": String(view.y), "--ex": String(box.ex), "--ey": String(box.ey), "--k": String(view.k) },
    handlers: { onWheel: wheel, onPointerDown: down, onPointerMove: drag, onPointerUp: up, onPointerCancel: up, onLostPointerCapture: up },
    isZoomed: view.k > 1,
    canZoomIn: view.k < CLOSEST,
    by: closer,
    whole,
    pressed,
    bringIn,
    wasMoved: () => moved.current,
  };
};
