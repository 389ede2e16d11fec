// The random GPT-2 as a GGUF file, as llama.cpp's converter would name and lay out its tensors.

import { closeSync, openSync, writeSync } from "node:fs";
import { gpt2Shapes, withVocabulary } from "../../checkpoints.mjs";
import { GPT2, randomTensors } from "../weights.mjs";
import { q4_0, q8_0, transpose } from "./quantise.mjs";

/** What the matrices may be held in; biases, norms and positions are f32. */
const TYPES = {
  F32: { id: 0, file: 0, bytes: (/** @type {number} */ n) => 4 * n, pack: (/** @type {Float32Array} */ values) => Buffer.from(values.buffer) },
  Q8_0: { id: 8, file: 7, bytes: (/** @type {number} */ n) => (n / 32) * 34, pack: q8_0 },
  Q4_0: { id: 2, file: 2, bytes: (/** @type {number} */ n) => (n / 32) * 18, pack: q4_0 },
};

const ALIGNMENT = 32;

/** @typedef {keyof typeof TYPES} Type */

/** @type {Record<string, string>} */
const NAMES = {
  ln_1: "attn_norm",
  ln_2: "ffn_norm",
  "attn.c_attn": "attn_qkv",
  "attn.c_proj": "attn_output",
  "mlp.c_fc": "ffn_up",
  "mlp.c_proj": "ffn_down",
};

/**
 * The name of a tensor in GGUF.
 *
 * @param {string} name in the published checkpoint
 */
function renamed(name) {
  const [, layer, part, kind] = /^h\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  if (part) return `blk.${layer}.${NAMES[part]}.${kind}`;
  return name.replace("wte", "token_embd").replace("wpe", "position_embd").replace("ln_f", "output_norm");
}

/** @param {string} name in the published checkpoint */
const isMatrix = (name) => name === "wte.weight" || /\.c_\w+\.weight$/.test(name);

/**
 * @param {string} path
 * @param {Type} type of the matrices
 */
export function writeGguf(path, type) {
  const typeOf = (/** @type {string} */ name) => (isMatrix(name) ? TYPES[type] : TYPES.F32);
  const shapes = gpt2Shapes(GPT2);
  const metadata = entries(type);
  const head = [Buffer.from("GGUF"), u32(3), u64(shapes.length), u64(metadata.length), ...metadata];
  let offset = 0;
  for (const [name, shape] of shapes) {
    // The fastest dimension comes first: `[in, out]`, as the published shape of a Conv1D reads; its values are transposed.
    const dimensions = name === "wte.weight" || name === "wpe.weight" ? shape.toReversed() : shape;
    head.push(text(renamed(name)), u32(dimensions.length), ...dimensions.map(u64), u32(typeOf(name).id), u64(offset));
    offset += aligned(typeOf(name).bytes(shape.reduce((product, size) => product * size, 1)));
  }
  const file = openSync(path, "w");
  const header = Buffer.concat(head);
  writeSync(file, Buffer.concat([header, Buffer.alloc(aligned(header.length) - header.length)]));
  for (const { name, shape, values } of randomTensors()) {
    const [rows = 1, columns = 1] = shape;
    const data = typeOf(name).pack(/\.c_\w+\.weight$/.test(name) ? transpose(values, rows, columns) : values);
    writeSync(file, data);
    writeSync(file, Buffer.alloc(aligned(data.length) - data.length));
  }
  closeSync(file);
}

/** @param {Type} type */
function entries(type) {
  const { model } = JSON.parse(withVocabulary(GPT2).tokenizer);
  const tokens = Object.entries(model.vocab).sort(([, a], [, b]) => a - b).map(([token]) => token);
  const merges = model.merges.map((/** @type {[string, string]} */ pair) => pair.join(" "));
  const END_OF_TEXT = 0;
  const [NORMAL, CONTROL] = [1, 3];
  return [
    entry("general.architecture", 8, text("gpt2")),
    entry("general.name", 8, text("GPT-2 124M of random weights")),
    entry("general.file_type", 4, u32(TYPES[type].file)),
    entry("general.quantization_version", 4, u32(2)),
    entry("gpt2.context_length", 4, u32(GPT2.context)),
    entry("gpt2.embedding_length", 4, u32(GPT2.hidden)),
    entry("gpt2.feed_forward_length", 4, u32(4 * GPT2.hidden)),
    entry("gpt2.block_count", 4, u32(GPT2.layers)),
    entry("gpt2.attention.head_count", 4, u32(GPT2.hidden / 64)),
    entry("gpt2.attention.layer_norm_epsilon", 6, f32(1e-5)),
    entry("tokenizer.ggml.model", 8, text("gpt2")),
    entry("tokenizer.ggml.pre", 8, text("gpt-2")),
    entry("tokenizer.ggml.tokens", 9, array(8, tokens.map(text))),
    entry("tokenizer.ggml.token_type", 9, array(5, tokens.map((_, id) => u32(id === END_OF_TEXT ? CONTROL : NORMAL)))),
    entry("tokenizer.ggml.merges", 9, array(8, merges.map(text))),
    entry("tokenizer.ggml.bos_token_id", 4, u32(END_OF_TEXT)),
    entry("tokenizer.ggml.eos_token_id", 4, u32(END_OF_TEXT)),
    entry("tokenizer.ggml.add_bos_token", 7, Buffer.of(0)),
  ];
}

/**
 * @param {string} key
 * @param {number} type 4 u32, 5 i32, 6 f32, 7 bool, 8 string, 9 array
 * @param {Buffer} value
 */
const entry = (key, type, value) => Buffer.concat([text(key), u32(type), value]);

/**
 * @param {number} type
 * @param {Buffer[]} items
 */
const array = (type, items) => Buffer.concat([u32(type), u64(items.length), ...items]);

/** @param {string} value */
function text(value) {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}

/** @param {number} value */
function u32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** @param {number} value */
function u64(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

/** @param {number} value */
function f32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
}

/** @param {number} bytes */
const aligned = (bytes) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
