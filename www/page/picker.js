// The combobox "Model": the catalogue, the files that were opened last, and an entry for "nothing is loaded".

import { CATALOG } from "../catalog.js";
import { element } from "./elements.js";
import { formatBytes } from "./format.js";

/** @import { Source } from "../protocol.js" */

/** @typedef {{ id: string, name: string, source: Source }} Choice */

const NONE = "";

/** The id of opened files. */
export const FILES = "files";

export class Picker {
  #select = element("model", HTMLSelectElement);
  /** @type {Map<string, Choice>} */
  #choices = new Map();

  /** @param {(choice: Choice) => void} onChoice */
  constructor(onChoice) {
    this.#select.append(option(NONE, "No model is loaded"));
    for (const { downloadBytes, ...choice } of CATALOG) {
      const note = downloadBytes === 0 ? "built in" : `${formatBytes(downloadBytes)} to download`;
      this.#add(choice, `${choice.name}, ${note}`);
    }
    this.show(null);
    this.#select.addEventListener("change", () => {
      const choice = this.#choices.get(this.#select.value);
      if (choice) onChoice(choice);
    });
  }

  /** What the page opens with. */
  get first() {
    return /** @type {Choice} */ (this.#choices.values().next().value);
  }

  /**
   * Shows what is loaded or being loaded. Opened files become a choice of their own, in place of those opened before.
   *
   * @param {Choice | null} choice
   */
  show(choice) {
    if (choice?.id === FILES && this.#choices.get(FILES) !== choice) {
      this.#forgetFiles();
      this.#add(choice, `${choice.name}, your files`);
    }
    this.#select.value = choice?.id ?? NONE;
    const none = this.#select.options[0];
    if (none) none.hidden = choice !== null;
  }

  /** @param {Choice} choice that was refused: files that are no model are not offered again */
  refuse(choice) {
    if (this.#choices.get(FILES) === choice) this.#forgetFiles();
  }

  #forgetFiles() {
    this.#choices.delete(FILES);
    this.#select.querySelector(`option[value="${FILES}"]`)?.remove();
  }

  /**
   * @param {Choice} choice
   * @param {string} label
   */
  #add(choice, label) {
    this.#choices.set(choice.id, choice);
    this.#select.append(option(choice.id, label));
  }
}

/**
 * @param {string} value
 * @param {string} label
 */
function option(value, label) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = label;
  return made;
}
