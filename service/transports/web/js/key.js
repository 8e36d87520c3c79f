/** The API key of this page: asked for once the service wants one, kept as long as the tab, sent to the service alone. */

const PLACE = "ovsam-key";

export class KeyRing {
  #dialog;
  #field;
  #note;
  #asking = null;

  /** @param {{dialog: HTMLDialogElement, field: HTMLInputElement, note: HTMLElement}} parts */
  constructor({ dialog, field, note }) {
    this.#dialog = dialog;
    this.#field = field;
    this.#note = note;
  }

  /** The key to send, or null. */
  get key() {
    return sessionStorage.getItem(PLACE);
  }

  /** Another key than `refused`: false when the person has none. However many calls ask, the person is asked once. */
  async replace(refused) {
    if (this.key !== refused) return true;
    this.#asking ??= this.#ask(refused !== null).finally(() => (this.#asking = null));
    return this.#asking;
  }

  #ask(again) {
    this.#note.textContent = again ? "That key is not valid, or is no longer." : "The people who run it give you one.";
    this.#field.value = "";
    this.#dialog.returnValue = "";
    this.#dialog.showModal();
    return new Promise((resolve) => {
      const answer = () => {
        const key = this.#field.value.trim();
        const given = this.#dialog.returnValue === "use" && key !== "";
        if (given) sessionStorage.setItem(PLACE, key);
        this.#field.value = "";
        resolve(given);
      };
      this.#dialog.addEventListener("close", answer, { once: true });
    });
  }
}
