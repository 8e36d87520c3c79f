/** Shows what a click would give while the mouse rests: one request at a time, and the last position wins. */

import { Mask } from "./rle.js";
import { smoothPath, traceRings } from "./outline.js";
import { extend } from "./workspace.js";

const REST = 90; // milliseconds without a move before the service is asked

export class Preview {
  #annotator;
  #workspace;
  #onChange;
  #wanted = null;
  #asking = false;
  #timer = 0;

  enabled = matchMedia("(hover: hover)").matches;
  /** What a click at the last position would give: {path, name, anchor}, or null. */
  shape = null;

  constructor({ annotator, workspace, onChange }) {
    this.#annotator = annotator;
    this.#workspace = workspace;
    this.#onChange = onChange;
  }

  /** The mouse is at this point; null: it has gone. */
  follow(point) {
    clearTimeout(this.#timer);
    if (!this.enabled || !point) {
      this.#wanted = null;
      if (!point) this.clear();
      return;
    }
    this.#wanted = point;
    this.#timer = setTimeout(() => this.#ask(), REST);
  }

  clear() {
    this.#wanted = null;
    if (!this.shape) return;
    this.shape = null;
    this.#onChange();
  }

  async #ask() {
    if (this.#asking || !this.#wanted) return;
    const point = this.#wanted;
    const image = this.#annotator.image;
    this.#asking = true;
    try {
      const body = await this.#annotator.requestFor(this.#prompt(point), { id: "preview", classify: this.#classify() });
      const { reply } = await this.#annotator.send({ ...body, output: { mask_ref: false } });
      if (this.#wanted && image === this.#annotator.image) this.#show(reply.results[0]);
    } catch {
      this.clear(); // a click at the same place will say what is wrong
    } finally {
      this.#asking = false;
      if (this.#wanted && this.#wanted !== point) this.#ask();
    }
  }

  #prompt(point) {
    const active = this.#workspace.active;
    return active ? extend(active.prompt, point) : { points: [point], box: null, previous: null };
  }

  /** A refinement shows its mask alone: its object has a name already. */
  #classify() {
    return this.#workspace.active ? null : { ...this.#annotator.classify, top_k: 1 };
  }

  #show({ mask, area, bbox, classes }) {
    const anchor = bbox && { x: (bbox[0] + bbox[2]) / 2, y: bbox[1] };
    this.shape = mask && area ? { path: smoothPath(traceRings(new Mask(mask))), anchor, name: classes?.[0]?.name } : null;
    this.#onChange();
  }
}
