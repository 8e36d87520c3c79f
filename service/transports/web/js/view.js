/** Where the picture lies on the stage: zoom and pan, and positions both ways. Lengths are CSS pixels of the stage. */

const LARGEST_FIT = 8; // a tiny picture is enlarged this much at first
const LARGEST = 40; // stage pixels for one picture pixel
const STEP = 1.25;

export class View extends EventTarget {
  #stage = { width: 1, height: 1 };
  #picture = null;
  #fitted = true;
  #insets = { top: 0, right: 0, bottom: 0, left: 0 };

  scale = 1;
  x = 0;
  y = 0;

  /** A picture of another size; it is shown whole. */
  show(picture) {
    this.#picture = picture;
    this.fit();
  }

  /** The stage has another size; a picture that was shown whole still is. */
  resize({ width, height, insets }) {
    this.#stage = { width, height };
    this.#insets = insets;
    if (this.#fitted) this.fit();
    else this.#place(this.scale, this.x, this.y);
  }

  fit() {
    this.#fitted = true;
    const scale = this.#fitScale();
    const { width, height } = this.#picture ?? { width: 0, height: 0 };
    const { left, top } = this.#insets;
    const free = this.#free();
    this.#set(scale, left + (free.width - width * scale) / 2, top + (free.height - height * scale) / 2);
  }

  /** Zoom so that the picture stays put under (stageX, stageY). */
  zoomAt(stageX, stageY, factor) {
    const wanted = this.scale * factor;
    const scale = Math.min(Math.max(wanted, Math.min(this.#fitScale(), 1) / 2), LARGEST);
    const ratio = scale / this.scale;
    this.#fitted = false;
    this.#place(scale, stageX - (stageX - this.x) * ratio, stageY - (stageY - this.y) * ratio);
  }

  /** Zoom a step about the middle of the stage. */
  zoomBy(steps) {
    this.zoomAt(this.#stage.width / 2, this.#stage.height / 2, STEP ** steps);
  }

  panBy(dx, dy) {
    this.#fitted = false;
    this.#place(this.scale, this.x + dx, this.y + dy);
  }

  /** Picture coordinates of a stage position: pixel (i, j) covers i <= x < i + 1, j <= y < j + 1. */
  toPicture(stageX, stageY) {
    return { x: (stageX - this.x) / this.scale, y: (stageY - this.y) / this.scale };
  }

  toStage(x, y) {
    return { x: x * this.scale + this.x, y: y * this.scale + this.y };
  }

  /** Whether picture coordinates lie on the picture. */
  covers({ x, y }) {
    const picture = this.#picture;
    return picture !== null && x >= 0 && y >= 0 && x < picture.width && y < picture.height;
  }

  /** Move the picture as little as needed to see picture coordinates with some room around them. */
  reveal(x, y) {
    const at = this.toStage(x, y);
    const room = 40;
    const dx = Math.max(room - at.x, 0) + Math.min(this.#stage.width - room - at.x, 0);
    const dy = Math.max(room - at.y, 0) + Math.min(this.#stage.height - room - at.y, 0);
    if (dx || dy) this.panBy(dx, dy);
  }

  #fitScale() {
    if (!this.#picture) return 1;
    const { width, height } = this.#picture;
    const free = this.#free();
    return Math.max(Math.min(free.width / width, free.height / height, LARGEST_FIT), 0.001);
  }

  /** The part of the stage that no tools lie on. */
  #free() {
    const { top, right, bottom, left } = this.#insets;
    return { width: this.#stage.width - left - right, height: this.#stage.height - top - bottom };
  }

  /** Never let the picture leave the stage altogether. */
  #place(scale, x, y) {
    const { width, height } = this.#picture ?? { width: 0, height: 0 };
    const keep = 60;
    const within = (value, length, room) => Math.min(Math.max(value, keep - length), room - keep);
    this.#set(scale, within(x, width * scale, this.#stage.width), within(y, height * scale, this.#stage.height));
  }

  #set(scale, x, y) {
    Object.assign(this, { scale, x, y });
    this.dispatchEvent(new Event("change"));
  }
}
