/** The list of objects and the names of the selected one. */

import { byId, count, element, icon, percent } from "./dom.js";

export class Panel {
  #workspace;
  #annotator;
  #scene;
  #list = byId("objects");
  #names = byId("names");
  #ownName = byId("own-name");

  constructor({ workspace, annotator, scene }) {
    this.#workspace = workspace;
    this.#annotator = annotator;
    this.#scene = scene;
    byId("rename").addEventListener("submit", (event) => {
      event.preventDefault();
      const name = this.#ownName.value.trim();
      if (name && workspace.active) workspace.rename(workspace.active.id, name);
      this.#ownName.value = "";
      this.#ownName.blur();
    });
  }

  /** Name the selected object after its `place`-th best name. */
  choose(place) {
    const active = this.#workspace.active;
    const found = active && this.#annotator.answerOf(active.prompt)?.classes[place];
    if (found) this.#workspace.rename(active.id, found.name);
  }

  /** Put the cursor where a name is typed. */
  editName() {
    if (this.#workspace.active) this.#ownName.focus();
  }

  render() {
    const key = document.activeElement?.dataset?.key;
    this.#renderObjects();
    this.#renderActive();
    if (key) document.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
  }

  #renderObjects() {
    const { objects, contents } = this.#workspace;
    byId("object-count").textContent = objects.length ? count(objects.length) : "";
    byId("no-objects").hidden = objects.length > 0;
    byId("clear").hidden = objects.length === 0;
    this.#list.replaceChildren(...objects.map((object, index) => this.#row(object, index, contents.active === object.id)));
    for (const button of document.querySelectorAll("[data-needs-objects]")) button.disabled = !this.#scene.items().length;
    this.#list.querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest" });
  }

  #row(object, index, isActive) {
    const answer = this.#annotator.answerOf(object.prompt);
    const name = this.#scene.nameOf(object);
    const score = answer?.classes.find((found) => found.name === name)?.score;
    const busy = this.#annotator.isAsking(object.prompt);
    const side = busy ? element("span", { class: "spinner" }) : stateOf(object, answer, score);
    const row = element(
      "button",
      {
        class: "object-row",
        type: "button",
        "data-key": `select-${object.id}`,
        "aria-current": String(isActive),
        onclick: () => this.#workspace.select(isActive ? "new" : object.id),
      },
      swatch(object.colour, index + 1),
      element("span", { class: "object-name" }, name),
      side,
    );
    const remove = element("button", {
      class: "icon-button",
      type: "button",
      "data-key": `remove-${object.id}`,
      "aria-label": `Delete ${name}, object ${index + 1}`,
      onclick: () => this.#workspace.remove(object.id),
    }, icon("trash"));
    return element("li", {}, row, remove);
  }

  #renderActive() {
    const active = this.#workspace.active;
    byId("selected").hidden = !active;
    byId("nothing-selected").hidden = Boolean(active);
    if (!active) return;
    const answer = this.#annotator.answerOf(active.prompt);
    const name = this.#scene.nameOf(active);
    byId("selected-name").replaceChildren(swatch(active.colour), element("span", {}, name));
    byId("selected-hand").hidden = active.name === null;
    this.#names.replaceChildren(...(answer?.classes ?? []).map((found, place) => this.#nameRow(found, place, name)));
    this.#names.classList.toggle("waiting", this.#annotator.isAsking(active.prompt));
    this.#renderFacts(active, answer);
  }

  #nameRow({ name, score }, place, chosen) {
    const bar = element("span", { class: "bar" }, element("span", { class: "bar-fill" }));
    bar.firstChild.style.width = `${Math.max(score * 100, 0.5)}%`;
    return element(
      "li",
      {},
      element(
        "button",
        {
          class: "name-row",
          type: "button",
          "data-key": `name-${place}`,
          "aria-pressed": String(name === chosen),
          onclick: () => this.choose(place),
        },
        element("kbd", { "aria-hidden": "true" }, String(place + 1)),
        element("span", { class: "name-text" }, name),
        element("span", { class: "name-score" }, percent(score)),
        bar,
      ),
    );
  }

  #renderFacts(object, answer) {
    const note = byId("selected-note");
    note.replaceChildren();
    if (answer?.error) {
      const retry = { class: "button small", type: "button", onclick: () => this.#annotator.retry(object.prompt) };
      note.append(answer.error.title, " ", element("button", retry, "Try again"));
    } else if (answer && !answer.area && !this.#annotator.isAsking(object.prompt)) {
      note.append("Nothing was found here. Click nearer to the middle of the object, or drag a box around it.");
    }
    const facts = byId("facts");
    facts.replaceChildren();
    if (!answer?.area) return;
    const { width, height } = this.#annotator.image;
    const [x1, y1, x2, y2] = answer.bbox.map(Math.round);
    fact(facts, "Area", `${count(answer.area)} px · ${percent(answer.area / (width * height))}`);
    fact(facts, "Box", `${x2 - x1} × ${y2 - y1} at ${x1}, ${y1}`);
    fact(facts, "Stability", answer.stability.toFixed(2));
  }
}

function stateOf(object, answer, score) {
  if (answer?.error) return element("span", { class: "object-score failed" }, "failed");
  if (object.name !== null && score === undefined) return element("span", { class: "object-score" }, "by hand");
  return element("span", { class: "object-score" }, score === undefined ? "" : percent(score));
}

function swatch(colour, number = "") {
  const node = element("span", { class: "swatch", "aria-hidden": "true" }, String(number));
  node.style.background = colour;
  return node;
}

function fact(list, term, text) {
  list.append(element("dt", {}, term), element("dd", {}, text));
}
