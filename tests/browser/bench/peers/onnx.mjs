// The random GPT-2 as ONNX graphs with a cache that goes in and out, as the exporters write them: one in f32, one as
// onnxruntime's dynamic quantisation makes it (int8, activations quantised in each step), one with its 4-bit products.
//
// Inputs: ids and positions `[1, t]`, mask `[1, 1, t, past + t]` (added to the scores), past_N `[1, heads, past, 64]`. Outputs:
// the logits of the last token `[1, 1, vocabulary]`, present_N `[1, heads, past + t, 64]`.

import { closeSync, openSync, writeSync } from "node:fs";
import { GPT2, randomTensors } from "../weights.mjs";
import { Message } from "./protobuf.mjs";
import { fourBits, transpose } from "./quantise.mjs";

/** @import { Tensor } from "../weights.mjs" */

/** @typedef {"f32" | "int8" | "int4"} Kind */

const HEAD = 64;
const HEADS = GPT2.hidden / HEAD;
const [FLOAT, UINT8, INT8, INT64] = [1, 2, 3, 7];
const BLOCK = 32;

/**
 * @param {string} path
 * @param {Kind} kind
 */
export function writeOnnx(path, kind) {
  const graph = new Graph(kind);
  const tensors = new Map(Array.from(randomTensors(), (tensor) => [tensor.name, tensor]));
  const tensor = (/** @type {string} */ name) => /** @type {Tensor} */ (tensors.get(name));
  model(graph, tensor);
  const file = openSync(path, "w");
  for (const part of graph.finish().parts) writeSync(file, part);
  closeSync(file);
}

/**
 * @param {Graph} graph
 * @param {(name: string) => Tensor} tensor
 */
function model(graph, tensor) {
  graph.input("ids", INT64, [1, "t"]);
  graph.input("positions", INT64, [1, "t"]);
  graph.input("mask", FLOAT, [1, 1, "t", "past+t"]);
  for (let i = 0; i < 2 * GPT2.layers; i++) graph.input(`past_${i}`, FLOAT, [1, HEADS, "past", HEAD]);
  graph.output("logits", FLOAT, [1, 1, GPT2.vocabulary]);
  for (let i = 0; i < 2 * GPT2.layers; i++) graph.output(`present_${i}`, FLOAT, [1, HEADS, "past+t", HEAD]);

  const thirds = graph.int64s("thirds", [GPT2.hidden, GPT2.hidden, GPT2.hidden]);
  const byHead = graph.int64s("by_head", [1, -1, HEADS, HEAD]);
  const together = graph.int64s("together", [1, -1, GPT2.hidden]);
  const scale = graph.scalar("scale", 1 / Math.sqrt(HEAD));
  const constant = (/** @type {string} */ name) => graph.floats(name, tensor(name).shape, tensor(name).values);
  const norm = (/** @type {string} */ x, /** @type {string} */ name) =>
    graph.node("LayerNormalization", [x, constant(`${name}.weight`), constant(`${name}.bias`)], { axis: -1, epsilon: { float: 1e-5 } });
  const linear = (/** @type {string} */ x, /** @type {string} */ name) =>
    graph.node("Add", [graph.product(x, name, tensor(`${name}.weight`)), constant(`${name}.bias`)]);

  let x = graph.node("Add", [graph.lookUp("wte.weight", tensor("wte.weight"), "ids"), graph.node("Gather", [constant("wpe.weight"), "positions"])]);
  for (let layer = 0; layer < GPT2.layers; layer++) {
    const h = `h.${layer}`;
    const parts = graph.nodes("Split", [linear(norm(x, `${h}.ln_1`), `${h}.attn.c_attn`), thirds], 3, { axis: 2 });
    const [q = "", k = "", v = ""] = parts.map((part) => graph.node("Transpose", [graph.node("Reshape", [part, byHead])], { perm: [0, 2, 1, 3] }));
    const keys = graph.node("Concat", [`past_${2 * layer}`, k], { axis: 2 }, `present_${2 * layer}`);
    const values = graph.node("Concat", [`past_${2 * layer + 1}`, v], { axis: 2 }, `present_${2 * layer + 1}`);
    const products = graph.node("MatMul", [q, graph.node("Transpose", [keys], { perm: [0, 1, 3, 2] })]);
    const scores = graph.node("Add", [graph.node("Mul", [products, scale]), "mask"]);
    const read = graph.node("MatMul", [graph.node("Softmax", [scores], { axis: -1 }), values]);
    const joined = graph.node("Reshape", [graph.node("Transpose", [read], { perm: [0, 2, 1, 3] }), together]);
    x = graph.node("Add", [x, linear(joined, `${h}.attn.c_proj`)]);
    const wide = graph.node("Gelu", [linear(norm(x, `${h}.ln_2`), `${h}.mlp.c_fc`)], { approximate: "tanh" });
    x = graph.node("Add", [x, linear(wide, `${h}.mlp.c_proj`)]);
  }
  const last = graph.node("Gather", [x, graph.int64s("last", [-1])], { axis: 1 });
  const { shape, values } = tensor("wte.weight");
  const [rows = 0, columns = 0] = shape;
  const head = { name: "lm_head.weight", shape: [columns, rows], values: transpose(values, rows, columns) };
  graph.product(norm(last, "ln_f"), "lm_head", head, "logits");
}

/** Gathers nodes and weights; a name stands for a value. */
class Graph {
  #graph = new Message();
  #count = 0;
  #kind;

  /** @param {Kind} kind how matrices are held */
  constructor(kind) {
    this.#kind = kind;
    this.#graph.bytes(2, "gpt2");
  }

  /**
   * @param {string} name
   * @param {number} type
   * @param {(number | string)[]} shape
   */
  input(name, type, shape) {
    this.#graph.bytes(11, value(name, type, shape));
  }

  /**
   * @param {string} name
   * @param {number} type
   * @param {(number | string)[]} shape
   */
  output(name, type, shape) {
    this.#graph.bytes(12, value(name, type, shape));
  }

  /**
   * @param {string} operation
   * @param {string[]} inputs
   * @param {Attributes} [attributes]
   * @param {string} [output] its name
   */
  node(operation, inputs, attributes, output) {
    return this.nodes(operation, inputs, 1, attributes, output && [output])[0] ?? "";
  }

  /**
   * @param {string} operation
   * @param {string[]} inputs
   * @param {number} count of outputs
   * @param {Attributes} [attributes]
   * @param {string[] | ""} [names] of the outputs
   */
  nodes(operation, inputs, count, attributes = {}, names) {
    const [name = "", domain = ""] = operation.split(":").reverse();
    const outputs = names || Array.from({ length: count }, (_, i) => `${name}_${this.#count}_${i}`);
    const node = new Message().each(1, inputs).each(2, outputs).bytes(3, `${name}_${this.#count++}`).bytes(4, name);
    node.each(5, Object.entries(attributes).map(attribute)).bytes(7, domain);
    this.#graph.bytes(1, node);
    return outputs;
  }

  /**
   * A weight; the name of an earlier one stands for it.
   *
   * @param {string} name
   * @param {number} type
   * @param {number[]} shape
   * @param {ArrayBufferView<ArrayBuffer>} values
   */
  constant(name, type, shape, values) {
    const tensor = new Message();
    for (const size of shape) tensor.int(1, size);
    tensor.int(2, type).bytes(8, name).bytes(9, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    this.#graph.bytes(5, tensor);
    return name;
  }

  /**
   * @param {string} name
   * @param {number[]} shape
   * @param {Float32Array<ArrayBuffer>} values
   */
  floats(name, shape, values) {
    return this.constant(name, FLOAT, shape, values);
  }

  /**
   * @param {string} name
   * @param {number} number
   */
  scalar(name, number) {
    return this.constant(name, FLOAT, [], Float32Array.of(number));
  }

  /**
   * @param {string} name
   * @param {number[]} values
   */
  int64s(name, values) {
    return this.constant(name, INT64, [values.length], BigInt64Array.from(values.map(BigInt)));
  }

  /**
   * `x` times a matrix `[in, out]`.
   *
   * @param {string} x
   * @param {string} name
   * @param {Tensor} matrix
   * @param {string} [output]
   */
  product(x, name, { shape, values }, output) {
    const [rows = 0, columns = 0] = shape;
    if (this.#kind === "f32") return this.node("MatMul", [x, this.floats(`${name}.weight`, shape, values)], {}, output);
    if (this.#kind === "int4") {
      const { quants, scales } = packed(transpose(values, rows, columns));
      const inputs = [
        x,
        this.constant(`${name}.quants`, UINT8, [columns, rows / BLOCK, BLOCK / 2], quants),
        this.constant(`${name}.scales`, FLOAT, [columns, rows / BLOCK], scales),
      ];
      return this.node("com.microsoft:MatMulNBits", inputs, { K: rows, N: columns, bits: 4, block_size: BLOCK, accuracy_level: 4 }, output);
    }
    const { quants, scale } = bytes(values);
    const [quantised = "", scaleOfX = "", zero = ""] = this.nodes("DynamicQuantizeLinear", [x], 3);
    const sums = this.node("MatMulInteger", [quantised, this.constant(`${name}.quants`, INT8, shape, quants), zero]);
    const scales = this.node("Mul", [scaleOfX, this.scalar(`${name}.scale`, scale)]);
    return this.node("Mul", [this.node("Cast", [sums], { to: FLOAT }), scales], {}, output);
  }

  /**
   * Rows of a table.
   *
   * @param {string} name
   * @param {Tensor} table
   * @param {string} indices
   */
  lookUp(name, { shape, values }, indices) {
    if (this.#kind !== "int8") return this.node("Gather", [this.floats(name, shape, values), indices]);
    const { quants, scale } = bytes(values);
    const rows = this.node("Gather", [this.constant(`${name}.quants`, INT8, shape, quants), indices]);
    return this.node("DequantizeLinear", [rows, this.scalar(`${name}.scale`, scale)]);
  }

  /** The whole file. */
  finish() {
    const opset = (/** @type {string} */ domain, /** @type {number} */ version) => new Message().bytes(1, domain).int(2, version);
    return new Message().int(1, 9).bytes(2, "vitrine").bytes(7, this.#graph).bytes(8, opset("", 20)).bytes(8, opset("com.microsoft", 1));
  }
}

/** @typedef {Record<string, number | number[] | string | { float: number }>} Attributes */

/** @param {Attributes extends Record<string, infer V> ? [string, V] : never} entry */
function attribute([name, value]) {
  const message = new Message().bytes(1, name);
  const [FLOAT_TYPE, INT_TYPE, STRING_TYPE, INTS_TYPE] = [1, 2, 3, 7];
  if (typeof value === "number") return message.int(3, value).int(20, INT_TYPE);
  if (typeof value === "string") return message.bytes(4, value).int(20, STRING_TYPE);
  if ("float" in value) return message.float(2, value.float).int(20, FLOAT_TYPE);
  for (const item of value) message.int(8, item);
  return message.int(20, INTS_TYPE);
}

/**
 * @param {string} name
 * @param {number} type
 * @param {(number | string)[]} shape
 */
function value(name, type, shape) {
  const dimensions = shape.map((size) => (typeof size === "number" ? new Message().int(1, size) : new Message().bytes(2, size)));
  const tensor = new Message().int(1, type).bytes(2, new Message().each(1, dimensions));
  return new Message().bytes(1, name).bytes(2, new Message().bytes(1, tensor));
}

/**
 * One scale for all values, as onnxruntime's quantisation does by default.
 *
 * @param {Float32Array} values
 */
function bytes(values) {
  let largest = 0;
  for (const value of values) largest = Math.max(largest, Math.abs(value));
  const scale = largest / 127;
  const quants = new Int8Array(values.length);
  for (let i = 0; i < quants.length; i++) quants[i] = Math.round((values[i] ?? 0) / scale);
  return { quants, scale };
}

/**
 * Blocks of 32 in 4 bits, plus 8; a byte holds two neighbours.
 *
 * @param {Float32Array} values
 */
function packed(values) {
  const quants = new Uint8Array(values.length / 2);
  const scales = new Float32Array(values.length / BLOCK);
  for (let block = 0; block < scales.length; block++) {
    const found = fourBits(values, block * BLOCK);
    scales[block] = found.scale;
    for (let i = 0; i < BLOCK / 2; i++) quants[(block * BLOCK) / 2 + i] = (found.quants[2 * i] ?? 0) | ((found.quants[2 * i + 1] ?? 0) << 4);
  }
  return { quants, scales };
}
