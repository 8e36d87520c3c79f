/** Keeps the service's answers in step with what is on the picture: every prompt without an answer is asked for. */

import { digestOf } from "./digest.js";
import { Problem } from "./api.js";
import { Mask } from "./rle.js";
import { smoothPath, traceRings } from "./outline.js";

const NAMES = 5;
const GRIDS = [16, 8]; // clicks along the longer side; the second is for a service too busy for the first
const SAME = 0.7; // masks with a larger IoU are one object, as in the service's own everything mode
const BATCH = 64; // objects named anew in one request

/**
 * @typedef {object} Answer
 * @property {Mask} [mask]
 * @property {Path2D} [path]
 * @property {{name: string, score: number}[]} classes
 * @property {string} words which words the names were chosen from
 * @property {Problem|{title: string, detail: string}} [error]
 */
export class Annotator extends EventTarget {
  #api;
  #workspace;
  /** @type {WeakMap<object, Answer>} by prompt: what undo brings back has its answer still */
  #answers = new WeakMap();
  #asking = new Map(); // prompt -> AbortController
  #naming = null;
  #classify = {};

  /** The picture: name, blob, bitmap, width, height, and the promise of its digest once the service has it. */
  image = null;

  constructor({ api, workspace }) {
    super();
    this.#api = api;
    this.#workspace = workspace;
    workspace.addEventListener("change", () => this.#keepUp());
  }

  /** Show and register a picture; rejects with a Problem when the service or the browser cannot read it. */
  async open(blob, name) {
    const ready = this.#register(blob);
    ready.catch(() => {}); // told below, or by the first click
    const bitmap = await createImageBitmap(blob).catch(() => null);
    if (!bitmap) {
      await ready;
      throw new Problem({ title: "This browser cannot show the picture", detail: "Convert it to JPEG or PNG first." });
    }
    const image = { name, blob, bitmap, width: bitmap.width, height: bitmap.height, ready };
    return image;
  }

  /** Make an opened picture the one that is worked on. */
  use(image) {
    this.#cancelAll();
    this.image = image;
    this.#tell("image");
  }

  /** @param {{vocabulary?: string, names?: string[]}} words what names are chosen from; known names are asked anew */
  useWords(words) {
    this.#classify = words;
    this.#keepUp();
  }

  /** The names to choose from, as a request says it. */
  get classify() {
    return { ...this.#classify, top_k: NAMES };
  }

  /** @returns {Answer|undefined} the answer to a prompt; of a refinement under way, that of what it refines */
  answerOf(prompt) {
    for (let asked = prompt; asked; asked = asked.previous) {
      const answer = this.#answers.get(asked);
      if (answer) return answer;
    }
    return undefined;
  }

  isAsking(prompt) {
    return this.#asking.has(prompt);
  }

  /** Ask again for a prompt that failed. */
  retry(prompt) {
    this.#answers.delete(prompt);
    this.#keepUp();
  }

  /** Segment everything on the picture; objects appear as they come, without those there are. Resolves with their number. */
  async findEverything(wanted) {
    for (const grid of GRIDS) {
      try {
        return await this.#searchGrid(grid, wanted);
      } catch (error) {
        if (error.code !== "deadline" || grid === GRIDS.at(-1)) throw error;
      }
    }
  }

  async #searchGrid(grid, { signal, onFound, minStability }) {
    const { digest } = await this.image.ready;
    const body = { image: digest, classify: this.classify, grid, min_stability: minStability };
    const words = this.#wordsKey();
    let found = 0;
    for await (const item of this.#api.everything(body, { signal, onWait: (problem) => this.#tell("wait", problem) })) {
      if (!item.mask || !item.area) continue;
      const mask = new Mask(item.mask);
      if (this.#isThere(mask)) continue;
      const prompt = Object.freeze({ points: [innerPoint(mask)], box: null, previous: null });
      this.#answers.set(prompt, answerFrom(item, mask, words));
      this.#workspace.addFound([prompt], { further: found > 0 });
      onFound(++found);
    }
    return found;
  }

  /** A request for one prompt of this picture, as the service wants it. */
  async requestFor(prompt, { classify = this.classify, id = "object" } = {}) {
    const { digest } = await this.image.ready;
    return { image: digest, prompts: [this.#wire(prompt, id)], classify };
  }

  /** Send a request; a picture that the service has forgotten is sent again, and a forgotten mask done without. */
  async send(body, patience) {
    try {
      return await this.#api.segment(body, patience);
    } catch (error) {
      const refined = body.prompts.some((prompt) => prompt.mask_ref);
      if (error.code === "image-unknown") {
        this.image.ready = this.#upload(this.image.blob, body.image);
        await this.image.ready;
      } else if (error.code !== "invalid-prompt" || !refined) {
        throw error;
      }
      const prompts = body.prompts.map(({ mask_ref: forgotten, ...prompt }) => prompt);
      return this.#api.segment({ ...body, prompts }, patience);
    }
  }

  #isThere(mask) {
    const masks = this.#workspace.objects.map(({ prompt }) => this.answerOf(prompt)?.mask).filter(Boolean);
    return masks.some((known) => known.overlap(mask) > SAME);
  }

  #wire(prompt, id) {
    const wire = { id, points: prompt.points };
    if (prompt.box) wire.box = prompt.box;
    const reference = prompt.previous && this.#answers.get(prompt.previous)?.reference;
    if (reference) wire.mask_ref = reference;
    return wire;
  }

  async #register(blob) {
    const digest = await digestOf(blob);
    if (digest && (await this.#api.isKnown(digest))) return { digest, sent: false };
    return this.#upload(blob, digest);
  }

  async #upload(blob, known) {
    const onWait = (problem) => this.#tell("wait", problem);
    const { image, width, height } = await this.#api.upload(blob, known, { onWait });
    return { digest: image, width, height, sent: true };
  }

  /** Ask for what has no answer, give up what nobody waits for, and name anew what was named from other words. */
  #keepUp() {
    const wanted = new Set(this.#workspace.objects.map((object) => object.prompt));
    for (const [prompt, controller] of this.#asking) if (!wanted.has(prompt)) controller.abort();
    for (const prompt of wanted) if (!this.#answers.has(prompt) && !this.#asking.has(prompt)) this.#ask(prompt);
    this.#nameAnew();
    this.#tell("change");
  }

  async #ask(prompt) {
    const controller = new AbortController();
    this.#asking.set(prompt, controller);
    this.#tell("change");
    try {
      const words = this.#wordsKey();
      const body = await this.requestFor(prompt);
      if (controller.signal.aborted) return;
      const patience = { signal: controller.signal, onWait: (problem) => this.#tell("wait", problem) };
      const { reply, ...cost } = await this.send(body, patience);
      const [result] = reply.results;
      if (result.error) throw new Problem({ title: "This prompt has no answer", ...result.error });
      this.#answers.set(prompt, answerFrom(result, new Mask(result.mask), words));
      this.#tell("answer", { reply, ...cost });
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(prompt, error);
    } finally {
      this.#asking.delete(prompt);
      this.#keepUp();
    }
  }

  #fail(prompt, error) {
    const before = prompt.previous ? this.answerOf(prompt.previous) : { classes: [], words: this.#wordsKey() };
    this.#answers.set(prompt, { ...before, error });
    this.#tell("problem", error);
  }

  async #nameAnew() {
    const words = this.#wordsKey();
    const stale = this.#workspace.objects.filter(({ prompt }) => {
      const answer = this.#answers.get(prompt);
      return answer?.mask && !answer.error && answer.words !== words;
    });
    if (!stale.length || this.#naming === words) return;
    this.#naming = words;
    try {
      for (let start = 0; start < stale.length; start += BATCH) await this.#nameBatch(stale.slice(start, start + BATCH));
    } catch (error) {
      for (const { prompt } of stale) this.#answers.set(prompt, { ...this.#answers.get(prompt), words });
      this.#tell("problem", error);
    } finally {
      this.#naming = null;
      this.#keepUp();
    }
  }

  async #nameBatch(objects) {
    const words = this.#wordsKey();
    const { digest } = await this.image.ready;
    const prompts = objects.map(({ prompt }, index) => this.#wire(prompt, String(index)));
    const body = { image: digest, prompts, classify: this.classify, output: { mask: "none", mask_ref: false } };
    const { reply } = await this.send(body, { onWait: (problem) => this.#tell("wait", problem) });
    for (const [index, { classes }] of reply.results.entries()) {
      const before = this.#answers.get(objects[index].prompt);
      this.#answers.set(objects[index].prompt, { ...before, classes: classes ?? before.classes, words });
    }
  }

  #wordsKey() {
    return JSON.stringify(this.#classify);
  }

  #cancelAll() {
    for (const controller of this.#asking.values()) controller.abort();
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @returns {Answer} */
function answerFrom(result, mask, words) {
  const { classes, bbox, area, stability, mask_ref: reference } = result;
  const path = area ? smoothPath(traceRings(mask)) : null;
  return { mask, path, classes: classes ?? [], bbox, area, stability, reference, words, anchor: anchorOf(bbox) };
}

function anchorOf(bbox) {
  return bbox ? { x: (bbox[0] + bbox[2]) / 2, y: bbox[1] } : null;
}

/** A pixel well inside a mask: the middle of the longest vertical run. */
function innerPoint(mask) {
  let best = { length: 0 };
  mask.eachRun((x, y1, y2) => {
    if (y2 - y1 > best.length) best = { length: y2 - y1, x, y: (y1 + y2) >> 1 };
  });
  return { x: best.x, y: best.y, label: 1 };
}
