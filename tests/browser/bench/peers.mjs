// The comparison of `cargo xtask bench --peers`: this engine and others as they are published, over the same random GPT-2 124M,
// in one browser, taking turns. Every engine first continues a prompt, which shows that it runs the same model.
//
// Usage: node peers.mjs [--browser Chromium|Firefox] [--rounds N] [--only PATTERN] [--machine NAME] [--record FILE | --no-record]
// It expects what `cargo xtask bench --peers` puts below target/peers: the packages, and candle's products as wasm.

import { mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BYTES_PER_WEIGHT } from "../../../www/page/shares.js";
import { gpt2Shapes } from "../checkpoints.mjs";
import { ENGINES } from "../engines.mjs";
import { SITE } from "../site.mjs";
import { local } from "../suite.mjs";
import { call } from "./call.mjs";
import { writeGguf } from "./peers/gguf.mjs";
import { host } from "./peers/host.mjs";
import { writeOnnx } from "./peers/onnx.mjs";
import { browserName, median, preamble, recordFile, WHOLE_MACHINE, write } from "./record.mjs";
import { megabytes, percent, print, together } from "./table.mjs";
import { GPT2, isMade, makeCheckpoint, markMade } from "./weights.mjs";

/** @import { WebDriver } from "selenium-webdriver" */
/** @import { Line } from "./table.mjs" */

const PEERS = local("target/peers");
const CHECKPOINT = local("target/bench/gpt2-124m");
const WEIGHTS = join(PEERS, "weights");

/** All but the positions. */
const READ_FOR_A_TOKEN = gpt2Shapes(GPT2).reduce((sum, [name, shape]) => sum + (name === "wpe.weight" ? 0 : shape.reduce((a, b) => a * b, 1)), 0);

const PROMPTS = [64, 256];
const NEW_TOKENS = 128;
/** An engine that writes fewer tokens a second than this is given fewer to write. */
const SLOW = 4;
const NEW_TOKENS_OF_SLOW = 16;
const LOADS = 3;

/** Tokens of the continuation that are compared. */
const COMPARED = 32;
/** How far log-probabilities of two f32 engines may lie apart: the sums of a pass are rounded in another order. */
const TOLERANCE = 5e-3;

/**
 * One engine with one file.
 *
 * @typedef {object} Subject
 * @property {string} name
 * @property {"vitrine" | "wllama" | "ort" | "candle"} engine
 * @property {string} precision as this project calls it
 * @property {boolean} exact whether its weights are those of the checkpoint, so that it must write the same text
 * @property {number} threads
 * @property {string[]} files
 * @property {Record<string, unknown>} settings beside the threads
 */

/** @typedef {Subject & { loads: number[], about: any, agreement: any, newTokens: number, prefills: number[][], decodes: number[] }} Entrant */

const CHECKPOINT_FILES = ["config.json", "tokenizer.json", "model.safetensors"].map((name) => `checkpoint/${name}`);
const SHAPE = { layers: GPT2.layers, heads: GPT2.hidden / 64, headSize: 64 };

/** @type {Subject[]} */
const SUBJECTS = [
  ...["f32", "q8", "q4"].map((precision) => subject("vitrine", precision, 1, CHECKPOINT_FILES, { precision })),
  ...[1, 2].flatMap((threads) => [
    subject("wllama", "f32", threads, ["weights/gpt2-F32.gguf"], {}),
    subject("wllama", "q8", threads, ["weights/gpt2-Q8_0.gguf"], {}),
    subject("wllama", "q4", threads, ["weights/gpt2-Q4_0.gguf"], {}),
    subject("ort", "f32", threads, ["weights/gpt2-f32.onnx"], SHAPE),
    subject("ort", "q8", threads, ["weights/gpt2-int8.onnx"], SHAPE),
    subject("ort", "q4", threads, ["weights/gpt2-int4.onnx"], SHAPE),
  ]),
  ...Object.entries({ f32: "F32", q8: "Q8_0", q4: "Q4_0" }).map(([name, precision]) =>
    subject("candle", name, 1, ["checkpoint/model.safetensors"], { precision }),
  ),
];

/**
 * @param {Subject["engine"]} engine
 * @param {string} precision
 * @param {number} threads
 * @param {string[]} files
 * @param {Record<string, unknown>} settings
 * @returns {Subject}
 */
function subject(engine, precision, threads, files, settings) {
  const name = `${engine} ${precision}${threads > 1 ? `, ${threads} threads` : ""}`;
  return { name, engine, precision, exact: precision === "f32", threads, files, settings };
}

/** Those made so far. @type {Map<string, { text: string, ids: number[] }>} */
const prompts = new Map();

const { values: options } = parseArgs({
  options: {
    browser: { type: "string", default: "Chromium" },
    rounds: { type: "string", default: "3" },
    only: { type: "string", default: "" },
    machine: { type: "string" },
    record: { type: "string" },
    "no-record": { type: "boolean", default: false },
  },
});
const engine = ENGINES.find(({ name }) => name.toLowerCase() === options.browser.toLowerCase());
if (!engine) throw new Error(`--browser is one of ${ENGINES.map(({ name }) => name).join(", ")}`);
if (engine.missing) throw new Error(engine.missing);

makeCheckpoint(CHECKPOINT);
makeWeights();
const record = {
  ...preamble(),
  browser: "",
  model: "GPT-2 124M of random weights, the same for all",
  method: { prompts: PROMPTS, newTokens: NEW_TOKENS, rounds: Number(options.rounds), loads: LOADS, figures: "medians of interleaved runs, one browser, cross-origin isolated" },
  versions: versions(),
  limits: /** @type {Line[]} */ ([]),
  engines: /** @type {any[]} */ ([]),
};

const server = await host({
  site: SITE,
  bench: local("tests/browser/bench"),
  npm: join(PEERS, "npm/node_modules"),
  candle: join(PEERS, "candle/pkg"),
  weights: WEIGHTS,
  checkpoint: CHECKPOINT,
});
const { driver, quit } = await engine.start();
try {
  record.browser = await browserName(driver);
  await driver.get(`${server.url}bench/peers/page.html`);
  await compare();
} finally {
  await quit();
  server.close();
}
show();
if (!options["no-record"]) write(options.record ?? recordFile(record, "peers", options.machine), record);

async function compare() {
  const before = await limits();
  const entrants = await loadAll(SUBJECTS.filter(({ name }) => new RegExp(options.only).test(name)));
  await check(entrants);
  for (let round = 0; round < record.method.rounds; round++) {
    for (const entrant of entrants) await run(entrant, round);
    console.log(`round ${round + 1} of ${record.method.rounds}`);
  }
  for (const { name } of entrants) await call(driver, "peers", "close", name);
  const after = await limits();
  record.limits = together([before, after]);
  record.engines = entrants.map(report);
}

/**
 * Loads every engine some times, in turn; those stay that offer what is asked for.
 *
 * @param {Subject[]} subjects
 */
async function loadAll(subjects) {
  /** @type {Entrant[]} */
  let entrants = subjects.map((subject) => ({ ...subject, loads: [], about: null, agreement: null, newTokens: NEW_TOKENS, prefills: PROMPTS.map(() => []), decodes: [] }));
  for (let turn = 0; turn < LOADS; turn++) {
    const loaded = [];
    for (const entrant of entrants) {
      const { name, engine, threads, settings } = entrant;
      const files = entrant.files.map((path) => ({ name: path.split("/").at(-1), path: `/${path}` }));
      const answer = await call(driver, "peers", "load", name, { engine, files, threads, ...settings });
      if (!answer) continue;
      entrant.loads.push(answer.ms);
      entrant.about = answer.about;
      loaded.push(entrant);
    }
    entrants = loaded;
  }
  return entrants;
}

/**
 * What is compared must be the same model: each engine's greedy continuation, and how likely it finds it, beside this
 * engine's in f32.
 *
 * @param {Entrant[]} entrants
 */
async function check(entrants) {
  const ours = entrants.find(({ name }) => name === "vitrine f32");
  if (!ours) throw new Error("--only must leave `vitrine f32` in: the others are held to it");
  const prompt = await promptOf(PROMPTS[0] ?? 0, 0);
  const expected = await call(driver, "peers", "continuation", ours.name, prompt, COMPARED);
  const distinct = new Set(expected.map((/** @type {{ id: number }} */ { id }) => id)).size;
  console.log(`the continuation that is compared has ${distinct} different tokens of ${COMPARED}`);
  for (const entrant of entrants) {
    const found = await call(driver, "peers", "continuation", entrant.name, prompt, COMPARED);
    entrant.agreement = found.length > 0 ? agreement(expected, found) : { products: entrant.about };
    console.log(`${entrant.name}: ${JSON.stringify(entrant.agreement)}`);
    const { tokens, logprobs } = entrant.agreement;
    if (entrant.exact && found.length > 0 && !(tokens >= COMPARED / 2 && logprobs < TOLERANCE)) {
      throw new Error(`${entrant.name} does not run the same model: ${JSON.stringify(found.slice(0, 8))} beside ${JSON.stringify(expected.slice(0, 8))}`);
    }
    // Also warms up, and tells how long a round may take.
    const { restMs, written } = await call(driver, "peers", "run", entrant.name, await promptOf(PROMPTS[0] ?? 0, 1), 8);
    if ((1000 * written) / restMs < SLOW) entrant.newTokens = NEW_TOKENS_OF_SLOW;
  }
}

/**
 * How many of the tokens are the same, and how far their log-probabilities lie apart at most up to the first that differs, that one
 * included: each is its engine's likeliest, so where two differ of which neither is likelier, it was a tie.
 *
 * @param {{ id: number, text: string, logprob: number }[]} expected
 * @param {{ id?: number, text?: string, logprob?: number }[]} found
 */
function agreement(expected, found) {
  const same = expected.map((token, i) => {
    const other = found[i];
    return other && (other.id ?? token.id) === token.id && (other.text ?? token.text) === token.text;
  });
  const comparable = same.includes(false) ? same.indexOf(false) + 1 : same.length;
  const apart = expected.slice(0, comparable).map(({ logprob }, i) => Math.abs((found[i]?.logprob ?? NaN) - logprob));
  return { tokens: same.filter(Boolean).length, of: expected.length, logprobs: Math.max(...apart) };
}

/**
 * @param {Entrant} entrant
 * @param {number} round
 */
async function run({ name, newTokens, prefills, decodes }, round) {
  for (const [i, length] of PROMPTS.entries()) {
    const prompt = await promptOf(length, 2 + round * PROMPTS.length + i);
    const wanted = i === 0 ? newTokens : 1;
    const { firstMs, restMs, written } = await call(driver, "peers", "run", name, prompt, wanted);
    if (written !== wanted - 1) throw new Error(`${name} wrote ${written + 1} tokens of ${wanted}`);
    prefills[i]?.push(firstMs);
    if (i === 0) decodes.push(restMs);
  }
}

/**
 * A prompt of so many tokens; the next `turn` begins with another word, so that no engine can use what it read last.
 *
 * @param {number} length
 * @param {number} turn
 */
async function promptOf(length, turn) {
  const words = ["the", "old", "king", "went", "home", "and", "had"];
  const key = `${length} ${turn % words.length}`;
  let prompt = prompts.get(key);
  for (let count = length; !prompt; count--) {
    const text = Array.from({ length: count }, (_, i) => words[(turn + i + Math.floor(i / words.length)) % words.length]).join(" ");
    const ids = await call(driver, "peers", "tokenize", "vitrine f32", text);
    if (ids.length < length) throw new Error(`no prompt of ${length} tokens can be made of these words`);
    if (ids.length === length) prompts.set(key, (prompt = { text, ids }));
  }
  return prompt;
}

/** @param {Entrant} entrant */
function report({ prefills, decodes, loads, newTokens, files, ...entrant }) {
  const pace = (/** @type {number} */ tokens, /** @type {number[]} */ ms) => ({ tokens, tokensPerSecond: (1000 * tokens) / median(ms), ms });
  return {
    ...entrant,
    files: files.map((path) => ({ path, bytes: statSync(join(path.startsWith("weights/") ? PEERS : CHECKPOINT, path.replace("checkpoint/", ""))).size })),
    load: { ms: loads, median: median(loads) },
    prefill: PROMPTS.map((tokens, i) => pace(tokens, prefills[i] ?? [])),
    decode: pace(newTokens - 1, decodes),
  };
}

/** The machine's limits, as the faster build measures them. @returns {Promise<Line[]>} */
async function limits() {
  const { lines } = await call(driver, "peers", "measure", "relaxed", WHOLE_MACHINE);
  return lines.filter((/** @type {Line} */ { kernel }) => kernel === "limit");
}

/** The files of the peers, made once from the same tensors. */
function makeWeights() {
  if (isMade(WEIGHTS)) return;
  console.log(`Making the peers' files in ${WEIGHTS}`);
  mkdirSync(WEIGHTS, { recursive: true });
  for (const type of /** @type {const} */ (["F32", "Q8_0", "Q4_0"])) writeGguf(join(WEIGHTS, `gpt2-${type}.gguf`), type);
  for (const kind of /** @type {const} */ (["f32", "int8", "int4"])) writeOnnx(join(WEIGHTS, `gpt2-${kind}.onnx`), kind);
  markMade(WEIGHTS);
}

function versions() {
  const version = (/** @type {string} */ name) => JSON.parse(readFileSync(join(PEERS, "npm/node_modules", name, "package.json"), "utf8")).version;
  const [, candle] = /name = "candle-core"\nversion = "([^"]+)"/.exec(readFileSync(local("tests/browser/bench/peers/candle/Cargo.lock"), "utf8")) ?? [];
  return { wllama: version("@wllama/wllama"), "onnxruntime-web": version("onnxruntime-web"), "candle-core": candle };
}

function show() {
  const read = record.limits.find(({ unit }) => unit === "GB/s");
  console.log(`\n${record.browser}; limits: ${record.limits.map(({ operation, best, unit }) => `${operation} ${best.toFixed(1)} ${unit}`).join(", ")}\n`);
  const rows = record.engines.map(({ name, precision, files, load, prefill, decode, agreement }) => [
    name,
    megabytes(files.at(-1).bytes),
    `${(load.median / 1000).toFixed(2)} s`,
    ...prefill.map((/** @type {{ tokensPerSecond: number }} */ { tokensPerSecond }) => tokensPerSecond.toFixed(1)),
    decode.tokensPerSecond.toFixed(1),
    percent((decode.tokensPerSecond * (BYTES_PER_WEIGHT[precision] ?? NaN) * READ_FOR_A_TOKEN) / 1e9, read?.best ?? NaN),
    agreement.tokens === undefined ? "products alone" : `${agreement.tokens} of ${agreement.of}`,
  ]);
  print(["engine", "file", "load", ...PROMPTS.map((tokens) => `prefill of ${tokens}`), "decode, tokens/s", "of the read bandwidth", "same tokens"], rows);
  console.log(`\nload average ${record.load.start.map((load) => load.toFixed(2)).join(" ")} at the start`);
}
