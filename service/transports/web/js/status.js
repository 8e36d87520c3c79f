/** What the last answer cost: stages of the service, cache, bytes sent, and the whole way there and back. */

import { byId, element } from "./dom.js";

const STAGES = {
  fetch: "Find the embedding",
  encode: "Encode the picture",
  queue: "Wait in the queue",
  decode: "Decode the mask",
  label: "Choose names",
  render: "Render the mask",
};
const CACHES = {
  memory: "embedding from memory",
  redis: "embedding from Redis",
  miss: "picture encoded",
  coalesced: "shared an encoding under way",
};

/** @param {{reply: object, sentBytes: number, roundTrip: number}} cost */
export function showCost({ reply, sentBytes, roundTrip }) {
  const cache = CACHES[reply.cache] ?? reply.cache;
  byId("cost-line").textContent = `${milliseconds(roundTrip)} · ${cache} · ${bytes(sentBytes)} sent`;
  byId("cost-chip").textContent = `${milliseconds(roundTrip)} · ${reply.cache}`;
  byId("cost-chip").title = byId("cost-line").textContent;
  byId("cost-chip").hidden = false;
  const order = Object.keys(STAGES);
  const stages = Object.entries(reply.timing_ms).sort(([a], [b]) => order.indexOf(a) - order.indexOf(b));
  const longest = Math.max(...stages.map(([, spent]) => spent), 1);
  byId("stages").replaceChildren(...stages.map(([stage, spent]) => row(STAGES[stage] ?? stage, spent, spent / longest)));
  const inside = stages.reduce((sum, [, spent]) => sum + spent, 0);
  byId("stages").append(row("Network and browser", Math.max(roundTrip - inside, 0), null));
  byId("no-cost").hidden = true;
}

/** @param {{name: string, revision: string, precision: string, licence: string}} model */
export function showModel(model) {
  const chip = byId("model");
  chip.textContent = model.name;
  chip.title = `Revision ${model.revision.slice(0, 12)}, ${model.precision}, ${model.licence}`;
  chip.hidden = false;
}

function row(label, spent, share) {
  const bar = element("span", { class: "bar" }, element("span", { class: "bar-fill" }));
  bar.firstChild.style.width = share === null ? "0" : `${share * 100}%`;
  const texts = [element("span", {}, label), element("span", { class: "stage-time" }, milliseconds(spent))];
  return element("li", {}, ...texts, bar);
}

function milliseconds(spent) {
  return spent >= 1000 ? `${(spent / 1000).toFixed(1)} s` : `${spent.toFixed(spent < 10 ? 1 : 0)} ms`;
}

function bytes(size) {
  return size < 1024 ? `${size} B` : `${(size / 1024).toFixed(1)} kB`;
}
