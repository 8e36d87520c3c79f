/** COCO's compressed run-length masks: column by column, background first (the format of pycocotools). */

/**
 * Runs of a compressed string: groups of five bits, a sixth to go on, a sign, and differences to the run two before.
 * @param {string} text
 * @returns {number[]} lengths, beginning with background
 */
export function parseCounts(text) {
  const runs = [];
  for (let at = 0; at < text.length; ) {
    let value = 0;
    let shift = 0;
    let group;
    do {
      group = text.charCodeAt(at++) - 48;
      value |= (group & 31) << shift;
      shift += 5;
    } while (group & 32);
    if (group & 16) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

/** A mask of the whole picture, kept as its runs: a picture's masks together would be too many pixels. */
export class Mask {
  /** @param {{size: [number, number], counts: string}} rle as the service sends it */
  constructor({ size, counts }) {
    [this.height, this.width] = size;
    this.counts = counts;
    this.ends = Float64Array.from(parseCounts(counts));
    for (let i = 1; i < this.ends.length; i++) this.ends[i] += this.ends[i - 1];
  }

  /** Whether the pixel (x, y) is foreground. */
  has(x, y) {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return false;
    const position = Math.floor(x) * this.height + Math.floor(y);
    let low = 0;
    let high = this.ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ends[middle] <= position) low = middle + 1;
      else high = middle;
    }
    return low % 2 === 1;
  }

  /** Calls paint(x, y1, y2) for each vertical foreground run: rows y1 <= y < y2 of column x. */
  eachRun(paint) {
    for (let i = 1; i < this.ends.length; i += 2) {
      let start = this.ends[i - 1];
      while (start < this.ends[i]) {
        const x = Math.floor(start / this.height);
        const end = Math.min(this.ends[i], (x + 1) * this.height);
        paint(x, start - x * this.height, end - x * this.height);
        start = end;
      }
    }
  }

  /** Intersection over union with another mask of the same picture. */
  overlap(other) {
    let common = 0;
    for (let i = 1, j = 1; i < this.ends.length && j < other.ends.length; ) {
      const start = Math.max(this.ends[i - 1], other.ends[j - 1]);
      const end = Math.min(this.ends[i], other.ends[j]);
      common += Math.max(end - start, 0);
      if (this.ends[i] < other.ends[j]) i += 2;
      else j += 2;
    }
    return common / (this.area + other.area - common || 1);
  }

  get area() {
    let sum = 0;
    for (let i = 1; i < this.ends.length; i += 2) sum += this.ends[i] - this.ends[i - 1];
    return sum;
  }

  /** The box of the foreground: [x1, y1, x2, y2], far edges exclusive; null when the mask is empty. */
  bounds() {
    let box = null;
    this.eachRun((x, y1, y2) => {
      box ??= [x, y1, x + 1, y2];
      box = [box[0], Math.min(box[1], y1), x + 1, Math.max(box[3], y2)];
    });
    return box;
  }
}
