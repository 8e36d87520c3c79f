/** The service's REST interface; every failure is one Problem, with words for the person at the page. */

const RETRIES = 12; // a large vocabulary is embedded on first use: the service says how far it is, and we ask again
const LONGEST_WAIT = 10; // seconds

const ADVICE = {
  "image-unknown": "Open the picture again.",
  "not-an-image": "JPEG, PNG, WebP, TIFF, BMP and GIF can be read.",
  "too-large": "Try a smaller version of the picture.",
  unauthorized: "Reload the page to enter a key.",
  "rate-limited": "Please wait a moment.",
  overloaded: "Many people are asking just now. Please try again in a moment.",
  "backend-unavailable": "The model is restarting. Please try again in a moment.",
  deadline: "Please try again.",
};

/** What went wrong, as the service (RFC 9457) or the network says it. */
export class Problem extends Error {
  constructor({ status = 0, title, detail = "", code = "", request_id = "" }, retryAfter = 0) {
    super(detail || title);
    Object.assign(this, { status, title, detail, code, requestId: request_id, retryAfter });
    this.advice = ADVICE[code] ?? "";
  }
}

/** @typedef {{onWait?: (problem: Problem) => void, signal?: AbortSignal}} Patience */

export class Api {
  #base;
  #keys;

  /** @param {import("./key.js").KeyRing} keys */
  constructor(keys, base = new URL(".", document.baseURI)) {
    this.#keys = keys;
    this.#base = base;
  }

  /** Whether the service keeps (or is making) the embedding of this image. */
  async isKnown(digest) {
    const response = await this.#fetch(`v1/images/${digest}`, { method: "HEAD", headers: about(digest) });
    if (response.ok || response.status === 404) return response.ok;
    throw await problemOf(response);
  }

  /** Send an image's bytes; resolves when it is embedded. `digest` is null where the browser could not compute it. */
  async upload(blob, digest, patience = {}) {
    const headers = { "content-type": "application/octet-stream", ...about(digest) };
    return (await this.#ask("v1/images", { method: "POST", body: blob, headers }, patience)).json();
  }

  /** Masks and names; the answer comes with what it cost: bytes sent and the round trip in milliseconds. */
  async segment(body, patience = {}) {
    const text = JSON.stringify(body);
    const started = performance.now();
    const response = await this.#ask("v1/segment", jsonPost(text, body.image), patience);
    const reply = await response.json();
    return { reply, sentBytes: new Blob([text]).size, roundTrip: performance.now() - started };
  }

  /** Every object of an image, as the service finds them: yields the head of the reply, then one result a time. */
  async *everything(body, patience = {}) {
    const request = jsonPost(JSON.stringify(body), body.image, "application/x-ndjson");
    const response = await this.#ask("v1/segment/everything", request, patience);
    for await (const line of linesOf(response.body)) {
      const item = JSON.parse(line);
      if (item.done === false) throw new Problem({ title: "Not everything was found", ...item.error });
      if (item.done) return;
      yield item;
    }
    throw new Problem({ title: "The answer broke off", detail: "The connection ended before the last object." });
  }

  async models() {
    return (await (await this.#ask("v1/models")).json()).models;
  }

  async vocabularies() {
    return (await this.#ask("v1/vocabularies")).json();
  }

  async vocabulary(name) {
    return (await this.#ask(`v1/vocabularies/${encodeURIComponent(name)}`)).json();
  }

  async #ask(path, options = {}, { onWait, signal } = {}) {
    for (let attempt = 1; ; attempt++) {
      const response = await this.#fetch(path, { ...options, signal });
      if (response.ok) return response;
      const problem = await problemOf(response);
      if (!problem.retryAfter || attempt === RETRIES) throw problem;
      onWait?.(problem);
      await pause(Math.min(problem.retryAfter, LONGEST_WAIT) * 1000, signal);
    }
  }

  /** Any answer but "which key?", which is asked of the person at the page. */
  async #fetch(path, options) {
    for (;;) {
      const { key } = this.#keys;
      const headers = key === null ? options.headers : { ...options.headers, "x-api-key": key };
      const response = await this.#send(path, { ...options, headers });
      if (response.status !== 401 || !(await this.#keys.replace(key))) return response;
    }
  }

  async #send(path, options) {
    try {
      return await fetch(new URL(path, this.#base), options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      const detail = "Is it running, and is this computer on the network?";
      throw new Problem({ title: "The service cannot be reached", detail, code: "unreachable" });
    }
  }
}

function jsonPost(text, digest, accept = "application/json") {
  return { method: "POST", body: text, headers: { "content-type": "application/json", accept, ...about(digest) } };
}

/** The header by which a load balancer keeps an image's calls on one gateway; the service itself reads the body. */
function about(digest) {
  return digest ? { "x-image-digest": digest } : {};
}

async function problemOf(response) {
  const fallback = { status: response.status, title: `The service answered ${response.status}` };
  const body = await response.json().catch(() => ({}));
  return new Problem({ ...fallback, ...body }, Number(response.headers.get("retry-after")) || 0);
}

async function* linesOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      yield* lines.filter(Boolean);
    }
    if (rest.trim()) yield rest;
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("given up", "AbortError"));
    });
  });
}
