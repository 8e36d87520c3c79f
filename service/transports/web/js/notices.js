/** Short messages at the foot of the stage; problems stay until they are read, the rest goes by itself. */

import { element, icon } from "./dom.js";

const SHOWN = 6000; // milliseconds

export class Notices {
  #list;
  #spoken;

  /** @param {{list: HTMLElement, spoken: HTMLElement}} parts `spoken` is read out by screen readers, not shown */
  constructor({ list, spoken }) {
    this.#list = list;
    this.#spoken = spoken;
  }

  /** Say something to screen readers alone. */
  speak(text) {
    this.#spoken.textContent = text;
  }

  /** @param {{title: string, detail?: string, action?: {label: string, run: () => void}, key?: string}} message */
  tell({ title, detail = "", action, key = title }) {
    const notice = this.#show({ title, detail, action, key, kind: "note" });
    setTimeout(() => notice.remove(), SHOWN);
    return notice;
  }

  /** A failure, in words for people. */
  problem(error, action) {
    const title = error.title ?? "Something went wrong on this page";
    const detail = [sentence(error.detail || error.message), error.advice].filter(Boolean).join(" ");
    const small = error.requestId ? `Request ${error.requestId}` : "";
    return this.#show({ title, detail, small, action, key: title, kind: "problem" });
  }

  #show({ title, detail, small, action, key, kind }) {
    for (const old of this.#list.querySelectorAll("[data-key]")) if (old.dataset.key === key) old.remove();
    const words = element("div", { class: "notice-words" }, element("strong", {}, title));
    if (detail) words.append(element("span", {}, detail));
    if (small) words.append(element("small", {}, small));
    const role = kind === "problem" ? "alert" : "status";
    const notice = element("div", { class: `notice ${kind}`, role, "data-key": key }, words);
    if (action) {
      const run = () => {
        notice.remove();
        action.run();
      };
      notice.append(element("button", { class: "button small", type: "button", onclick: run }, action.label));
    }
    const close = { class: "icon-button", type: "button", "aria-label": "Dismiss", onclick: () => notice.remove() };
    notice.append(element("button", close, icon("close")));
    this.#list.append(notice);
    return notice;
  }
}

function sentence(text = "") {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) || !first ? first : `${first}.`;
}
