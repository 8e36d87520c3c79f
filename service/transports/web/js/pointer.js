/** Mouse, pen and fingers on the stage, as clicks, boxes, hovering, panning and zooming. */

const SLACK = { mouse: 4, pen: 6, touch: 10 }; // CSS pixels that still count as a click
const WHEEL = 0.0016; // zoom per pixel of wheel, as a power of e

/**
 * @typedef {object} Gestures
 * @property {(at: {x: number, y: number}, label: 0|1) => void} click picture coordinates, and what the click means
 * @property {(corners: number[]) => void} box
 * @property {(corners: number[]|null) => void} drawing the box under way
 * @property {(at: {x: number, y: number}|null) => void} hover null when the mouse has left
 */
export class Pointer {
  #stage;
  #view;
  #gestures;
  #pressed = new Map(); // pointer id -> its last position on the stage
  #drag = null;

  /** "foreground", "background" or "move": what the main button does. */
  tool = "foreground";
  /** While the space bar is held the main button pans. */
  panning = false;

  /** @param {{stage: HTMLElement, view: import("./view.js").View, gestures: Gestures}} parts */
  constructor({ stage, view, gestures }) {
    this.#stage = stage;
    this.#view = view;
    this.#gestures = gestures;
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    stage.addEventListener("pointerup", (event) => this.#up(event));
    stage.addEventListener("pointercancel", (event) => this.#forget(event));
    stage.addEventListener("pointerleave", () => gestures.hover(null));
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  /** Give up a box or a pan under way; tells whether there was one. */
  cancel() {
    const active = this.#drag !== null;
    this.#drag = null;
    this.#gestures.drawing(null);
    return active;
  }

  /** Position on the stage in CSS pixels. */
  #at(event) {
    const frame = this.#stage.getBoundingClientRect();
    return { x: event.clientX - frame.left - this.#stage.clientLeft, y: event.clientY - frame.top - this.#stage.clientTop };
  }

  #down(event) {
    if (event.target.closest("button, input, a")) return;
    const at = this.#at(event);
    this.#stage.setPointerCapture(event.pointerId);
    this.#pressed.set(event.pointerId, at);
    this.#gestures.hover(null);
    if (this.#pressed.size > 1) {
      this.cancel(); // a second finger: both zoom and pan
      return;
    }
    const background = event.button === 2 || event.shiftKey || event.ctrlKey || this.tool === "background";
    const pan = event.button === 1 || this.panning || (this.tool === "move" && event.button === 0);
    if (event.button === 1) event.preventDefault();
    this.#drag = { id: event.pointerId, from: at, kind: pan ? "pan" : "click", label: background ? 0 : 1 };
  }

  #move(event) {
    const at = this.#at(event);
    const before = this.#pressed.get(event.pointerId);
    if (!before) {
      const picture = this.#view.toPicture(at.x, at.y);
      if (event.pointerType === "mouse") this.#gestures.hover(this.tool === "move" || this.panning ? null : picture);
      return;
    }
    if (this.#pressed.size === 2) this.#pinch(event.pointerId, at);
    else if (this.#drag) this.#pull(event, before, at);
    this.#pressed.set(event.pointerId, at);
  }

  #pull(event, before, at) {
    const drag = this.#drag;
    if (drag.kind === "pan") {
      this.#view.panBy(at.x - before.x, at.y - before.y);
      return;
    }
    const far = Math.hypot(at.x - drag.from.x, at.y - drag.from.y) > (SLACK[event.pointerType] ?? SLACK.mouse);
    if (far && drag.kind === "click") drag.kind = "box";
    if (drag.kind === "box") this.#gestures.drawing(this.#corners(drag.from, at));
  }

  #up(event) {
    const at = this.#at(event);
    const drag = this.#drag;
    this.#forget(event);
    if (!drag || drag.id !== event.pointerId) return;
    if (drag.kind === "click") this.#gestures.click(this.#view.toPicture(drag.from.x, drag.from.y), drag.label);
    if (drag.kind === "box") this.#gestures.box(this.#corners(drag.from, at));
  }

  #forget(event) {
    this.#pressed.delete(event.pointerId);
    if (this.#drag?.id === event.pointerId) this.cancel();
  }

  #corners(from, to) {
    const a = this.#view.toPicture(from.x, from.y);
    const b = this.#view.toPicture(to.x, to.y);
    return [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];
  }

  /** Two fingers: the picture follows both. */
  #pinch(id, at) {
    const before = this.#pressed.get(id);
    const other = [...this.#pressed].find(([key]) => key !== id)[1];
    const ratio = Math.hypot(at.x - other.x, at.y - other.y) / Math.hypot(before.x - other.x, before.y - other.y);
    const middle = { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 };
    this.#view.panBy((at.x - before.x) / 2, (at.y - before.y) / 2);
    if (Number.isFinite(ratio) && ratio > 0) this.#view.zoomAt(middle.x, middle.y, ratio);
  }

  #wheel(event) {
    if (event.target.closest("[data-scrolls]")) return;
    event.preventDefault();
    const at = this.#at(event);
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? event.deltaY * 16 : event.deltaY;
    const speed = event.ctrlKey ? 6 : 1; // a pinch on a touch pad arrives as a slow wheel with the control key
    this.#view.zoomAt(at.x, at.y, Math.exp(-pixels * WHEEL * speed));
  }
}
