// The benchmark of `cargo xtask bench`, in a real browser on the assembled site: it checks results, then times load, prefill and
// decode of every build and precision in turn, beside the machine's own limits, in one run.
//
// Usage: node bench.mjs [--browser Chromium|Firefox|WebKit] [--model FOLDER] [--rounds N] [--native FILE] [--sizes JSON]
//                       [--machine NAME] [--record FILE | --no-record]
// Without --model it measures a GPT-2 of 124 million random weights. --native is what `cargo bench --bench session` wrote.

import { readFileSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { By } from "selenium-webdriver";
import { call } from "./bench/call.mjs";
import { browserName, median, preamble, recordFile, WHOLE_MACHINE, write } from "./bench/record.mjs";
import { besideRounds, show, together } from "./bench/table.mjs";
import { makeCheckpoint } from "./bench/weights.mjs";
import { ENGINES } from "./engines.mjs";
import { hostSite } from "./site.mjs";
import { json, local } from "./suite.mjs";

/** @import { Build, Line, Measured } from "./bench/table.mjs" */

const BUILDS = ["simd128", "relaxed"];
/** Those that an engine may offer; which it does, it is asked. */
const PRECISIONS = ["f32", "q8", "q4"];
/** The prompt that is continued, and a longer one that is only read; tokens. */
const PROMPTS = [64, 256];
const NEW_TOKENS = 128;
/** A prompt that nearly fills GPT-2's context, and what is written after it. */
const LONG = { prompt: 944, newTokens: 64 };
const LOADS = 3;
/** What is measured of the machine before and after each round: a matrix of as many weights as GPT-2 124M has, several times. */
const LIMITS = { ...WHOLE_MACHINE, rounds: 3 };

const { values: options } = parseArgs({
  options: {
    browser: { type: "string", default: "Chromium" },
    model: { type: "string" },
    rounds: { type: "string", default: "5" },
    native: { type: "string" },
    sizes: { type: "string", default: "{}" },
    machine: { type: "string" },
    record: { type: "string" },
    "no-record": { type: "boolean", default: false },
  },
});

const engine = ENGINES.find(({ name }) => name.toLowerCase() === options.browser.toLowerCase());
if (!engine) throw new Error(`--browser is one of ${ENGINES.map(({ name }) => name).join(", ")}`);
if (engine.missing) throw new Error(engine.missing);

const folder = options.model ?? local("target/bench/gpt2-124m");
if (!options.model) makeCheckpoint(folder);
const record = {
  ...preamble(),
  browser: "",
  flags: JSON.parse(readFileSync(local("crate/webdriver.json"), "utf8")),
  model: options.model ? basename(options.model) : "GPT-2 124M of random weights",
  method: { prompts: PROMPTS, newTokens: NEW_TOKENS, long: LONG, rounds: Number(options.rounds), loads: LOADS, limits: LIMITS, figures: "medians; kernels: the mean of the medians and the best of what was measured before and after each round (natively: before and after all); beside: of the best before a round and after it, the mean" },
  tables: tables(folder),
  builds: /** @type {Build[]} */ ([]),
};
if (options.native) record.builds.push(JSON.parse(readFileSync(options.native, "utf8")));

const site = await hostSite();
const { driver, quit } = await engine.start();
try {
  record.browser = await browserName(driver);
  await driver.get(`${site.url}bench/page.html`);
  record.builds.push(...(await measure()));
} finally {
  await quit();
  site.close();
}
for (const build of record.builds) show(build, record.tables);
console.log(`\nload average ${record.load.start.map((load) => load.toFixed(2)).join(" ")} at the start`);
if (!options["no-record"]) {
  const what = [engine.name.toLowerCase(), ...(options.model ? [basename(options.model)] : [])].join("-");
  write(options.record ?? recordFile(record, what, options.machine), record);
}

/** Every build with every precision that it offers. @returns {Promise<Build[]>} */
async function measure() {
  const all = await startSubjects();
  const builds = BUILDS.map((build) => ({
    build,
    subjects: all.filter((subject) => subject.build === build),
    rounds: /** @type {[Line[], Line[]][]} */ ([]),
  })).filter(({ subjects }) => subjects.length > 0);
  await driver.findElement(By.css("input")).sendKeys(readdirSync(folder).map((name) => join(folder, name)).join("\n"));
  for (let i = 0; i < LOADS; i++) for (const subject of all) await load(subject);
  for (let round = 0; round < record.method.rounds; round++) {
    for (const { build, subjects, rounds } of builds) {
      // The machine is not quiet: its limits are taken before and after each round of a build.
      const before = await kernels(build);
      for (const subject of subjects) await run(subject, round);
      rounds.push([before, await kernels(build)]);
    }
    console.log(`round ${round + 1} of ${record.method.rounds}`);
  }
  for (const { name } of all) await call(driver, "bench", "dispose", name);
  const sizes = JSON.parse(options.sizes);
  return builds.map(({ build, subjects, rounds }) => ({
    build,
    wasm: sizes[build] ?? null,
    kernels: together(rounds.flat()),
    models: subjects.map((subject) => report(subject, rounds)),
  }));
}

/**
 * @typedef {object} Subject
 * @property {string} name
 * @property {string} build
 * @property {string} precision
 * @property {number} storytellerTokens
 * @property {any} model
 * @property {number[]} loads
 * @property {number[][]} prefills for each of PROMPTS, up to the first token
 * @property {number[]} decodes from the first token to the last
 * @property {number[]} longDecodes the same after the long prompt
 */

/** Finds out what the engine offers, by running the built-in model. @returns {Promise<Subject[]>} */
async function startSubjects() {
  const expected = json("www/models/storyteller/expected.json");
  /** @type {Subject[]} */
  const subjects = [];
  for (const build of BUILDS) {
    for (const precision of PRECISIONS) {
      const name = `${build} ${precision}`;
      try {
        await call(driver, "bench", "start", name, build);
      } catch (error) {
        console.log(`${build} does not run in this browser: ${error}`);
        break;
      }
      const written = await call(driver, "bench", "storyteller", name, precision, expected.prompt, expected.ids.length);
      if (!written) {
        await call(driver, "bench", "dispose", name);
        continue;
      }
      // What is timed below is worth nothing if it is wrong.
      if (precision === "f32" && written.text !== expected.text) throw new Error(`${name}: the built-in model wrote ${JSON.stringify(written.text)}`);
      const differs = written.ids.findIndex((/** @type {number} */ id, /** @type {number} */ i) => id !== expected.ids[i]);
      const storytellerTokens = differs < 0 ? written.ids.length : differs;
      subjects.push({ name, build, precision, storytellerTokens, model: null, loads: [], prefills: PROMPTS.map(() => []), decodes: [], longDecodes: [] });
    }
  }
  return subjects;
}

/** @param {Subject} subject */
async function load(subject) {
  const { ms, model } = await call(driver, "bench", "load", subject.name, subject.precision);
  subject.loads.push(ms);
  subject.model = model;
}

/**
 * @param {Subject} subject
 * @param {number} round
 */
async function run({ name, model, prefills, decodes, longDecodes }, round) {
  let turn = round * (PROMPTS.length + 1);
  for (const [i, tokens] of PROMPTS.entries()) {
    const { firstMs, restMs } = await written(tokens, i === 0 ? NEW_TOKENS : 1);
    prefills[i]?.push(firstMs);
    if (i > 0) continue;
    decodes.push(restMs);
    // Next to each other: what they are to each other is told round by round, and the machine is not quiet.
    if (model.context >= LONG.prompt + LONG.newTokens) {
      longDecodes.push((await written(LONG.prompt, LONG.newTokens)).restMs);
    }
  }

  /** What came of a prompt of so many tokens. */
  async function written(/** @type {number} */ tokens, /** @type {number} */ newTokens) {
    const prompt = await call(driver, "bench", "prompt", name, tokens, turn++);
    const run = await call(driver, "bench", "run", name, prompt, newTokens);
    if (run.promptTokens !== tokens || run.tokens.length !== newTokens) {
      throw new Error(`${name}: read ${run.promptTokens} of ${tokens} tokens, wrote ${run.tokens.length} of ${newTokens}`);
    }
    model.memory = run.memory;
    return run;
  }
}

/**
 * @param {Subject} subject
 * @param {[Line[], Line[]][]} rounds what was measured before and after each
 * @returns {Measured}
 */
function report({ precision, storytellerTokens, model, loads, prefills, decodes, longDecodes }, rounds) {
  const pace = (/** @type {number} */ tokens, /** @type {number[]} */ ms) => ({ tokens, tokensPerSecond: (1000 * tokens) / median(ms), ms });
  return {
    precision,
    kernel: model.kernel,
    parameters: model.parameters,
    storytellerTokens,
    load: { ms: loads, median: median(loads) },
    memory: model.memory,
    prefill: PROMPTS.map((tokens, i) => pace(tokens, prefills[i] ?? [])),
    decode: pace(NEW_TOKENS - 1, decodes),
    longDecode: longDecodes.length > 0 ? pace(LONG.newTokens - 1, longDecodes) : null,
    beside: besideRounds(rounds, model.kernel, precision),
  };
}

/**
 * The kernels of a build beside the machine's limits, as a worker of its own measures them.
 *
 * @param {string} build
 * @returns {Promise<Line[]>}
 */
async function kernels(build) {
  return (await call(driver, "bench", "measure", build, LIMITS)).lines;
}

/**
 * @param {string} folder
 * @returns {import("./bench/table.mjs").Tables}
 */
function tables(folder) {
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
  const width = config.n_embd ?? config.word_embed_proj_dim ?? config.hidden_size;
  const positions = (config.n_positions ?? config.max_position_embeddings + 2) * (config.n_embd ?? config.hidden_size);
  return { vocabulary: config.vocab_size * width, positions };
}
