/** The exact outline of a mask: closed rings along the edges between pixels, and smooth paths to draw them. */

// Directions east, south, west, north: a ring keeps its foreground on the right, so outlines run clockwise on the
// screen and holes the other way.
const STEP_X = [1, 0, -1, 0];
const STEP_Y = [0, 1, 0, -1];

/**
 * Rings of corner coordinates. Pixels that only touch at a corner belong to different rings.
 * @param {import("./rle.js").Mask} mask
 * @returns {{points: number[][], hole: boolean}[]} points are [x, y], not repeated at the end
 */
export function traceRings(mask) {
  const bounds = mask.bounds();
  if (!bounds) return [];
  const grid = new Grid(mask, bounds);
  const rings = [];
  for (let y = 0; y < grid.height; y++) {
    for (let x = 0; x < grid.width; x++) {
      if (grid.isFresh(x, y)) rings.push(grid.follow(x, y));
    }
  }
  return rings;
}

/** Rings as GeoJSON's polygons: an outline with its holes, each ring closed. */
export function groupPolygons(rings) {
  const outlines = rings.filter((ring) => !ring.hole).map((ring) => ({ ring, area: Math.abs(areaOf(ring.points)) }));
  outlines.sort((a, b) => a.area - b.area);
  const polygons = new Map(outlines.map(({ ring }) => [ring, [close(ring.points)]]));
  for (const hole of rings.filter((ring) => ring.hole)) {
    const [x, y] = hole.points[0];
    const around = outlines.find(({ ring }) => contains(ring.points, x, y, hole.points[1]));
    if (around) polygons.get(around.ring).push(close(hole.points));
  }
  return [...polygons.values()];
}

/** A path through the middles of the rings' unit edges: at most half a pixel off, and without stairs. */
export function smoothPath(rings) {
  const path = new Path2D();
  for (const { points } of rings) {
    let move = true;
    for (let i = 0; i < points.length; i++) {
      const [x1, y1] = points[i];
      const [x2, y2] = points[(i + 1) % points.length];
      const [dx, dy] = [Math.sign(x2 - x1) / 2, Math.sign(y2 - y1) / 2];
      if (move) path.moveTo(x1 + dx, y1 + dy);
      else path.lineTo(x1 + dx, y1 + dy);
      path.lineTo(x2 - dx, y2 - dy);
      move = false;
    }
    path.closePath();
  }
  return path;
}

/** Twice-halved shoelace: positive for outlines, negative for holes (y runs down). */
export function areaOf(points) {
  let sum = 0;
  for (let i = 0; i < points.length; i++) {
    const [x1, y1] = points[i];
    const [x2, y2] = points[(i + 1) % points.length];
    sum += x1 * y2 - x2 * y1;
  }
  return sum / 2;
}

/** The part of a mask in its box, with a frame of background around it. */
class Grid {
  constructor(mask, [left, top, right, bottom]) {
    this.left = left;
    this.top = top;
    this.width = right - left;
    this.height = bottom - top;
    this.row = this.width + 2;
    this.pixels = new Uint8Array(this.row * (this.height + 2)); // 1 foreground, 2 and its upper edge is in a ring
    mask.eachRun((x, y1, y2) => {
      for (let y = y1; y < y2; y++) this.pixels[(y - top + 1) * this.row + x - left + 1] = 1;
    });
  }

  at(x, y) {
    return this.pixels[(y + 1) * this.row + x + 1] !== 0;
  }

  /** Whether an upper edge begins here that no ring has taken yet; every ring has such an edge. */
  isFresh(x, y) {
    return this.pixels[(y + 1) * this.row + x + 1] === 1 && !this.at(x, y - 1);
  }

  follow(startX, startY) {
    const points = [];
    let [x, y, direction] = [startX, startY, 0];
    do {
      if (direction === 0) this.pixels[(y + 1) * this.row + x + 1] = 2;
      x += STEP_X[direction];
      y += STEP_Y[direction];
      const next = this.#turn(x, y, direction);
      if (next !== direction) points.push([x + this.left, y + this.top]);
      direction = next;
    } while (x !== startX || y !== startY || direction !== 0);
    return { points, hole: areaOf(points) < 0 };
  }

  #turn(x, y, direction) {
    const right = (direction + 1) % 4;
    // the pixels ahead of the corner (x, y), to the right and to the left of the way
    const aheadX = x + Math.min(0, STEP_X[direction] + STEP_X[right]);
    const aheadY = y + Math.min(0, STEP_Y[direction] + STEP_Y[right]);
    if (!this.at(aheadX, aheadY)) return right;
    if (!this.at(aheadX - STEP_X[right], aheadY - STEP_Y[right])) return direction;
    return (direction + 3) % 4;
  }
}

function close(points) {
  return [...points, points[0]];
}

/** Whether the middle of the edge from (x, y) to `next`, moved a little into the hole, lies within the ring. */
function contains(points, x, y, next) {
  const [dx, dy] = [Math.sign(next[0] - x), Math.sign(next[1] - y)];
  const px = x + dx / 2 + dy / 4; // a hole runs counter-clockwise: it lies on the left, (dy, -dx)
  const py = y + dy / 2 - dx / 4;
  let inside = false;
  for (let i = 0, j = points.length - 1; i < points.length; j = i++) {
    const [x1, y1] = points[i];
    const [x2, y2] = points[j];
    if (y1 > py !== y2 > py && px < ((x2 - x1) * (py - y1)) / (y2 - y1) + x1) inside = !inside;
  }
  return inside;
}
