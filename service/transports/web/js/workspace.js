/** The objects on a picture, with undo and redo. Values are replaced, never changed, so that every step can return. */

import { History } from "./history.js";

/**
 * @typedef {{x: number, y: number, label: 0|1}} Point pixel indices of the image as displayed
 * @typedef {{points: Point[], box: number[]|null, previous: Prompt|null}} Prompt `previous` is what it refines
 * @typedef {{id: number, colour: string, prompt: Prompt, name: string|null}} AnnotatedObject name: chosen by hand
 * @typedef {{objects: AnnotatedObject[], active: number|"new"|null}} Contents
 *   active: the object that clicks refine; "new": the next click begins an object; null: clicks select
 */

const PALETTE = [
  "#ff4d5e", "#2f9bff", "#1fc16b", "#ffb020", "#b56bff", "#00c2c7", "#ff6fb5", "#a3d421", "#ff7a30", "#7385ff",
];

const EMPTY = Object.freeze({ objects: [], active: "new" });

export class Workspace extends EventTarget {
  #history = new History(EMPTY);
  #next = 1;

  /** @returns {Contents} */
  get contents() {
    return this.#history.present;
  }

  get objects() {
    return this.contents.objects;
  }

  /** @returns {AnnotatedObject|undefined} */
  get active() {
    return this.objects.find((object) => object.id === this.contents.active);
  }

  get canUndo() {
    return this.#history.canUndo;
  }

  get canRedo() {
    return this.#history.canRedo;
  }

  /** A click: refines the active object, or begins one. */
  addPoint(point) {
    const active = this.active;
    if (active) this.#replace(active.id, { prompt: extend(active.prompt, point) });
    else this.#append([{ points: [point], box: null, previous: null }]);
  }

  /** A box begins an object: one that refined another would leave nothing to see of either. */
  addBox(box) {
    this.#append([{ points: [], box, previous: null }]);
  }

  /** Objects found together are one step; `further` ones join the step before. */
  addFound(prompts, { further = false } = {}) {
    this.#append(prompts, { active: further ? this.contents.active : null, amend: further });
  }

  remove(id) {
    const objects = this.objects.filter((object) => object.id !== id);
    const at = this.objects.findIndex((object) => object.id === id);
    if (at < 0) return;
    const active = this.contents.active === id ? (objects[at] ?? objects[at - 1])?.id : this.contents.active;
    this.#push({ objects, active: active ?? "new" });
  }

  removeAll() {
    if (this.objects.length) this.#push(EMPTY);
  }

  rename(id, name) {
    this.#replace(id, { name });
  }

  /** @param {number|"new"|null} active */
  select(active) {
    this.#history.amend({ ...this.contents, active });
    this.#changed();
  }

  /** The object `by` places after the active one, around the end. */
  selectNext(by = 1) {
    const count = this.objects.length;
    if (!count) return;
    const at = this.objects.findIndex((object) => object.id === this.contents.active);
    this.select(this.objects[at < 0 ? (by > 0 ? 0 : count - 1) : (at + by + count) % count].id);
  }

  undo() {
    this.#history.undo();
    this.#changed();
  }

  redo() {
    this.#history.redo();
    this.#changed();
  }

  /** Another picture: its objects and steps, or none. Returns what was there, for the way back. */
  exchange(history = new History(EMPTY)) {
    const before = this.#history;
    this.#history = history;
    this.#changed();
    return before;
  }

  #append(prompts, { active, amend = false } = {}) {
    const fresh = prompts.map((prompt) => {
      const id = this.#next++;
      return { id, colour: PALETTE[(id - 1) % PALETTE.length], prompt: Object.freeze(prompt), name: null };
    });
    const contents = {
      objects: [...this.objects, ...fresh],
      active: active === undefined ? fresh[fresh.length - 1].id : active,
    };
    if (amend) this.#history.amend(contents);
    else this.#history.push(contents);
    this.#changed();
  }

  #replace(id, fields) {
    const objects = this.objects.map((object) => (object.id === id ? { ...object, ...fields } : object));
    this.#push({ ...this.contents, objects });
  }

  #push(contents) {
    this.#history.push(contents);
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** A prompt with one more click. */
export function extend(prompt, point) {
  return Object.freeze({ points: [...prompt.points, point], box: prompt.box, previous: prompt });
}
