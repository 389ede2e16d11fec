// Checkpoints that the tests make: large ones that cost no disk, and broken ones.

import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { local } from "./suite.mjs";

const STORYTELLER = local("www/models/storyteller");
const TINY = local("tests/fixtures/gpt2-tiny-a");
const FILES = ["config.json", "tokenizer.json", "model.safetensors"];

/** @typedef {{ layers: number, hidden: number, context: number, vocabulary: number }} Size */

/** The storyteller's tokenizer, which the checkpoints here borrow, has so many entries. */
const VOCABULARY = 4096;

/**
 * The tensors of a GPT-2, under the names of its published files.
 *
 * @param {Size} size
 * @returns {[name: string, shape: number[]][]}
 */
export function gpt2Shapes({ layers, hidden, context, vocabulary }) {
  const block = (/** @type {number} */ layer) =>
    /** @type {[string, number[]][]} */ ([
      ["ln_1.weight", [hidden]],
      ["ln_1.bias", [hidden]],
      ["attn.c_attn.weight", [hidden, 3 * hidden]],
      ["attn.c_attn.bias", [3 * hidden]],
      ["attn.c_proj.weight", [hidden, hidden]],
      ["attn.c_proj.bias", [hidden]],
      ["ln_2.weight", [hidden]],
      ["ln_2.bias", [hidden]],
      ["mlp.c_fc.weight", [hidden, 4 * hidden]],
      ["mlp.c_fc.bias", [4 * hidden]],
      ["mlp.c_proj.weight", [4 * hidden, hidden]],
      ["mlp.c_proj.bias", [hidden]],
    ]).map(([name, shape]) => /** @type {[string, number[]]} */ ([`h.${layer}.${name}`, shape]));
  return [
    ["wte.weight", [vocabulary, hidden]],
    ["wpe.weight", [context, hidden]],
    ...Array.from({ length: layers }, (_, layer) => block(layer)).flat(),
    ["ln_f.weight", [hidden]],
    ["ln_f.bias", [hidden]],
  ];
}

/**
 * The head of a safetensors file, and how many bytes of weights follow it.
 *
 * @param {[name: string, shape: number[]][]} shapes
 * @param {"F16" | "F32"} dtype
 */
export function safetensorsHeader(shapes, dtype) {
  let bytes = 0;
  const entries = shapes.map(([name, shape]) => {
    const start = bytes;
    bytes += (dtype === "F16" ? 2 : 4) * shape.reduce((product, size) => product * size, 1);
    return [name, { dtype, shape, data_offsets: [start, bytes] }];
  });
  return { header: safetensors(JSON.stringify(Object.fromEntries(entries)), Buffer.alloc(0)), bytes };
}

/**
 * A GPT-2's config.json, and the storyteller's tokenizer, filled up with entries that no text has.
 *
 * @param {Size} size
 */
export function withVocabulary({ layers, hidden, context, vocabulary }) {
  const tokenizer = JSON.parse(readFileSync(join(STORYTELLER, "tokenizer.json"), "utf8"));
  for (let id = VOCABULARY; id < vocabulary; id++) tokenizer.model.vocab[`unused${id}`] = id;
  const config = {
    model_type: "gpt2",
    n_layer: layers,
    n_embd: hidden,
    n_head: hidden / 64,
    n_positions: context,
    vocab_size: vocabulary,
  };
  return { config: JSON.stringify(config), tokenizer: JSON.stringify(tokenizer) };
}

/**
 * A GPT-2 of any size whose weights are all zero, so that its file is a hole in the disk. It computes as long as any other
 * of its size, finds every token equally likely, and never ends by itself.
 *
 * @param {string} folder
 * @param {Omit<Size, "vocabulary">} size
 * @returns {string[]} the files' paths
 */
export function zeroCheckpoint(folder, size) {
  mkdirSync(folder, { recursive: true });
  const whole = { ...size, vocabulary: VOCABULARY };
  const { header, bytes } = safetensorsHeader(gpt2Shapes(whole), "F16");
  const file = openSync(join(folder, "model.safetensors"), "w");
  writeSync(file, header);
  ftruncateSync(file, header.length + bytes);
  closeSync(file);
  const { config, tokenizer } = withVocabulary(whole);
  writeFileSync(join(folder, "config.json"), config);
  writeFileSync(join(folder, "tokenizer.json"), tokenizer);
  return FILES.map((name) => join(folder, name));
}

/**
 * `zeroCheckpoint` of a size that writes slowly enough for a person to press a button meanwhile.
 *
 * @param {string} scratch the folder in which to make its own
 */
export const slowCheckpoint = (scratch) => zeroCheckpoint(join(scratch, "slow"), { layers: 12, hidden: 512, context: 1024 });

/**
 * A small checkpoint with one thing wrong with it.
 *
 * @typedef {object} Broken
 * @property {string} what
 * @property {string} code that the page must report
 * @property {RegExp} says what the message must name
 * @property {Record<string, string | Buffer | null>} change file name → its content; null leaves the file out
 */

const tiny = (/** @type {string} */ name) => readFileSync(join(TINY, name));

/**
 * The tiny checkpoint's config.json with some values changed.
 *
 * @param {object} values
 */
const config = (values) => JSON.stringify({ ...JSON.parse(tiny("config.json").toString()), ...values });

/**
 * A safetensors file: header, then bytes.
 *
 * @param {string} header
 * @param {Buffer} data
 * @param {bigint} [length] that it claims its header has
 */
function safetensors(header, data, length = BigInt(Buffer.byteLength(header))) {
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length);
  return Buffer.concat([prefix, Buffer.from(header), data]);
}

/**
 * The tiny checkpoint's weights with a changed header.
 *
 * @param {(header: Record<string, { dtype: string, shape: number[], data_offsets: [number, number] }>) => void} change
 */
function headerChanged(change) {
  const file = tiny("model.safetensors");
  const length = Number(file.readBigUInt64LE());
  const header = JSON.parse(file.subarray(8, 8 + length).toString());
  change(header);
  return safetensors(JSON.stringify(header), file.subarray(8 + length));
}

/** A pickle that would run a command: `os.system("…")`. */
const EVIL_PICKLE = Buffer.from("\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "latin1");

/** @type {Broken[]} */
export const BROKEN = [
  { what: "no config", code: "missing-file", says: /config\.json/, change: { "config.json": null } },
  { what: "no weights", code: "missing-file", says: /safetensors/, change: { "model.safetensors": null } },
  { what: "no tokenizer", code: "missing-file", says: /tokenizer\.json/, change: { "tokenizer.json": null } },
  { what: "a config that is not JSON", code: "bad-config", says: /config\.json/, change: { "config.json": "{" } },
  {
    what: "an unknown architecture",
    code: "unknown-architecture",
    says: /mamba.*gpt2/s,
    change: { "config.json": config({ model_type: "mamba" }) },
  },
  {
    what: "a broken tokenizer",
    code: "bad-tokenizer",
    says: /tokenizer/,
    change: { "tokenizer.json": "{\"model\": 3}" },
  },
  {
    what: "a missing tensor",
    code: "missing-tensor",
    says: /ln_f\.weight/,
    change: {
      "model.safetensors": headerChanged((header) => {
        const name = Object.keys(header).find((name) => name.endsWith("ln_f.weight"));
        if (name) {
          header["unrelated"] = /** @type {any} */ (header[name]);
          delete header[name];
        }
      }),
    },
  },
  {
    what: "a wrong shape",
    code: "bad-tensor",
    says: /expected .*found/s,
    change: {
      "model.safetensors": headerChanged((header) => {
        const name = Object.keys(header).find((name) => name.endsWith("c_attn.weight"));
        header[name ?? ""]?.shape.reverse();
      }),
    },
  },
  {
    what: "a truncated file",
    code: "bad-file",
    says: /model\.safetensors/,
    change: { "model.safetensors": tiny("model.safetensors").subarray(0, 100_000) },
  },
  {
    what: "a header longer than the file",
    code: "bad-file",
    says: /model\.safetensors/,
    change: { "model.safetensors": safetensors("{}", Buffer.alloc(0), 90_000_000n) },
  },
  {
    what: "overlapping tensors",
    code: "bad-file",
    says: /overlap/,
    change: {
      "model.safetensors": headerChanged((header) => {
        const [first, second] = Object.values(header).filter((tensor) => tensor.data_offsets);
        if (!first || !second) throw new Error("the tiny checkpoint has two tensors");
        [second.dtype, second.shape, second.data_offsets] = [first.dtype, first.shape, first.data_offsets];
      }),
    },
  },
  {
    what: "offsets beyond the file",
    code: "bad-file",
    says: /model\.safetensors/,
    change: {
      "model.safetensors": headerChanged((header) => {
        const tensor = Object.values(header).find((tensor) => tensor.data_offsets);
        if (tensor) tensor.data_offsets = [tensor.data_offsets[0] + 1e9, tensor.data_offsets[1] + 1e9];
      }),
    },
  },
  {
    what: "a web page in place of the weights",
    code: "bad-file",
    says: /model\.safetensors/,
    change: { "model.safetensors": `<!doctype html><title>Not found</title>${" ".repeat(1000)}` },
  },
  {
    what: "a pickle that names a function",
    code: "bad-file",
    says: /system/,
    change: { "model.safetensors": null, "pytorch_model.bin": storedZip({ "archive/data.pkl": EVIL_PICKLE }) },
  },
];

/**
 * Writes a broken checkpoint.
 *
 * @param {string} folder
 * @param {Broken} broken
 * @returns {string[]} the files' paths
 */
export function writeBroken(folder, { change }) {
  mkdirSync(folder, { recursive: true });
  const whole = Object.fromEntries(FILES.map((name) => [name, tiny(name)]));
  const files = Object.entries({ ...whole, ...change }).filter(([, content]) => content !== null);
  for (const [name, content] of files) writeFileSync(join(folder, name), /** @type {string | Buffer} */ (content));
  return files.map(([name]) => join(folder, name));
}

/**
 * A zip archive of stored entries, as PyTorch writes one.
 *
 * @param {Record<string, Buffer>} entries
 */
function storedZip(entries) {
  const locals = [];
  const directory = [];
  let offset = 0;
  for (const [name, content] of Object.entries(entries)) {
    const common = Buffer.alloc(26);
    common.writeUInt16LE(10, 0); // version needed
    common.writeUInt32LE(crc32(content), 10);
    common.writeUInt32LE(content.length, 14);
    common.writeUInt32LE(content.length, 18);
    common.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from("PK\x03\x04"), common, Buffer.from(name), content]);
    const attributes = Buffer.alloc(14);
    attributes.writeUInt32LE(offset, 10);
    directory.push(Buffer.concat([Buffer.from("PK\x01\x02\x14\x00"), common, attributes, Buffer.from(name)]));
    locals.push(local);
    offset += local.length;
  }
  const list = Buffer.concat(directory);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(directory.length, 4);
  end.writeUInt16LE(directory.length, 6);
  end.writeUInt32LE(list.length, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...locals, list, Buffer.from("PK\x05\x06"), end]);
}

/** @param {Buffer} bytes */
function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
