// A GPT-2 of random weights in its published size and layout: speed needs no trained ones. The same seed gives the same
// bytes, so every engine that is compared gets the same model.
//
// Usage: node weights.mjs FOLDER

import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gpt2Shapes, safetensorsHeader, withVocabulary } from "../checkpoints.mjs";

/** To be raised whenever the bytes change: files that were made with another one are made again. */
export const RECIPE = 2;

export const GPT2 = { layers: 12, hidden: 768, context: 1024, vocabulary: 50257 };

/**
 * A tensor as the published file holds it: matrices are `[in, out]`, but for the tables.
 *
 * @typedef {{ name: string, shape: number[], values: Float32Array<ArrayBuffer> }} Tensor
 */

/**
 * Every tensor of the model, one at a time, in the order of the published file.
 *
 * @returns {Generator<Tensor>}
 */
export function* randomTensors() {
  const random = uniform(20261122);
  for (const [name, shape] of gpt2Shapes(GPT2)) {
    const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
    const { mean, deviation } = distribution(name);
    const width = deviation * Math.sqrt(12);
    for (let i = 0; i < values.length; i++) values[i] = mean + width * (random() - 0.5);
    yield { name, shape, values };
  }
}

/**
 * Blocks as GPT-2 begins with them. Its tables begin smaller than here; then a token would be followed by itself for ever, and it
 * would prove little that two engines write the same text. Large positions make it vary, and vary alike in every precision.
 *
 * @param {string} name
 */
function distribution(name) {
  if (/ln_.*weight$/.test(name)) return { mean: 1, deviation: 0.1 };
  if (name === "wpe.weight") return { mean: 0, deviation: 0.3 };
  return { mean: 0, deviation: name === "wte.weight" ? 0.04 : 0.02 };
}

/**
 * Numbers in [0, 1), by xorshift32.
 *
 * @param {number} seed
 */
function uniform(seed) {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/**
 * Makes the checkpoint, unless it is there.
 *
 * @param {string} folder
 */
export function makeCheckpoint(folder) {
  const weights = join(folder, "model.safetensors");
  if (isMade(folder)) return;
  console.log(`Making a GPT-2 124M of random weights in ${folder}`);
  mkdirSync(folder, { recursive: true });
  const { config, tokenizer } = withVocabulary(GPT2);
  writeFileSync(join(folder, "config.json"), config);
  writeFileSync(join(folder, "tokenizer.json"), tokenizer);
  // Under another name until it is whole.
  const file = openSync(`${weights}.part`, "w");
  writeSync(file, safetensorsHeader(gpt2Shapes(GPT2), "F32").header);
  for (const { values } of randomTensors()) writeSync(file, values);
  closeSync(file);
  renameSync(`${weights}.part`, weights);
  markMade(folder);
}

/**
 * Whether the files of a folder were made by this recipe.
 *
 * @param {string} folder
 */
export function isMade(folder) {
  const mark = `${folder}.recipe`;
  return existsSync(mark) && readFileSync(mark, "utf8") === String(RECIPE);
}

/** @param {string} folder */
export function markMade(folder) {
  writeFileSync(`${folder}.recipe`, String(RECIPE));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) makeCheckpoint(process.argv[2] ?? "target/bench/gpt2-124m");
