// A worker that is not one: engine.js talks to a MessagePort, and the test on its other end says what the worker says.

import assert from "node:assert/strict";
import { Engine } from "../www/engine.js";

/** @import { Answer, Build, Model, Request } from "../www/protocol.js" */
/** @import { EngineError } from "../www/errors.js" */

/** @type {Build} */
export const BUILD = { id: "b1", version: "0.1.0", name: "simd128", kernel: "simd128" };

/** @type {Model} */
export const MODEL = {
  name: "storyteller",
  architecture: "gpt2",
  parameters: 1000,
  layers: 2,
  context: 64,
  vocabulary: 100,
  precision: "f32",
  bytes: 4300,
  memory: { weights: 4000, cache: 0, scratch: 100, tokenizer: 200, total: 4300, wasm: 65536 },
  kernel: "simd128",
  build: "simd128",
  ignored: [],
};

/** A pace of nothing, for ends whose speed is not the point. */
export const STILL = { tokens: 0, ms: 0, tokensPerSecond: 0 };

/** @param {number} id */
export const token = (id) => ({ id, text: ` t${id}`, logprob: -id });

/**
 * One fake worker. `seen` holds every message that arrived.
 *
 * `script` names what it does on each type of request; without an entry it greets, opens and loads as a healthy worker does, and lets
 * everything else wait for the test to call `post`.
 */
export class FakeWorker extends EventTarget {
  /** All that live: an open port would keep the test's process from ending. @type {Set<FakeWorker>} */
  static #alive = new Set();

  static terminateAll() {
    for (const worker of FakeWorker.#alive) worker.terminate();
  }

  /** @type {any[]} */
  seen = [];
  terminated = false;
  #channel = new MessageChannel();
  /** @type {Record<string, (request: any, worker: FakeWorker) => void>} */
  #script;

  /** @param {Record<string, (request: any, worker: FakeWorker) => void>} [script] */
  constructor(script = {}) {
    super();
    FakeWorker.#alive.add(this);
    this.#script = { start: done(BUILD), open: done({}), load: loadsAs(MODEL), ...script };
    this.#channel.port1.onmessage = ({ data }) => {
      if (!this.terminated) this.dispatchEvent(new MessageEvent("message", { data }));
    };
    this.#channel.port2.onmessage = ({ data }) => {
      if (this.terminated) return;
      this.seen.push(data);
      this.#script[data.type]?.(data, this);
      this.dispatchEvent(new Event(`seen:${data.type}`));
    };
  }

  /** @param {any} message to the engine's side */
  postMessage(message) {
    this.#channel.port1.postMessage(message);
  }

  terminate() {
    this.terminated = true;
    this.#channel.port1.close();
    FakeWorker.#alive.delete(this);
  }

  /** @param {Answer | { type: string, id: number }} answer as the worker would post it */
  post(answer) {
    this.#channel.port2.postMessage(answer);
  }

  /** @param {string} message of the uncaught exception */
  die(message) {
    this.dispatchEvent(Object.assign(new Event("error", { cancelable: true }), { message }));
  }

  /**
   * @param {string} type
   * @returns {Promise<any>} the first request of that type, once it has arrived
   */
  async request(type) {
    for (;;) {
      const found = this.seen.find((message) => message.type === type);
      if (found) return found;
      await new Promise((resolve) => this.addEventListener(`seen:${type}`, resolve, { once: true }));
    }
  }
}

/**
 * The worker does not know the model's name: the engine does.
 *
 * @param {Model} model
 */
export function loadsAs(model) {
  return done(infoOf(model));
}

/** @param {Model} model */
export const infoOf = ({ name: _, ...info }) => info;

/** How MODEL stands once its cache has grown. */
export const GROWN = { ...MODEL, bytes: 4812, memory: { ...MODEL.memory, cache: 512, total: 4812 } };

/**
 * @param {unknown} value
 * @returns {(request: Request, worker: FakeWorker) => void}
 */
export function done(value) {
  return ({ id }, worker) => worker.post({ type: "done", id, value });
}

/**
 * @param {import("../www/protocol.js").ErrorCode} code
 * @param {string} message
 * @returns {(request: Request, worker: FakeWorker) => void}
 */
export function failed(code, message) {
  return ({ id }, worker) => worker.post({ type: "failed", id, error: { code, message } });
}

/** Lets every message that is under way arrive. */
export async function settle() {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** @typedef {ConstructorParameters<typeof FakeWorker>[0]} Script */

/**
 * An engine whose n-th worker follows the n-th script; later ones are healthy.
 *
 * @param {...Script} scripts
 */
export async function start(...scripts) {
  /** @type {FakeWorker[]} */
  const workers = [];
  const engine = await Engine.start({
    build: "simd128",
    createWorker() {
      const worker = new FakeWorker(scripts[workers.length]);
      workers.push(worker);
      return worker;
    },
  });
  /** @param {number} n */
  const worker = (n) => /** @type {FakeWorker} */ (workers[n]);
  return { engine, workers, worker };
}

/** @param {...Script} scripts */
export async function loaded(...scripts) {
  const all = await start(...scripts);
  await all.engine.load({ builtin: "storyteller" });
  return all;
}

/**
 * @param {Promise<unknown>} promise
 * @param {string} code
 * @param {RegExp} [message]
 */
export function rejects(promise, code, message = /./) {
  return assert.rejects(promise, (/** @type {EngineError} */ error) => {
    assert.equal(error.code, code);
    assert.match(error.message, message);
    return true;
  });
}

/**
 * @param {FakeWorker} worker
 * @param {number} id
 * @param {object} [end]
 */
export function finish(worker, id, end = {}) {
  const value = { reason: "length", text: "", prefill: STILL, decode: STILL, model: infoOf(MODEL), ...end };
  worker.post({ type: "done", id, value });
}
