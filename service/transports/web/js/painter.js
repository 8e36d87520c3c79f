/** Draws the stage: the picture on one canvas, everything that changes on another above it. */

const OUTLINE = 2;

export class Painter {
  #picture;
  #overlay;
  #view;
  #density = { x: 1, y: 1 };
  #waiting = { picture: false, overlay: false };

  /** The picture shown, and a function that tells what lies on it. */
  bitmap = null;
  scene = () => ({ shapes: [], marks: [] });

  constructor({ picture, overlay, view }) {
    this.#picture = picture;
    this.#overlay = overlay;
    this.#view = view;
    view.addEventListener("change", () => this.repaint());
  }

  /** Stage size in CSS pixels and in device pixels, which need not be a whole multiple; `insets` is under tools. */
  resize({ width, height, deviceWidth, deviceHeight, insets }) {
    for (const canvas of [this.#picture, this.#overlay]) {
      canvas.width = deviceWidth;
      canvas.height = deviceHeight;
    }
    this.#density = { x: deviceWidth / width, y: deviceHeight / height };
    this.#view.resize({ width, height, insets });
    this.#paint();
  }

  repaint() {
    this.#waiting.picture = true;
    this.repaintOverlay();
  }

  repaintOverlay() {
    if (!this.#waiting.overlay) requestAnimationFrame(() => this.#paint());
    this.#waiting.overlay = true;
  }

  #paint() {
    if (this.#waiting.picture) this.#paintPicture();
    this.#paintOverlay();
    this.#waiting = { picture: false, overlay: false };
  }

  #context(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(this.#density.x, 0, 0, this.#density.y, 0, 0);
    return context;
  }

  #paintPicture() {
    const context = this.#context(this.#picture);
    if (!this.bitmap) return;
    const { x, y, scale } = this.#view;
    context.imageSmoothingEnabled = scale < 3; // further in, pixels are what one wants to see
    context.imageSmoothingQuality = "high";
    context.drawImage(this.bitmap, x, y, this.bitmap.width * scale, this.bitmap.height * scale);
  }

  #paintOverlay() {
    const context = this.#context(this.#overlay);
    if (!this.bitmap) return;
    const { shapes, marks, box, cross } = this.scene();
    for (const shape of shapes) this.#paintShape(context, shape);
    for (const shape of shapes) if (shape.tag) this.#paintTag(context, shape);
    if (box) this.#paintBox(context, box);
    for (const mark of marks) this.#paintMark(context, mark);
    if (cross) this.#paintCross(context, cross);
  }

  #paintShape(context, { path, colour, strength, outline = OUTLINE, promptBox }) {
    const { x, y, scale } = this.#view;
    context.save();
    context.translate(x, y);
    context.scale(scale, scale);
    if (path) {
      context.lineJoin = "round";
      context.globalAlpha = strength;
      context.fillStyle = colour;
      context.fill(path, "evenodd");
      context.globalAlpha = Math.min(1, strength * 2);
      context.strokeStyle = "#000";
      context.lineWidth = (outline + 1.5) / scale;
      context.stroke(path);
      context.globalAlpha = 1;
      context.strokeStyle = colour;
      context.lineWidth = outline / scale;
      context.stroke(path);
    }
    context.restore();
    if (promptBox) this.#paintBox(context, { corners: promptBox, colour });
  }

  #paintTag(context, { tag, anchor, colour, outline = OUTLINE }) {
    const at = this.#view.toStage(anchor.x, anchor.y);
    context.font = `${outline > OUTLINE ? 600 : 500} 12px system-ui, sans-serif`;
    const width = context.measureText(tag).width + 12;
    const left = Math.max(2, at.x - width / 2);
    const top = Math.max(2, at.y - 22);
    context.fillStyle = "rgb(12 15 20 / 0.82)";
    context.beginPath();
    context.roundRect(left, top, width, 19, 5);
    context.fill();
    context.fillStyle = colour;
    context.fillRect(left + 1, top + 4, 3, 11);
    context.fillStyle = "#fff";
    context.textBaseline = "middle";
    context.fillText(tag, left + 8, top + 10);
  }

  #paintBox(context, { corners: [x1, y1, x2, y2], colour }) {
    const from = this.#view.toStage(x1, y1);
    const to = this.#view.toStage(x2, y2);
    context.save();
    for (const [style, width, dash] of [["rgb(0 0 0 / 0.6)", 3, []], [colour, 1.5, [6, 4]]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.setLineDash(dash);
      context.strokeRect(from.x, from.y, to.x - from.x, to.y - from.y);
    }
    context.restore();
  }

  /** A click: a disc with + or -, at the middle of its pixel. */
  #paintMark(context, { x, y, label, faint }) {
    const at = this.#view.toStage(x + 0.5, y + 0.5);
    const radius = faint ? 5 : 7;
    context.beginPath();
    context.arc(at.x, at.y, radius, 0, 2 * Math.PI);
    context.fillStyle = label ? "#0a8f4a" : "#d1293d";
    context.fill();
    context.strokeStyle = "#fff";
    context.lineWidth = 2;
    context.stroke();
    context.beginPath();
    context.moveTo(at.x - radius / 2, at.y);
    context.lineTo(at.x + radius / 2, at.y);
    if (label) {
      context.moveTo(at.x, at.y - radius / 2);
      context.lineTo(at.x, at.y + radius / 2);
    }
    context.stroke();
  }

  /** The keyboard's pointer. */
  #paintCross(context, { x, y }) {
    const at = this.#view.toStage(x + 0.5, y + 0.5);
    for (const [style, width] of [["rgb(0 0 0 / 0.8)", 4], ["#fff", 1.5]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(at.x + 4 * dx, at.y + 4 * dy);
        context.lineTo(at.x + 16 * dx, at.y + 16 * dy);
      }
      context.stroke();
    }
  }
}
