/** Puts the page together. */

import { Annotator } from "./annotator.js";
import { Api } from "./api.js";
import { byId } from "./dom.js";
import { Editor } from "./editor.js";
import { download, toCoco, toMaskPng, toNumberedPng, toPolygons } from "./exporters.js";
import { KeyRing } from "./key.js";
import { listenToKeys } from "./keyboard.js";
import { Notices } from "./notices.js";
import { acceptPictures, listSamples } from "./opener.js";
import { Painter } from "./painter.js";
import { Panel } from "./panel.js";
import { Pointer } from "./pointer.js";
import { Preview } from "./preview.js";
import { Scene } from "./scene.js";
import { showCost, showModel } from "./status.js";
import { followTheme } from "./theme.js";
import { View } from "./view.js";
import { VocabularyChooser } from "./vocabulary.js";
import { Workspace } from "./workspace.js";

const stage = byId("stage");
const keys = new KeyRing({ dialog: byId("key-dialog"), field: byId("key"), note: byId("key-note") });
const api = new Api(keys);
const workspace = new Workspace();
const annotator = new Annotator({ api, workspace });
const notices = new Notices({ list: byId("notices"), spoken: byId("spoken") });
const view = new View();
const painter = new Painter({ picture: byId("picture"), overlay: byId("overlay"), view });
const scene = new Scene({ workspace, annotator });
const panel = new Panel({ workspace, annotator, scene });
const showPreview = () => {
  scene.preview = preview.shape;
  painter.repaintOverlay();
};
const preview = new Preview({ annotator, workspace, onChange: showPreview });
const gestures = {};
const pointer = new Pointer({ stage, view, gestures });
const editor = new Editor({ workspace, annotator, notices, view, painter, scene, panel, preview, pointer });
const vocabulary = new VocabularyChooser({
  api,
  use: (words) => annotator.useWords(words),
  choose: (name) => editor.rename(name),
});

Object.assign(gestures, {
  click: (at, label) => editor.click(at, label),
  box: (corners) => editor.box(corners),
  drawing: (corners) => editor.draw(corners),
  hover: (at) => editor.hover(at),
});
painter.scene = () => scene.describe();

annotator.addEventListener("change", () => editor.refresh());
annotator.addEventListener("image", () => editor.refresh());
annotator.addEventListener("problem", ({ detail }) => notices.problem(detail));
annotator.addEventListener("wait", ({ detail }) => notices.tell({ title: "One moment", detail: detail.detail }));
annotator.addEventListener("answer", ({ detail }) => {
  preview.clear();
  showCost(detail);
  editor.speak(detail.reply.results[0]);
});

const open = (blob, name) => {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  editor.open(blob, name);
};
const fail = (error) => notices.problem(error);
acceptPictures({ input: byId("file"), open, fail });
for (const into of document.querySelectorAll(".samples")) listSamples({ into, chosen: open, fail });

listenToKeys({ stage, run: (command, argument) => editor.run(command, argument) });
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-command]");
  if (button) editor.run(button.dataset.command);
});
for (const button of document.querySelectorAll("[data-opens]")) {
  button.addEventListener("click", () => byId(button.dataset.opens).showModal());
}
for (const button of document.querySelectorAll("[data-picks-file]")) {
  button.addEventListener("click", () => byId("file").click());
}

const exporters = {
  coco: () => toCoco(annotator.image, scene.items()),
  polygons: () => toPolygons(annotator.image, scene.items()),
  numbered: () => toNumberedPng(annotator.image, scene.items()),
  mask: () => toMaskPng(annotator.image, editor.activeItem()),
};
for (const button of document.querySelectorAll("[data-export]")) {
  button.addEventListener("click", async () => download(await exporters[button.dataset.export]()));
}

byId("own-name").addEventListener("input", async ({ target }) => {
  const { found } = target.value.trim() ? await vocabulary.suggest(target.value) : { found: [] };
  const options = found.slice(0, 12).map((name) => Object.assign(document.createElement("option"), { value: name }));
  byId("name-suggestions").replaceChildren(...options);
});

const narrow = matchMedia("(max-width: 820px)");
const insets = () =>
  narrow.matches ? { top: 40, right: 6, bottom: 60, left: 6 } : { top: 48, right: 64, bottom: 68, left: 16 };
const observer = new ResizeObserver(([entry]) => {
  const { inlineSize: width, blockSize: height } = entry.contentBoxSize[0];
  const device = entry.devicePixelContentBoxSize?.[0];
  const deviceWidth = device?.inlineSize ?? Math.round(width * devicePixelRatio);
  const deviceHeight = device?.blockSize ?? Math.round(height * devicePixelRatio);
  if (width && height) painter.resize({ width, height, deviceWidth, deviceHeight, insets: insets() });
});
try {
  observer.observe(stage, { box: "device-pixel-content-box" }); // tells a move to a denser screen, too
} catch {
  observer.observe(stage); // Safari does not know that box
}

followTheme(byId("theme"));
editor.refresh();
try {
  const [[model]] = await Promise.all([api.models(), vocabulary.load()]);
  showModel(model);
} catch (error) {
  notices.problem(error, { label: "Reload", run: () => location.reload() });
}
document.documentElement.dataset.ready = "true";
