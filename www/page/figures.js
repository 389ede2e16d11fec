// The figures of the page: the meters below the text, and what is known of the model.

import { element, setText } from "./elements.js";
import { formatBytes, formatCount, formatDuration, formatSpeed } from "./format.js";

/** @import { Build, GenerationResult, Model } from "../protocol.js" */

/**
 * @param {Model | null} model
 * @param {Build} build
 */
export function showModel(model, build) {
  setText("meter-memory", model ? formatBytes(model.memory.wasm) : "–");
  setText("meter-kernel", model?.kernel ?? build.kernel);
  setText("meter-build", `${build.name}, ${build.version}`);
  const facts = model ? factsOf(model) : [["Model", "none is loaded"]];
  element("facts", HTMLElement).replaceChildren(...facts.flatMap(([term, value]) => [row("dt", term), row("dd", value)]));
}

/**
 * @param {Model} model
 * @returns {[string, string][]}
 */
function factsOf(model) {
  const { memory, ignored } = model;
  return [
    ["Architecture", model.architecture],
    ["Parameters", formatCount(model.parameters)],
    ["Layers", String(model.layers)],
    ["Context", `${formatCount(model.context)} tokens`],
    ["Vocabulary", `${formatCount(model.vocabulary)} tokens`],
    ["Precision", model.precision],
    ["Weights", formatBytes(memory.weights)],
    ["Cache", formatBytes(memory.cache)],
    ["Scratch", formatBytes(memory.scratch)],
    ["Tokenizer", formatBytes(memory.tokenizer)],
    ["Tensors ignored", ignored.length === 0 ? "none" : listing(ignored)],
  ];
}

/** @param {string[]} names */
function listing(names) {
  const shown = names.slice(0, 3).join(", ");
  return names.length > 3 ? `${names.length}: ${shown}, …` : shown;
}

/**
 * @param {"dt" | "dd"} tag
 * @param {string | undefined} text
 */
function row(tag, text) {
  const cell = document.createElement(tag);
  cell.textContent = text ?? "";
  return cell;
}

/** The meters of a run while it goes, and their final values. */
export class Meters {
  #startedAt = performance.now();
  #firstAt = 0;
  #written = 0;

  constructor() {
    setText("meter-speed", "–");
    setText("meter-first", "–");
    setText("meter-prompt", "–");
    setText("meter-written", "–");
  }

  /** @param {number} tokens */
  prompt(tokens) {
    setText("meter-prompt", count(tokens));
  }

  /** A token came. */
  tick() {
    const now = performance.now();
    if (this.#written++ === 0) {
      this.#firstAt = now;
      setText("meter-first", formatDuration(now - this.#startedAt));
    }
    setText("meter-written", count(this.#written));
    setText("meter-speed", formatSpeed(((this.#written - 1) * 1000) / (now - this.#firstAt)));
  }

  /** @param {GenerationResult} result */
  end({ decode, tokens, timeToFirstTokenMs }) {
    setText("meter-first", formatDuration(timeToFirstTokenMs));
    setText("meter-written", count(tokens.length));
    setText("meter-speed", formatSpeed(decode.tokensPerSecond));
  }
}

/** @param {number} tokens */
const count = (tokens) => `${tokens} ${tokens === 1 ? "token" : "tokens"}`;
