// The worker: answers requests by calling the wasm. The only importer of pkg/.
//
// Every call into the wasm is synchronous and, but for a measurement and the steps of a load, short; between two steps the worker
// takes a turn of its event loop, and so hears a `cancel`. After a trap the wasm's memory can no longer be trusted, so the request fails as
// `crashed`, which makes the engine end this worker. Any other exception without a code is a defect that the worker survives:
// `internal`.

import { EngineError, isFailure, messageOf } from "./errors.js";
import { gather } from "./fetching/gather.js";
import { Downloads, sweepDownloads } from "./fetching/storage.js";
import { measure } from "./measuring.js";

/** @import { Answer, Build, CrashRequest, GenerateRequest, GenerationEnd, OpenRequest } from "./protocol.js" */
/** @import { Cancel, Failure, LoadRequest, ModelInfo, Request, ScoreEnd, ScoreRequest, StartRequest, Token } from "./protocol.js" */
/** @import { Candidate, Pkg, Session } from "./engine/surface.js" */

/** Of the worker's side; see protocol.js. */
const PROTOCOL = 2;

/**
 * Tokens are sent at most this often, the first one at once, and a cancel is looked for: every other frame, since a message and a
 * turn of the event loop together take a fifth of a millisecond.
 */
const BATCH_MS = 33;

/** News of a load is given at most this often. */
const PROGRESS_INTERVAL_MS = 50;

const SITE = new URL("./", import.meta.url).href;

/** @type {Pkg} */
let pkg;
/** What was opened and is not loaded yet. @type {{ candidate: Candidate, precision: string, downloads: Downloads } | null} */
let opened = null;
/** @type {Session | null} */
let session = null;
/** The request under way, and whether the engine asked to cancel it. @type {{ id: number, cancelled: boolean } | null} */
let current = null;

/** @param {Answer} answer */
const post = (answer) => self.postMessage(answer);

self.addEventListener("message", (event) => {
  const message = /** @type {Request | Cancel} */ (event.data);
  if (message.type !== "cancel") void answer(message);
  else if (current?.id === message.id) current.cancelled = true;
});

/** @param {Request} request */
async function answer(request) {
  const { id } = request;
  try {
    if (current) throw new EngineError("busy", "the worker is at another request");
    current = { id, cancelled: false };
    post({ type: "done", id, value: await carryOut(request) });
  } catch (error) {
    post({ type: "failed", id, error: failureOf(error) });
  } finally {
    if (current?.id === id) current = null;
  }
}

/**
 * @param {Request} request
 * @returns {Promise<unknown> | unknown}
 */
function carryOut(request) {
  switch (request.type) {
    case "start":
      return start(request);
    case "open":
      return open(request);
    case "load":
      return load(request);
    case "generate":
      return generate(request);
    case "score":
      return score(request);
    case "tokenize":
      return theSession().tokenize(request.text);
    case "measure":
      return measure(pkg, request);
    case "crash":
      return pkg.crash(request.how);
    default:
      throw new EngineError("bad-request", `the worker knows no request "${/** @type {Request} */ (request).type}"`);
  }
}

/**
 * @param {unknown} error
 * @returns {Failure}
 */
function failureOf(error) {
  if (isFailure(error)) return { code: error.code, message: error.message };
  const said = messageOf(error);
  if (!isCrash(error)) return { code: "internal", message: `a defect of the engine: ${said}` };
  // An allocation that fails ends in `unreachable` without a panic.
  const hint = /unreachable/i.test(said) ? "; most often, memory has run out" : "";
  return { code: "crashed", message: `the engine crashed: ${panicText() ?? said + hint}` };
}

/**
 * Whether the wasm trapped. A stack that overflows is an exception of JavaScript's, whichever side ran out of it, and of
 * another class in Firefox.
 *
 * @param {unknown} error
 */
function isCrash(error) {
  if (error instanceof WebAssembly.RuntimeError || panicText() !== undefined) return true;
  return error instanceof Error && /^(Maximum call stack|too much recursion)/.test(error.message);
}

/** What the wasm's panic said, if it panicked and can still be asked. */
function panicText() {
  try {
    return pkg?.lastPanic();
  } catch {
    return undefined;
  }
}

/**
 * @param {StartRequest} request
 * @returns {Promise<Build>}
 */
async function start({ protocol, build }) {
  if (protocol !== PROTOCOL) throw mismatch(`engine.js speaks protocol ${protocol}, worker.js ${PROTOCOL}`);
  void sweepDownloads();
  const { id } = await siteBuild();
  const folder = new URL(`pkg/${build}/`, SITE);
  try {
    // The id in the URLs keeps a cache from answering with another build.
    const version = `?build=${encodeURIComponent(id)}`;
    pkg = await import(new URL(`vitrine.js${version}`, folder).href);
    await pkg.default({ module_or_path: new URL(`vitrine_bg.wasm${version}`, folder) });
  } catch (error) {
    throw new EngineError("start-failed", `pkg/${build} could not be started: ${messageOf(error)}`, error);
  }
  const found = pkg.build();
  if (found.id !== id) throw mismatch(`build.json says ${id}, the wasm ${found.id}`);
  pkg.calibrate(() => performance.now());
  return found;
}

/** @returns {Promise<{ id: string, version: string }>} */
async function siteBuild() {
  try {
    const response = await fetch(new URL("build.json", SITE), { cache: "no-cache" });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const build = await response.json();
    if (typeof build.id !== "string") throw new Error("it has no id");
    return build;
  } catch (error) {
    throw new EngineError("start-failed", `build.json, which names the engine's build, cannot be read: ${messageOf(error)}`, error);
  }
}

/** @param {string} what */
const mismatch = (what) =>
  new EngineError("build-mismatch", `parts of the engine are of different builds (${what}); reload the page in a minute`);

/** @param {OpenRequest} request */
async function open({ id, source, precision, hub }) {
  const downloads = new Downloads();
  try {
    const files = await gather(source, {
      hub,
      site: SITE,
      downloads,
      onProgress: ({ file, done, total }) => post({ type: "progress", id, stage: "download", file, done, total }),
      // What is wrong with a config, or too big, is said before half a gigabyte of weights is fetched.
      onConfig: async ({ blob }) => void pkg.estimate(await blob.text(), precision),
    });
    const candidate = new pkg.Candidate(files);
    const plan = candidate.plan(precision);
    opened = { candidate, precision, downloads };
    return plan;
  } catch (error) {
    await downloads.release();
    throw error;
  }
}

/**
 * @param {LoadRequest} request
 * @returns {Promise<ModelInfo>}
 */
async function load({ id }) {
  if (!opened) throw new EngineError("bad-request", "nothing was opened");
  const { candidate, precision, downloads } = opened;
  opened = null;
  let lastNews = -Infinity;
  try {
    const loading = candidate.load(precision, (done, total) => {
      if (done < total && performance.now() - lastNews < PROGRESS_INTERVAL_MS) return;
      lastNews = performance.now();
      post({ type: "progress", id, stage: "load", done, total });
    });
    session = await stepping(loading, () => {
      const step = loading.step();
      return step.session ?? step.reading?.then(nothing, nothing);
    });
  } finally {
    await downloads.release();
  }
  return session.info();
}

function theSession() {
  if (!session) throw new EngineError("no-model", "no model is loaded");
  return session;
}

/**
 * @param {GenerateRequest} request
 * @returns {Promise<GenerationEnd>}
 */
async function generate({ id, prompt, options }) {
  const startedAt = performance.now();
  const generation = theSession().generate(prompt, options);
  const { seed, promptTokens, reusedTokens } = generation;
  post({ type: "started", id, seed, promptTokens });
  const batch = new TokenBatch(id);
  const step = () => {
    if (current?.cancelled) return generation.finish();
    const { prefill, token, end } = generation.step();
    if (token) batch.add(token);
    if (prefill) post({ type: "progress", id, stage: "prefill", done: prefill.done, total: prefill.total });
    return end;
  };
  // A step that fails takes nothing from those before it.
  const end = await stepping(generation, step).finally(() => batch.flush());
  const { firstAt, lastAt, count } = batch;
  return {
    reason: end.reason,
    text: end.text,
    prefill: pace(promptTokens - reusedTokens, (count > 0 ? firstAt : performance.now()) - startedAt),
    decode: pace(Math.max(0, count - 1), lastAt - firstAt),
    model: theSession().info(),
  };
}

/** Collects tokens and sends them, not one by one, but soon. */
class TokenBatch {
  count = 0;
  firstAt = 0;
  lastAt = 0;
  #sentAt = -Infinity;
  /** @type {Token[]} */
  #waiting = [];
  #id;

  /** @param {number} id of the request */
  constructor(id) {
    this.#id = id;
  }

  /** @param {Token} token */
  add(token) {
    this.lastAt = performance.now();
    if (this.count++ === 0) this.firstAt = this.lastAt;
    this.#waiting.push(token);
    if (this.lastAt - this.#sentAt >= BATCH_MS) this.flush();
  }

  flush() {
    if (this.#waiting.length === 0) return;
    post({ type: "tokens", id: this.#id, tokens: this.#waiting });
    this.#waiting = [];
    this.#sentAt = performance.now();
  }
}

/**
 * @param {number} tokens
 * @param {number} ms
 */
function pace(tokens, ms) {
  return { tokens, ms, tokensPerSecond: tokens > 0 && ms > 0 ? (tokens * 1000) / ms : 0 };
}

/**
 * @param {ScoreRequest} request
 * @returns {Promise<ScoreEnd>}
 */
async function score({ id, text }) {
  const scoring = theSession().score(text);
  const { tokens, perplexity, bitsPerByte } = await stepping(scoring, () => {
    if (current?.cancelled) throw new EngineError("cancelled", "the score was cancelled");
    const { progress, end } = scoring.step();
    if (progress) post({ type: "progress", id, stage: "score", done: progress.done, total: progress.total });
    return end;
  });
  return { score: { tokens, perplexity, bitsPerByte }, model: theSession().info() };
}

/**
 * Calls `step` until it returns something, waiting where it returns a promise, with a turn of the event loop first and every {@link BATCH_MS},
 * then frees the stepper; not after a crash, when nothing of the wasm may be touched any more.
 *
 * @template T
 * @param {{ free: () => void }} stepper
 * @param {() => T | undefined | Promise<undefined>} step
 * @returns {Promise<T>}
 */
async function stepping(stepper, step) {
  try {
    let end;
    let turnedAt = -Infinity;
    while (end === undefined) {
      if (performance.now() - turnedAt >= BATCH_MS) {
        await turn();
        turnedAt = performance.now();
      }
      end = await step();
    }
    stepper.free();
    return end;
  } catch (error) {
    if (isFailure(error) || !isCrash(error)) stepper.free();
    throw error;
  }
}

const nothing = () => undefined;

const clock = new MessageChannel();
/** @type {() => void} */
let tick = () => {};
clock.port1.onmessage = () => tick();

/** One turn of the event loop; a timer's would take 4 ms. */
function turn() {
  return new Promise((resolve) => {
    tick = () => resolve(undefined);
    clock.port2.postMessage(null);
  });
}
