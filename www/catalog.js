// The models that the page offers. Sizes are those of the weight files as published.

/** @import { Source } from "./protocol.js" */

/**
 * @typedef {object} CatalogEntry
 * @property {string} id
 * @property {string} name
 * @property {Source} source
 * @property {number} downloadBytes 0: part of this site
 */

/** @type {readonly CatalogEntry[]} */
export const CATALOG = [
  { id: "storyteller", name: "Storyteller GPT-2", source: { builtin: "storyteller" }, downloadBytes: 0 },
  { id: "storyteller-opt", name: "Storyteller OPT", source: { builtin: "storyteller-opt" }, downloadBytes: 0 },
  { id: "gpt2", name: "GPT-2", source: { hub: "openai-community/gpt2" }, downloadBytes: 548_105_171 },
  { id: "distilgpt2", name: "DistilGPT-2", source: { hub: "distilbert/distilgpt2" }, downloadBytes: 352_824_413 },
  { id: "opt-125m", name: "OPT-125M", source: { hub: "facebook/opt-125m" }, downloadBytes: 250_540_281 },
];
