// The fields of "Sampling", read as options of a generation. Values are passed on as they are: the engine judges them.

import { element } from "./elements.js";

/** @import { Sampling } from "../protocol.js" */

const NUMBERS = {
  temperature: "temperature",
  topK: "top-k",
  topP: "top-p",
  seed: "seed",
  maxNewTokens: "max-new-tokens",
  minP: "min-p",
  repetitionPenalty: "repetition-penalty",
};

/**
 * @returns {Sampling} without a key for every empty field
 * @throws {Error} naming the field that holds something other than a number
 */
export function readSampling() {
  /** @type {Record<string, number | string[]>} */
  const options = {};
  for (const [key, id] of Object.entries(NUMBERS)) {
    const field = element(id, HTMLInputElement);
    if (field.validity.badInput) throw new Error(`${field.labels?.[0]?.textContent} is not a number`);
    if (field.value !== "") options[key] = field.valueAsNumber;
  }
  const stop = element("stop-strings", HTMLTextAreaElement).value.split("\n").filter((line) => line !== "");
  if (stop.length > 0) options.stop = stop;
  return options;
}

/** @param {number} seed that a run uses; seen in the field while that is empty */
export function showSeed(seed) {
  element("seed", HTMLInputElement).placeholder = `fresh: ${seed}`;
}
