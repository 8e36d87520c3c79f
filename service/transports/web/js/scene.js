/** What lies on the picture: shapes, clicks and boxes for the painter, and which object is under a position. */

const FEW = 14; // more objects than this show their names only when they are selected or under the mouse
const PREVIEW_COLOUR = "#ffffff";

export class Scene {
  #workspace;
  #annotator;

  masksShown = true;
  /** The object under the mouse, a preview, the box under way, and the keyboard's pointer; each may be null. */
  hovered = null;
  preview = null;
  drawing = null;
  cross = null;

  constructor({ workspace, annotator }) {
    this.#workspace = workspace;
    this.#annotator = annotator;
  }

  /** The name of an object: chosen by hand, or the most probable one. */
  nameOf(object) {
    return object.name ?? this.#annotator.answerOf(object.prompt)?.classes[0]?.name ?? "object";
  }

  /** The smallest object whose mask has this pixel: what lies in front is seldom the larger one. */
  objectAt({ x, y }) {
    return this.#bySize().reverse().find(({ answer }) => answer?.mask?.has(x, y))?.object;
  }

  /** The objects' masks as a file is made of them. */
  items() {
    return this.#workspace.objects.flatMap((object) => {
      const answer = this.#annotator.answerOf(object.prompt);
      if (!answer?.area) return [];
      const name = this.nameOf(object);
      const score = answer.classes.find((found) => found.name === name)?.score ?? null;
      return [{ id: object.id, name, score, colour: object.colour, mask: answer.mask, area: answer.area }];
    });
  }

  /** For the painter. */
  describe() {
    const active = this.#workspace.active;
    const shapes = this.masksShown ? this.#bySize().map((entry) => this.#shape(entry, active)) : [];
    if (this.preview) {
      const { path, anchor, name } = this.preview;
      const tag = name && anchor ? `${name}?` : undefined;
      shapes.push({ path, anchor, tag, colour: PREVIEW_COLOUR, strength: 0.22 });
    }
    const box = this.drawing && { corners: this.drawing, colour: PREVIEW_COLOUR };
    return { shapes, marks: active?.prompt.points ?? [], box, cross: this.cross };
  }

  #shape({ object, answer }, active) {
    const isActive = object === active;
    const isHovered = object === this.hovered;
    const tagged = answer?.anchor && (isActive || isHovered || this.#workspace.objects.length <= FEW);
    return {
      path: answer?.path,
      anchor: answer?.anchor,
      colour: object.colour,
      tag: tagged ? this.nameOf(object) : undefined,
      strength: isActive || isHovered ? 0.45 : 0.28,
      outline: isActive ? 3 : 2,
      promptBox: isActive ? object.prompt.box : null,
    };
  }

  #bySize() {
    const entries = this.#workspace.objects.map((object) => ({ object, answer: this.#annotator.answerOf(object.prompt) }));
    return entries.sort((a, b) => (b.answer?.area ?? 0) - (a.answer?.area ?? 0));
  }
}
