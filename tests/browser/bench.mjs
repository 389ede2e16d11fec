// The benchmark of `cargo xtask bench`: in a real browser, on the assembled site. It checks the result, then times it, beside
// the machine's own limits, in one run.
//
// Usage: node bench.mjs [--browser Chromium|Firefox|WebKit] [--model FOLDER] [--record FILE]
// Without --model it makes a GPT-2 of 124 million random weights.

import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { By } from "selenium-webdriver";
import { gpt2Shapes, safetensorsHeader, withVocabulary } from "./checkpoints.mjs";
import { ENGINES } from "./engines.mjs";
import { Page } from "./page.mjs";
import { SITE, hostSite } from "./site.mjs";
import { json } from "./suite.mjs";

/** @import { WebDriver } from "selenium-webdriver" */

const GPT2 = { layers: 12, hidden: 768, context: 1024, vocabulary: 50257 };
const PROMPT_WORDS = 64;
const NEW_TOKENS = 48;
const ROUNDS = 5;

const { values: options } = parseArgs({
  options: { browser: { type: "string" }, model: { type: "string" }, record: { type: "string" } },
});

const engine = ENGINES.find(({ name }) => name.toLowerCase() === (options.browser ?? "chromium").toLowerCase());
if (!engine) throw new Error(`--browser is one of ${ENGINES.map(({ name }) => name).join(", ")}`);
if (engine.missing) throw new Error(engine.missing);

const scratch = mkdtempSync(join(tmpdir(), "vitrine-bench-"));
const site = await hostSite();
const { driver, quit } = await engine.start();
try {
  const folder = options.model ?? randomGpt2(join(scratch, "gpt2"));
  const record = {
    date: new Date().toISOString(),
    commit: commit(),
    machine: { processor: cpus()[0]?.model ?? "unknown", cores: cpus().length },
    browser: await browserName(driver),
    model: options.model ?? "GPT-2 124M, random weights, f32",
    tables: tables(folder),
    builds: /** @type {object[]} */ ([]),
  };
  for (const build of ["simd128", "relaxed"]) {
    const page = await Page.open(driver, `${site.url}?build=${build}`).catch(() => null);
    if (!page) {
      console.log(`${build}: does not run in this browser`);
      continue;
    }
    await checkStoryteller(page);
    // The machine is not quiet: its limits are taken before and after.
    const before = await kernels(build);
    const whole = await measure(page, folder);
    const after = await kernels(build);
    const measured = { build, wasm: wasmSize(build), ...whole, kernels: before.map((line, i) => between(line, after[i] ?? line)) };
    record.builds.push(measured);
    show(measured, record.tables);
  }
  if (options.record) {
    mkdirSync(dirname(options.record), { recursive: true });
    writeFileSync(options.record, `${JSON.stringify(record, null, 2)}\n`);
    console.log(`\nRecorded in ${options.record}`);
  }
} finally {
  await quit();
  site.close();
  rmSync(scratch, { recursive: true, force: true });
}

/** What is timed below is worth nothing if it is wrong. @param {Page} page */
async function checkStoryteller(page) {
  const expected = json("www/models/storyteller/expected.json");
  await page.fill("textbox", "Prompt", expected.prompt);
  await page.setGreedy(expected.ids.length);
  const text = await page.generate();
  if (text !== expected.text) throw new Error(`the built-in model wrote ${JSON.stringify(text)}`);
}

/**
 * Loads the model and writes with it.
 *
 * @param {Page} page
 * @param {string} folder
 */
async function measure(page, folder) {
  // An input of our own: the page's would start its own load, and what is timed here is the engine's.
  await driver.executeScript(`
    const input = document.createElement("input");
    Object.assign(input, { type: "file", multiple: true, id: "bench" });
    document.body.append(input);
  `);
  const files = readdirSync(folder).map((name) => join(folder, name));
  await driver.findElement(By.css("#bench")).sendKeys(files.join("\n"));
  const prompt = Array.from({ length: PROMPT_WORDS }, (_, i) => ["the", "old", "king", "went", "home"][i % 5]).join(" ");
  const result = await driver.executeAsyncScript(
    `const [prompt, maxNewTokens, rounds, done] = arguments;
     (async () => {
       const { engine } = vitrine;
       const files = [...document.querySelector("#bench").files];
       const start = performance.now();
       const model = await engine.load({ files });
       const loadMs = performance.now() - start;
       const runs = [];
       for (let round = 0; round < rounds; round++) {
         // Another first word each time, so that nothing of the last round's cache can be used again.
         const run = engine.generate(round + " " + prompt, { maxNewTokens, temperature: 0 });
         const { prefill, decode, timeToFirstTokenMs } = await run.result;
         runs.push({ prefill, decode, timeToFirstTokenMs });
       }
       return { model: { parameters: model.parameters, kernel: model.kernel, memory: engine.model.memory }, loadMs, runs };
     })().then(done, (error) => done({ failed: String(error.message) }));`,
    prompt,
    NEW_TOKENS,
    ROUNDS,
  );
  const { failed, model, loadMs, runs } = /** @type {any} */ (result);
  if (failed) throw new Error(failed);
  const median = (/** @type {(run: any) => number} */ of) => runs.map(of).sort((/** @type {number} */ a, /** @type {number} */ b) => a - b)[runs.length >> 1];
  return {
    ...model,
    loadMs: Math.round(loadMs),
    promptTokens: runs[0].prefill.tokens,
    prefillTokensPerSecond: median((run) => run.prefill.tokensPerSecond),
    decodeTokensPerSecond: median((run) => run.decode.tokensPerSecond),
  };
}

/**
 * A line of the kernels' table; `limit` is the index of the line that bounds it.
 *
 * @typedef {{ kernel: string, operation: string, median: number, best: number, unit: string, limit: number | null }} Line
 */

/**
 * The kernels of a build beside the machine's limits, as a worker of its own measures them.
 *
 * @param {string} build
 * @returns {Promise<Line[]>}
 */
async function kernels(build) {
  const measured = await driver.executeAsyncScript(
    `const [build, done] = arguments;
     const worker = new Worker("bench/measure.js?build=" + build, { type: "module" });
     const answer = (data) => { worker.terminate(); done(data); };
     worker.onmessage = ({ data }) => answer(data);
     worker.onerror = ({ message }) => answer({ failed: message });`,
    build,
  );
  const { failed, lines } = /** @type {any} */ (measured);
  if (failed) throw new Error(failed);
  return lines;
}

/**
 * @param {Line} before
 * @param {Line} after
 * @returns {Line}
 */
function between(before, after) {
  return { ...before, median: (before.median + after.median) / 2, best: (before.best + after.best) / 2 };
}

/**
 * Numbers in a model's tables: a token takes one row of each, and only the last one of a prompt is multiplied with the
 * vocabulary.
 *
 * @param {string} folder
 */
function tables(folder) {
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
  const width = config.n_embd ?? config.word_embed_proj_dim ?? config.hidden_size;
  const vocabulary = config.vocab_size * width;
  const positions = (config.n_positions ?? config.max_position_embeddings + 2) * (config.n_embd ?? config.hidden_size);
  return { vocabulary, positions };
}

/**
 * @param {any} measured
 * @param {{ vocabulary: number, positions: number }} tables
 */
function show({ build, wasm, kernels, parameters, kernel, memory, loadMs, promptTokens, ...speeds }, tables) {
  const { prefillTokensPerSecond: prefill, decodeTokensPerSecond: decode } = speeds;
  const lines = /** @type {Line[]} */ (kernels);
  const read = /** @type {Line} */ (lines.find(({ kernel, unit }) => kernel === "limit" && unit === "GB/s"));
  const matmul = /** @type {Line} */ (lines.find((line) => line.kernel === kernel && line.operation.startsWith("matmul")));
  const peak = lines[matmul.limit ?? 0] ?? read;
  const reads = (4 * (parameters - tables.positions) * decode) / 1e9; // every weight is read once for a token
  const blocks = parameters - tables.vocabulary - tables.positions;
  const multiplied = (prefill * (blocks + tables.vocabulary / promptTokens)) / 1e9;
  const line = (/** @type {string} */ name, /** @type {string} */ value) => console.log(`  ${name.padEnd(18)} ${value}`);
  const gb = (/** @type {number} */ bytes) => `${(bytes / 1e9).toFixed(2)} GB`;
  console.log(`\n${build}: ${kernel}`);
  line("wasm", `${(wasm.bytes / 1e6).toFixed(2)} MB, gzipped ${(wasm.gzipped / 1e6).toFixed(2)} MB`);
  line("load", `${(loadMs / 1000).toFixed(1)} s, ${gb(memory.wasm)} of wasm memory, ${gb(memory.weights)} of weights`);
  line("prefill", `${prefill.toFixed(1)} tokens/s of ${promptTokens}: ${multiplied.toFixed(1)} GMAC/s, ${percent(multiplied, peak.median)} of ${peak.operation}`);
  line("decode", `${decode.toFixed(1)} tokens/s: ${reads.toFixed(2)} GB/s, ${percent(reads, read.median)} of the read bandwidth`);
  console.log(`\n  ${"kernel".padEnd(14)}${"operation".padEnd(36)}${"median".padStart(10)}  ${"unit".padEnd(8)}of limit`);
  for (const { kernel, operation, median, unit, limit } of lines) {
    const share = limit === null ? "" : percent(median, lines[limit]?.median ?? NaN);
    console.log(`  ${kernel.padEnd(14)}${operation.padEnd(36)}${median.toFixed(3).padStart(10)}  ${unit.padEnd(8)}${share}`);
  }
}

/**
 * @param {number} reached
 * @param {number} limit
 */
function percent(reached, limit) {
  return `${Math.round((100 * reached) / limit)} %`;
}

/** @param {string} build */
function wasmSize(build) {
  const wasm = readFileSync(join(SITE, "pkg", build, "vitrine_bg.wasm"));
  return { bytes: wasm.length, gzipped: gzipSync(wasm, { level: 9 }).length };
}

/** The commit that was measured, marked where the files differ from it; null outside a checkout. */
function commit() {
  try {
    return execFileSync("git", ["describe", "--always", "--dirty", "--abbrev=12"], { encoding: "utf8" }).trim();
  } catch {
    return null;
  }
}

/** @param {WebDriver} driver */
async function browserName(driver) {
  const capabilities = await driver.getCapabilities();
  return `${capabilities.getBrowserName()} ${capabilities.getBrowserVersion()}`;
}

/**
 * GPT-2 in its published size and layout, in f32, with weights of the size that trained ones have.
 *
 * @param {string} folder
 */
function randomGpt2(folder) {
  mkdirSync(folder, { recursive: true });
  const { config, tokenizer } = withVocabulary(GPT2);
  writeFileSync(join(folder, "config.json"), config);
  writeFileSync(join(folder, "tokenizer.json"), tokenizer);
  const { header, bytes } = safetensorsHeader(gpt2Shapes(GPT2), "F32");
  const file = openSync(join(folder, "model.safetensors"), "w");
  writeSync(file, header);
  const block = new Float32Array(1 << 20);
  let state = 1;
  for (let i = 0; i < block.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    block[i] = (state / 2 ** 32 - 0.5) * 0.07;
  }
  for (let left = bytes; left > 0; left -= block.byteLength) {
    writeSync(file, new Uint8Array(block.buffer, 0, Math.min(left, block.byteLength)));
  }
  closeSync(file);
  return folder;
}
