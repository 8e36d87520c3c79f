/** The words that names are chosen from: a vocabulary of the service, or one's own. */

import { byId, count, element } from "./dom.js";

const OWN = "own words";
const SHOWN = 40; // names listed of those that a search finds
const PAUSE = 500; // milliseconds after the last key before own words are used
const STORE = "ovsam.words";

export class VocabularyChooser {
  #api;
  #use;
  #choose;
  #select = byId("vocabulary");
  #search = byId("vocabulary-search");
  #words = byId("own-words");
  #known = new Map(); // vocabulary name -> promise of its description
  #timer = 0;

  /** @param {{api: object, use: (words: object) => void, choose: (name: string) => void}} parts */
  constructor({ api, use, choose }) {
    this.#api = api;
    this.#use = use;
    this.#choose = choose;
    this.#select.addEventListener("change", () => this.#changed());
    this.#search.addEventListener("input", () => this.#list());
    this.#words.value = remembered();
    this.#words.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#changed(), PAUSE);
    });
  }

  /** Fill the list; the model's default comes chosen. */
  async load() {
    const { default: chosen, vocabularies } = await this.#api.vocabularies();
    const label = (name) => (name === chosen ? `${name} (default)` : name);
    const options = vocabularies.map((name) => element("option", { value: name }, label(name)));
    this.#select.replaceChildren(...options, element("option", { value: OWN }, "My own words…"));
    this.#select.value = chosen;
    await this.#describe();
  }

  /** Names that begin with or contain a text, best first; for suggestions while one types. */
  async suggest(text) {
    const names = await this.#names();
    const wanted = text.trim().toLowerCase();
    const found = names.filter((name) => name.toLowerCase().includes(wanted));
    const rank = (name) => (name.toLowerCase().startsWith(wanted) ? 0 : 1);
    return { found: found.sort((a, b) => rank(a) - rank(b) || a.length - b.length), total: names.length };
  }

  #ownWords() {
    return [...new Set(this.#words.value.split(/[,;\n]/).map((word) => word.trim()).filter(Boolean))];
  }

  #changed() {
    const isOwn = this.#select.value === OWN;
    byId("own-words-field").hidden = !isOwn;
    byId("search-field").hidden = isOwn;
    remember(this.#words.value);
    const words = this.#ownWords();
    if (!isOwn) this.#use({ vocabulary: this.#select.value });
    else if (words.length) this.#use({ names: words });
    else this.#words.focus();
    this.#describe();
  }

  async #describe() {
    const about = byId("vocabulary-about");
    if (this.#select.value === OWN) {
      const words = this.#ownWords();
      about.textContent = words.length ? `${count(words.length)} words of your own` : "Type words, divided by commas.";
      return;
    }
    about.textContent = "";
    const { title, size, licence } = await this.#vocabulary();
    const plain = title.replace(/\s*\([\d,]+\)$/, ""); // the size is told anyway
    about.textContent = [`${count(size)} names`, plain, licence].filter(Boolean).join(" · ");
    this.#list();
  }

  async #list() {
    const list = byId("vocabulary-names");
    const text = this.#search.value;
    if (!text.trim()) {
      list.replaceChildren();
      byId("search-result").textContent = "";
      return;
    }
    const { found } = await this.suggest(text);
    if (text !== this.#search.value) return;
    const shown = found.length > SHOWN ? `, ${SHOWN} shown` : "";
    byId("search-result").textContent = `${found.length ? count(found.length) : "no"} names${shown}`;
    list.replaceChildren(
      ...found.slice(0, SHOWN).map((name) => {
        const onclick = () => this.#choose(name);
        const button = { class: "chip", type: "button", title: "Name the selected object so", onclick };
        return element("li", {}, element("button", button, name));
      }),
    );
  }

  async #names() {
    return this.#select.value === OWN ? this.#ownWords() : (await this.#vocabulary()).names;
  }

  #vocabulary() {
    const name = this.#select.value;
    if (!this.#known.has(name)) {
      const found = this.#api.vocabulary(name);
      found.catch(() => this.#known.delete(name));
      this.#known.set(name, found);
    }
    return this.#known.get(name);
  }
}

function remembered() {
  try {
    return localStorage.getItem(STORE) ?? "";
  } catch {
    return ""; // storage may be forbidden; the words then live as long as the page
  }
}

function remember(words) {
  try {
    localStorage.setItem(STORE, words);
  } catch {
    // as above
  }
}
