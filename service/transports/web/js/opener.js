/** The ways a picture comes in: file dialog, drop, paste, samples. */

import { element } from "./dom.js";
import { SAMPLES } from "./samples.js";

/** @param {{input: HTMLInputElement, open: (blob: Blob, name: string) => void, fail: (error: Error) => void}} parts */
export function acceptPictures({ input, open, fail }) {
  input.addEventListener("change", () => {
    if (input.files.length) open(input.files[0], input.files[0].name);
    input.value = "";
  });
  document.addEventListener("paste", (event) => {
    const file = pictureIn(event.clipboardData);
    if (!file) return;
    event.preventDefault();
    open(file, file.name || "pasted.png");
  });
  acceptDrops({ open, fail });
}

function acceptDrops({ open, fail }) {
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dropping", depth > 0);
  };
  document.addEventListener("dragenter", (event) => isForUs(event) && mark(1));
  document.addEventListener("dragleave", (event) => isForUs(event) && mark(-1));
  document.addEventListener("dragover", (event) => isForUs(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!isForUs(event)) return;
    event.preventDefault();
    mark(-depth);
    const file = event.dataTransfer.files[0];
    if (file) open(file, file.name);
    else fail({ title: "That was no file", detail: "Drop a picture file here, or paste a copied picture." });
  });
}

function isForUs(event) {
  return event.dataTransfer?.types.includes("Files");
}

function pictureIn(clipboard) {
  return [...(clipboard?.files ?? [])].find((file) => file.type.startsWith("image/"));
}

/** Buttons with the sample pictures; `chosen` is called with a picture's bytes and name. */
export function listSamples({ into, chosen, fail }) {
  for (const { file, title, credit } of SAMPLES) {
    const address = new URL(`samples/${file}`, document.baseURI);
    const fetchSample = async () => {
      try {
        const response = await fetch(address);
        if (!response.ok) throw new Error(`The sample is missing (${response.status}).`);
        chosen(await response.blob(), file);
      } catch (error) {
        fail(error);
      }
    };
    const picture = element("img", { src: address.href, alt: "", loading: "lazy", width: 132, height: 92 });
    const caption = element("span", { class: "sample-title" }, title, element("small", {}, credit));
    into.append(element("button", { class: "sample", type: "button", onclick: fetchSample }, picture, caption));
  }
}
