// Checkpoints that the tests make: large ones that cost no disk, and broken ones.

import { closeSync, copyFileSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { local } from "./suite.mjs";

const STORYTELLER = local("www/models/storyteller");
const TINY = local("tests/fixtures/gpt2-tiny-a");
const FILES = ["config.json", "tokenizer.json", "model.safetensors"];

/**
 * A GPT-2 of any size whose weights are all zero, so that its file is a hole in the disk. It computes as long as any other
 * of its size, finds every token equally likely, and never ends by itself.
 *
 * @param {string} folder
 * @param {{ layers: number, hidden: number, context: number }} size
 * @returns {string[]} the files' paths
 */
export function zeroCheckpoint(folder, { layers, hidden, context }) {
  mkdirSync(folder, { recursive: true });
  const vocabulary = 4096; // the storyteller's tokenizer
  const config = {
    model_type: "gpt2",
    n_layer: layers,
    n_embd: hidden,
    n_head: hidden / 64,
    n_positions: context,
    vocab_size: vocabulary,
  };
  /** @type {Record<string, number[]>} */
  const shapes = { "wte.weight": [vocabulary, hidden], "wpe.weight": [context, hidden] };
  for (let layer = 0; layer < layers; layer++) {
    for (const [name, ...shape] of /** @type {[string, ...number[]][]} */ ([
      ["ln_1.weight", hidden],
      ["ln_1.bias", hidden],
      ["attn.c_attn.weight", hidden, 3 * hidden],
      ["attn.c_attn.bias", 3 * hidden],
      ["attn.c_proj.weight", hidden, hidden],
      ["attn.c_proj.bias", hidden],
      ["ln_2.weight", hidden],
      ["ln_2.bias", hidden],
      ["mlp.c_fc.weight", hidden, 4 * hidden],
      ["mlp.c_fc.bias", 4 * hidden],
      ["mlp.c_proj.weight", 4 * hidden, hidden],
      ["mlp.c_proj.bias", hidden],
    ])) {
      shapes[`h.${layer}.${name}`] = shape;
    }
  }
  shapes["ln_f.weight"] = shapes["ln_f.bias"] = [hidden];

  let end = 0;
  const header = Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => {
      const start = end;
      end += 2 * shape.reduce((product, size) => product * size, 1);
      return [name, { dtype: "F16", shape, data_offsets: [start, end] }];
    }),
  );
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = openSync(join(folder, "model.safetensors"), "w");
  writeSync(file, Buffer.concat([length, text]));
  ftruncateSync(file, 8 + text.length + end);
  closeSync(file);

  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  copyFileSync(join(STORYTELLER, "tokenizer.json"), join(folder, "tokenizer.json"));
  return FILES.map((name) => join(folder, name));
}

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
