// A pkg without wasm: what worker.js calls, doing what the test's prompt or config says. Copied to where a build of pkg would be.

/** @import { NamedBlob, Sampling } from "../www/protocol.js" */

export default async function init() {}

export const build = () => ({ id: "fake", version: "0.1.0", name: "simd128", kernel: "none" });
export const calibrate = () => {};

/** @type {string | undefined} */
let panic;
export const lastPanic = () => panic;

/** @param {string} how */
export function crash(how) {
  if (how === "panic") panic = "panicked at fake-pkg.mjs";
  if (how === "stack") throw new RangeError("Maximum call stack size exceeded");
  throw new WebAssembly.RuntimeError("unreachable");
}

/**
 * @param {string} code
 * @param {string} message
 */
const failure = (code, message) => Object.assign(new Error(message), { code });

/** Sizes of config.json that mean something. */
export const REFUSED_BYTES = 13;
export const TRAPPING_BYTES = 14;
/** Those with which a load fails after some steps. */
export const UNREADABLE_BYTES = 16;
export const EXHAUSTING_BYTES = 17;

/** A measurement of so many rows traps. */
export const TRAPPING_ROWS = 15;

export const estimate = () => ({});

/**
 * What was asked for, as figures.
 *
 * @param {() => number} now
 * @param {number} rows
 * @param {number} rounds
 */
export function measure(now, rows, rounds) {
  if (rows === TRAPPING_ROWS) throw new WebAssembly.RuntimeError("unreachable");
  return [{ kernel: "limit", operation: typeof now(), median: rows, best: rounds, unit: "GB/s", limit: null }];
}

export class Candidate {
  /** @param {NamedBlob[]} files */
  constructor(files) {
    const size = files.find(({ name }) => name === "config.json")?.blob.size;
    this.size = size;
    if (size === REFUSED_BYTES) throw failure("bad-config", "config.json: refused");
    if (size === TRAPPING_BYTES) crash("panic");
  }

  plan() {
    return {};
  }

  /**
   * @param {string} precision
   * @param {(done: number, total: number) => void} onProgress
   */
  load(precision, onProgress) {
    return new Loading(this.size, precision, onProgress);
  }
}

/** Reads in three steps; the second promise is broken, of which only the step after it might tell. */
class Loading {
  #step = 0;

  /**
   * @param {number | undefined} size
   * @param {string} precision
   * @param {(done: number, total: number) => void} onProgress
   */
  constructor(size, precision, onProgress) {
    this.size = size;
    this.precision = precision;
    this.onProgress = onProgress;
  }

  step() {
    this.#step += 1;
    if (this.#step === 1) return { reading: Promise.resolve() };
    if (this.#step === 2) return { reading: Promise.reject(new Error("the step after this one says what failed")) };
    if (this.size === UNREADABLE_BYTES) throw failure("read-failed", "model.safetensors cannot be read");
    if (this.size === EXHAUSTING_BYTES) crash("memory");
    for (let done = 0; done <= 1000; done++) this.onProgress(done, 1000);
    return { session: new Session(this.precision) };
  }

  free() {}
}

class Session {
  /** @param {string} precision */
  constructor(precision) {
    this.precision = precision;
  }

  info() {
    return { architecture: "fake", precision: this.precision, memory: { cache: Generation.alive } };
  }

  /** @param {string} text */
  tokenize(text) {
    return [...text].map((text, id) => ({ id, text }));
  }

  /**
   * @param {string} prompt
   * @param {Sampling} options
   */
  generate(prompt, options) {
    if (prompt === "") throw failure("bad-request", "the prompt is empty");
    return new Generation(prompt, options);
  }

  /** @param {string} text */
  score(text) {
    return new Generation("score", { maxNewTokens: text === "endless" ? Infinity : 2 });
  }
}

/** How long a step of a generation takes. */
const STEP_MS = 0.05;

/** Reads two chunks of its prompt, then writes `maxNewTokens` tokens. */
class Generation {
  /** How many were made and not freed. */
  static alive = 0;

  seed = 5;
  promptTokens = 2;
  reusedTokens = 0;
  steps = 0;

  /**
   * @param {string} prompt
   * @param {Sampling} options
   */
  constructor(prompt, { maxNewTokens = Infinity }) {
    this.prompt = prompt;
    this.maxNewTokens = maxNewTokens;
    Generation.alive++;
  }

  step() {
    // The least that a model takes: the worker lets every step pass that fits between two turns of its event loop.
    const until = performance.now() + STEP_MS;
    while (performance.now() < until);

    const written = this.steps++ - 2;
    if (this.prompt === "score") {
      if (this.steps > this.maxNewTokens) return { end: { tokens: [], perplexity: 2, bitsPerByte: 1, more: "for nobody" } };
      return { progress: { done: this.steps, total: 1e9 } };
    }
    if (written < 0) return { prefill: { done: written + 3, total: 2 } };
    if (this.prompt === "late trap" && written === 10) crash("panic");
    if (this.prompt === "late defect" && written === 10) throw new TypeError("x is not a function");
    if (this.prompt === "trap") crash("panic");
    if (this.prompt === "stack") crash("stack");
    if (this.prompt === "defect") throw new TypeError("x is not a function");
    if (this.prompt === "memory") throw failure("out-of-memory", "not enough memory");
    if (written === this.maxNewTokens) return { end: { reason: "length", text: "!" } };
    return { token: { id: written, text: "x", logprob: -1 } };
  }

  finish() {
    return { reason: "cancelled", text: "?" };
  }

  free() {
    Generation.alive--;
  }
}
