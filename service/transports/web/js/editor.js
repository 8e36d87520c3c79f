/** What an annotator does on the page: clicks, boxes and commands become changes of the workspace. */

import { byId } from "./dom.js";

const SMALLEST_BOX = 2; // picture pixels
const FAR = 10; // steps of the keyboard's pointer with Shift

export class Editor {
  #workspace;
  #annotator;
  #notices;
  #view;
  #painter;
  #scene;
  #panel;
  #preview;
  #pointer;
  #turn = 0;
  #search = null; // AbortController of everything mode

  constructor({ workspace, annotator, notices, view, painter, scene, panel, preview, pointer }) {
    this.#workspace = workspace;
    this.#annotator = annotator;
    this.#notices = notices;
    this.#view = view;
    this.#painter = painter;
    this.#scene = scene;
    this.#panel = panel;
    this.#preview = preview;
    this.#pointer = pointer;
  }

  /** Work on another picture; the one before can be brought back. */
  async open(blob, name) {
    const again = { label: "Try again", run: () => this.open(blob, name) };
    byId("progress").hidden = false;
    try {
      const turn = ++this.#turn;
      const image = await this.#annotator.open(blob, name);
      if (turn !== this.#turn) return; // another picture was opened meanwhile
      const before = this.#annotator.image && { image: this.#annotator.image, objects: this.#workspace.objects.length };
      const history = this.#show(image);
      if (before?.objects) this.#offerReturn(before.image, history);
      this.#compare(image, await image.ready);
    } catch (error) {
      this.#notices.problem(error, error.code === "unreachable" ? again : undefined);
      if (this.#annotator.image?.blob === blob) this.#show(null);
    } finally {
      byId("progress").hidden = true;
    }
  }

  /** A click at picture coordinates: selects, begins or refines an object. */
  click(at, label) {
    if (!this.#annotator.image || !this.#view.covers(at)) return;
    const point = { x: Math.floor(at.x), y: Math.floor(at.y), label };
    const hit = this.#workspace.contents.active === null && this.#scene.objectAt(point);
    if (hit) {
      this.#workspace.select(hit.id);
    } else if (!label && !this.#workspace.active) {
      const detail = "A background click takes something away from a selected object. Click the object itself first.";
      this.#notices.tell({ title: "Nothing to take away from", detail });
    } else {
      this.#workspace.addPoint(point);
    }
  }

  /** A box in picture coordinates: begins an object. */
  box(corners) {
    const box = this.#withinPicture(corners);
    this.draw(null);
    if (box) this.#workspace.addBox(box);
  }

  draw(corners) {
    this.#scene.drawing = corners;
    this.#painter.repaintOverlay();
  }

  hover(at) {
    const inside = at && this.#annotator.image && this.#view.covers(at) ? at : null;
    const choosing = this.#workspace.contents.active === null;
    const hovered = (inside && choosing && this.#scene.objectAt(inside)) || null;
    if (hovered !== this.#scene.hovered) {
      this.#scene.hovered = hovered;
      this.#painter.repaintOverlay();
    }
    const label = this.#pointer.tool === "background" ? 0 : 1;
    const point = inside && { x: Math.floor(inside.x), y: Math.floor(inside.y), label };
    const useless = hovered || (point && !label && !this.#workspace.active);
    this.#preview.follow(useless ? null : point);
  }

  rename(name) {
    const active = this.#workspace.active;
    if (active) this.#workspace.rename(active.id, name);
    else this.#notices.tell({ title: "No object is selected", detail: "Select the object that has this name." });
  }

  /** What a file of the selected object is made of. */
  activeItem() {
    return this.#scene.items().find((item) => item.id === this.#workspace.contents.active);
  }

  /** Tell screen readers an answer. */
  speak({ area, classes }) {
    const [best] = classes ?? [];
    if (!area) this.#notices.speak("Nothing was found at this place.");
    else this.#notices.speak(best ? `${best.name}, ${Math.round(best.score * 100)} percent` : "A mask without a name");
  }

  /** Run a command of the keyboard or of a button. */
  run(command, argument) {
    this.#commands[command]?.(argument);
  }

  /** Bring everything on the page up to date. */
  refresh() {
    const { image } = this.#annotator;
    const { contents, active, canUndo, canRedo } = this.#workspace;
    document.body.dataset.picture = image ? "open" : "none";
    document.body.dataset.active = active ? "object" : String(contents.active);
    byId("file-name").textContent = image ? `${image.name} · ${image.width} × ${image.height}` : "";
    this.#enable("undo", canUndo);
    this.#enable("redo", canRedo);
    this.#enable("remove", Boolean(active));
    for (const name of ["everything", "new", "zoomIn", "zoomOut", "fit"]) this.#enable(name, Boolean(image));
    byId("export-mask").disabled = !this.activeItem();
    const [hint, more] = image ? this.#hint() : ["", ""];
    byId("hint").firstElementChild.textContent = hint;
    byId("hint").lastElementChild.textContent = more;
    this.#panel.render();
    this.#painter.repaintOverlay();
  }

  #commands = {
    new: () => this.#workspace.select("new"),
    foreground: () => this.#useTool("foreground"),
    background: () => this.#useTool("background"),
    move: () => this.#useTool(this.#pointer.tool === "move" ? "foreground" : "move"),
    toggle: () => this.#useTool(this.#pointer.tool === "foreground" ? "background" : "foreground"),
    undo: () => this.#workspace.undo(),
    redo: () => this.#workspace.redo(),
    remove: () => this.#workspace.remove(this.#workspace.contents.active),
    clear: () => this.#workspace.removeAll(),
    next: () => this.#workspace.selectNext(1),
    previous: () => this.#workspace.selectNext(-1),
    choose: (place) => this.#panel.choose(place),
    rename: () => this.#panel.editName(),
    hide: () => this.#toggle("hide", () => (this.#scene.masksShown = !this.#scene.masksShown)),
    preview: () => this.#toggle("preview", () => (this.#preview.enabled = !this.#preview.enabled)),
    fit: () => this.#view.fit(),
    zoomIn: () => this.#view.zoomBy(1),
    zoomOut: () => this.#view.zoomBy(-1),
    help: () => byId("help").showModal(),
    everything: () => this.#findEverything(),
    escape: () => this.#escape(),
    hold: () => this.#hold(true),
    release: () => this.#hold(false),
    step: (way) => this.#step(way),
    press: (label) => this.#scene.cross && this.click(this.#scene.cross, label),
  };

  #show(image) {
    this.#search?.abort();
    this.#preview.clear();
    this.#scene.cross = null;
    this.#painter.bitmap = image?.bitmap ?? null;
    if (image) document.body.style.setProperty("--ratio", image.height / image.width);
    this.#annotator.use(image);
    const history = this.#workspace.exchange();
    this.#view.show(image);
    this.#painter.repaint();
    return history;
  }

  /** Coordinates mean nothing when browser and service disagree about how a picture is turned. */
  #compare(image, { width, height }) {
    if (!width || (width === image.width && height === image.height)) return;
    const sizes = `Here it has ${image.width} × ${image.height} pixels, there ${width} × ${height}.`;
    const detail = `${sizes} Masks may be misplaced.`;
    this.#notices.problem({ title: "Browser and service see this picture differently", detail });
  }

  #offerReturn(image, history) {
    const back = () => {
      this.#show(image);
      this.#workspace.exchange(history);
    };
    const action = { label: "Go back", run: back };
    this.#notices.tell({ title: "A new picture", detail: `The objects on ${image.name} are kept for now.`, action });
  }

  async #findEverything() {
    if (!this.#annotator.image || this.#search) return;
    this.#search = new AbortController();
    document.body.classList.add("searching");
    byId("progress").hidden = false;
    try {
      const onFound = (found) => this.#notices.speak(`${found} objects`);
      const minStability = Number(byId("strictness").value);
      const found = await this.#annotator.findEverything({ signal: this.#search.signal, onFound, minStability });
      this.#notices.tell({ title: found ? `${found} objects found` : "No further objects were found", key: "everything" });
    } catch (error) {
      if (error.name !== "AbortError") this.#notices.problem(error);
    } finally {
      this.#search = null;
      document.body.classList.remove("searching");
      byId("progress").hidden = true;
    }
  }

  #escape() {
    if (this.#pointer.cancel()) return;
    if (this.#search) this.#search.abort();
    else if (this.#scene.cross) this.#moveCross(null);
    else this.#workspace.select(null);
  }

  #useTool(tool) {
    this.#pointer.tool = tool;
    document.body.dataset.tool = tool;
    for (const name of ["foreground", "background", "move"]) {
      for (const button of this.#buttons(name)) button.setAttribute("aria-pressed", String(name === tool));
    }
    this.#preview.clear();
  }

  #toggle(command, change) {
    const on = change();
    for (const button of this.#buttons(command)) button.setAttribute("aria-pressed", String(on));
    this.#preview.clear();
    this.#painter.repaintOverlay();
  }

  #hold(panning) {
    this.#pointer.panning = panning;
    document.body.classList.toggle("panning", panning);
  }

  /** The keyboard's pointer: a step is at least one picture pixel and at least one stage pixel. */
  #step({ dx, dy, far }) {
    const { image } = this.#annotator;
    if (!image) return;
    const length = Math.max(1, Math.round(1 / this.#view.scale)) * (far ? FAR : 1);
    const from = this.#scene.cross ?? { x: image.width >> 1, y: image.height >> 1 };
    const x = Math.min(Math.max(from.x + dx * length, 0), image.width - 1);
    const y = Math.min(Math.max(from.y + dy * length, 0), image.height - 1);
    this.#view.reveal(x, y);
    this.#moveCross({ x, y });
  }

  #moveCross(cross) {
    this.#scene.cross = cross;
    this.#painter.repaintOverlay();
    if (cross) this.#notices.speak(`${cross.x}, ${cross.y}`);
  }

  /** What a click would do; the second part is left out where there is little room. */
  #hint() {
    const active = this.#workspace.active;
    if (active) return [`Clicks refine “${this.#scene.nameOf(active)}”.`, "New object (N) begins another."];
    if (this.#workspace.contents.active !== null) return ["Click an object, or drag a box around it.", ""];
    return ["Click a mask to select it,", "or anything else for a new object."];
  }

  #withinPicture([x1, y1, x2, y2]) {
    const { image } = this.#annotator;
    if (!image) return null;
    const cut = (value, limit) => Math.round(Math.min(Math.max(value, 0), limit));
    const box = [cut(x1, image.width), cut(y1, image.height), cut(x2, image.width), cut(y2, image.height)];
    return box[2] - box[0] < SMALLEST_BOX || box[3] - box[1] < SMALLEST_BOX ? null : box;
  }

  #enable(command, enabled) {
    for (const button of this.#buttons(command)) button.disabled = !enabled;
  }

  #buttons(command) {
    return document.querySelectorAll(`[data-command="${command}"]`);
  }
}
