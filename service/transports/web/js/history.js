/** Undo and redo over values that are never changed in place. */

export class History {
  #past = [];
  #future = [];

  constructor(present) {
    this.present = present;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  /** A new step. */
  push(value) {
    this.#past.push(this.present);
    this.#future = [];
    this.present = value;
  }

  /** The same step, seen otherwise (a selection, or one more of the objects that came together). */
  amend(value) {
    this.present = value;
  }

  undo() {
    if (!this.canUndo) return;
    this.#future.push(this.present);
    this.present = this.#past.pop();
  }

  redo() {
    if (!this.canRedo) return;
    this.#past.push(this.present);
    this.present = this.#future.pop();
  }
}
