// A generation under way: an async iterator of its tokens, and a promise of its result.

import { EngineError } from "../errors.js";

/** @import { GenerationEnd, GenerationResult, Token } from "../protocol.js" */

/**
 * `for await (const token of run)` yields the tokens as they come; leaving the loop early cancels the run and waits until
 * it has stopped. `run.result` may be awaited with or without iterating.
 *
 * @implements {AsyncIterable<Token>}
 */
export class Run {
  /** @type {Token[]} */
  #tokens = [];
  #text = "";
  #over = false;
  #calledAt = performance.now();
  #timeToFirstTokenMs = NaN;
  #seed = NaN;
  #cancel = () => {};
  #news = deferred();
  /** @type {Deferred<GenerationResult>} */
  #result = deferred();
  /** @type {Deferred<{ seed: number, promptTokens: number }>} */
  #started = deferred();

  constructor() {
    // A caller who only iterates must not see unhandled rejections.
    this.#result.promise.catch(() => {});
    this.#started.promise.catch(() => {});
  }

  /** How the run ended. Rejects if it failed; a cancelled run has not failed. */
  get result() {
    return this.#result.promise;
  }

  /** The seed that is used and the length of the prompt, before the first token. */
  get started() {
    return this.#started.promise;
  }

  /** The continuation so far. */
  get text() {
    return this.#text;
  }

  /**
   * Asks the run to stop, which it does within one token or prefill chunk. The text so far is kept.
   *
   * @returns {Promise<GenerationResult>} `result`
   */
  cancel() {
    if (!this.#over) this.#cancel();
    return this.#result.promise;
  }

  async *[Symbol.asyncIterator]() {
    let next = 0;
    try {
      for (;;) {
        while (next < this.#tokens.length) yield /** @type {Token} */ (this.#tokens[next++]);
        if (this.#over) break;
        await this.#news.promise;
      }
      await this.#result.promise; // throws what made the run fail
    } finally {
      if (!this.#over) await this.cancel();
    }
  }

  // ---- For engine.js ----

  /** @param {() => void} cancel sends the worker a `cancel` */
  whenCancelled(cancel) {
    this.#cancel = cancel;
  }

  /** @param {{ seed: number, promptTokens: number }} start */
  begin(start) {
    this.#seed = start.seed;
    this.#started.resolve(start);
  }

  /** @param {Token[]} tokens */
  push(tokens) {
    if (this.#tokens.length === 0) this.#timeToFirstTokenMs = performance.now() - this.#calledAt;
    for (const token of tokens) {
      this.#tokens.push(token);
      this.#text += token.text;
    }
    this.#wake();
  }

  /** @param {Pick<GenerationEnd, "reason" | "text" | "prefill" | "decode">} end */
  finish({ reason, text, prefill, decode }) {
    this.#over = true;
    this.#text += text;
    this.#result.resolve({
      reason,
      text: this.#text,
      tokens: this.#tokens,
      seed: this.#seed,
      timeToFirstTokenMs: this.#timeToFirstTokenMs,
      prefill,
      decode,
    });
    this.#wake();
  }

  /** @param {EngineError} error */
  fail(error) {
    this.#over = true;
    this.#started.reject(error);
    this.#result.reject(error);
    this.#wake();
  }

  #wake() {
    const waiting = this.#news;
    this.#news = deferred();
    waiting.resolve(undefined);
  }
}

/**
 * @template T
 * @typedef {{ promise: Promise<T>, resolve: (value: T) => void, reject: (error: Error) => void }} Deferred
 */

/**
 * @template [T=void]
 * @returns {Deferred<T>}
 */
function deferred() {
  /** @type {any} */
  let settle;
  const promise = new Promise((resolve, reject) => (settle = { resolve, reject }));
  return { promise, ...settle };
}
