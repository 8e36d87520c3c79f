/** The annotated objects as files that other tools read. */

import { groupPolygons, traceRings } from "./outline.js";
import { encodePng, rgb } from "./png.js";

const MOST_NUMBERS = 255; // objects that one 8-bit picture can number

/**
 * @typedef {{name: string, score: number|null, colour: string, mask: import("./rle.js").Mask, area: number}} Item
 * @typedef {{name: string, width: number, height: number}} Picture
 */

/** COCO's annotation file; pycocotools loads it. @param {Picture} picture @param {Item[]} items */
export function toCoco(picture, items) {
  const names = [...new Set(items.map((item) => item.name))].sort();
  const document = {
    info: { description: "Annotated with Open-Vocabulary SAM", date_created: new Date().toISOString() },
    images: [{ id: 1, file_name: picture.name, width: picture.width, height: picture.height }],
    categories: names.map((name, index) => ({ id: index + 1, name })),
    annotations: items.map(({ name, score, mask, area }, index) => ({
      id: index + 1,
      image_id: 1,
      category_id: names.indexOf(name) + 1,
      segmentation: { size: [mask.height, mask.width], counts: mask.counts },
      bbox: boxOf(mask),
      area,
      iscrowd: 0,
      ...(score === null ? {} : { score }),
    })),
  };
  return jsonFile(document, `${stem(picture)}.coco.json`);
}

/** GeoJSON's features in pixels, y downwards: corners of pixels, so that the area is the number of pixels. */
export function toPolygons(picture, items) {
  const features = items.map(({ name, score, mask, area }, index) => ({
    type: "Feature",
    id: index + 1,
    properties: { name, score, area, bbox: boxOf(mask) },
    geometry: { type: "MultiPolygon", coordinates: groupPolygons(traceRings(mask)) },
  }));
  const { width, height } = picture;
  const document = { type: "FeatureCollection", image: { file_name: picture.name, width, height }, features };
  return jsonFile(document, `${stem(picture)}.polygons.geojson`);
}

/** One object in white on black. */
export async function toMaskPng(picture, item) {
  const palette = [[0, 0, 0], [255, 255, 255]];
  const blob = await encodePng({ ...paint(picture, [item]), palette });
  return { blob, name: `${stem(picture)}.${item.name.replace(/[^\p{L}\p{N}]+/gu, "-")}.png` };
}

/** All objects: the value of a pixel is the object's number in the list, 0 where there is none. */
export async function toNumberedPng(picture, items) {
  const numbered = items.slice(0, MOST_NUMBERS);
  const palette = [[0, 0, 0], ...numbered.map((item) => rgb(item.colour))];
  return { blob: await encodePng({ ...paint(picture, numbered), palette }), name: `${stem(picture)}.objects.png` };
}

/** Hand a file to the browser's downloads. */
export function download({ blob, name }) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function paint({ width, height }, items) {
  const pixels = new Uint8Array(width * height);
  for (const [index, item] of items.entries()) {
    item.mask.eachRun((x, y1, y2) => {
      for (let y = y1; y < y2; y++) pixels[y * width + x] = index + 1;
    });
  }
  return { width, height, pixels };
}

/** COCO's box: [x, y, width, height]. */
function boxOf(mask) {
  const [x1, y1, x2, y2] = mask.bounds();
  return [x1, y1, x2 - x1, y2 - y1];
}

function jsonFile(document, name) {
  return { blob: new Blob([JSON.stringify(document, null, 1)], { type: "application/json" }), name };
}

function stem(picture) {
  return picture.name.replace(/\.[^.]*$/, "");
}
