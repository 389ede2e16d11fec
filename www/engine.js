// The public API of Vitrine: open language models, run in a worker of this tab.
//
// It knows workers and messages, and no DOM: it serves any page. One model is loaded at a time, one request runs at a time.

import { chooseBuild, detectCapabilities, FLOOR } from "./capabilities.js";
import { Connection } from "./engine/connection.js";
import { nameOf, wireCount, wirePrecision, wireSampling, wireSource, wireText } from "./engine/requests.js";
import { Run } from "./engine/run.js";
import { EngineError, messageOf } from "./errors.js";
import { sweepDownloads } from "./fetching/storage.js";

/** @import { WorkerLike } from "./engine/connection.js" */
/** @import { Build, BuildName, GenerateOptions, GenerationEnd, LoadOptions, Measurement, MeasureOptions } from "./protocol.js" */
/** @import { Model, ModelInfo, News, Score, ScoreEnd, ScoreOptions, Source, TextToken } from "./protocol.js" */

export { EngineError, isFailure } from "./errors.js";

/** The version of this API. */
export const VERSION = "0.1.0";

const HUB = "https://huggingface.co";

/**
 * @typedef {object} StartOptions
 * @property {string} [hub] base URL of the model hub
 * @property {BuildName} [build] of pkg; the best one for this browser if not given
 * @property {() => WorkerLike} [createWorker] for tests
 */

/** @returns {WorkerLike} */
const createModuleWorker = () => new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "vitrine" });

export class Engine {
  #createWorker;
  #hub;
  #buildName;
  /** The worker that holds the model. @type {Connection | null} */
  #current = null;
  /** A worker that was greeted and holds nothing yet. @type {Connection | null} */
  #spare = null;
  /** The worker of the load under way. @type {Connection | null} */
  #candidate = null;
  /** The worker of the measurement under way. @type {Connection | null} */
  #measuring = null;
  /** All of the above. @type {Set<Connection>} */
  #connections = new Set();
  /** The request under way in the current worker. @type {{ cancel: () => void, settled: Promise<unknown> } | null} */
  #active = null;
  /** @type {Model | null} */
  #model = null;
  /** @type {Build | null} */
  #build = null;
  #disposed = false;

  /**
   * Use `Engine.start`.
   *
   * @param {Required<StartOptions>} options
   */
  constructor({ hub, build, createWorker }) {
    this.#hub = hub.replace(/\/+$/, "");
    this.#buildName = build;
    this.#createWorker = createWorker;
  }

  /**
   * Starts a worker with the best build of pkg for this browser.
   *
   * @param {StartOptions} [options]
   * @returns {Promise<Engine>}
   * @throws {EngineError} `unsupported-browser`, `start-failed`, `build-mismatch`
   */
  static async start({ hub = HUB, build, createWorker = createModuleWorker } = {}) {
    const engine = new Engine({ hub, build: build ?? chooseBuild(detectCapabilities()), createWorker });
    const connection = engine.#connect();
    try {
      engine.#build = await connection.ready;
    } catch (error) {
      connection.end(ended());
      throw error;
    }
    engine.#spare = connection;
    return engine;
  }

  /** What is loaded; null if nothing is. */
  get model() {
    if (this.#current?.ended) this.#model = null;
    return this.#model;
  }

  /** The build of pkg that runs. */
  get build() {
    return /** @type {Build} */ (this.#build);
  }

  /**
   * Loads a model in place of the one that is loaded.
   *
   * The new model is fetched, and its config, headers, tensors and memory are checked, by a worker of its own. Until then
   * the old model goes on answering; if the new one is refused, the old one stays. If it is accepted, a generation that
   * still runs is cancelled, keeps its text, and the old worker is ended, which gives back its memory, before the new
   * weights are read. A load that fails or is aborted after that leaves no model.
   *
   * @param {Source} source
   * @param {LoadOptions} [options]
   * @returns {Promise<Model>}
   * @throws {EngineError} any code of protocol.js that speaks of files, memory or the network; `cancelled`, `busy`
   */
  async load(source, { precision = "q8", onProgress, signal } = {}) {
    this.#refuseIfBusy();
    throwIfAborted(signal, "the load");
    const wire = wireSource(source);
    const wanted = wirePrecision(precision);
    const candidate = this.#takeSpare() ?? this.#connect();
    this.#candidate = candidate;
    const abort = () => candidate.end(cancelled("the load"));
    signal?.addEventListener("abort", abort);
    const onNews = (/** @type {News} */ news) => {
      if (news.type !== "progress") return;
      const { stage, done, total, file } = news;
      if (stage === "download" || stage === "load") onProgress?.({ stage, done, total, ...(file && { file }) });
    };
    try {
      this.#build = await candidate.ready;
      await candidate.request({ type: "open", source: wire, precision: wanted, hub: this.#hub }, onNews);
      await this.#retire(candidate);
      const model = { name: nameOf(wire), ...(await candidate.request({ type: "load" }, onNews)) };
      if (candidate.ended) throw candidate.ended;
      this.#current = candidate;
      this.#model = model;
      return model;
    } catch (error) {
      candidate.end(ended());
      if (wire.kind === "hub" || wire.kind === "url") void sweepDownloads();
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
      this.#candidate = null;
    }
  }

  /**
   * Continues a text. Failures reject the run's iterator and its `result`; an abort does not: it keeps the text so far.
   *
   * @param {string} prompt
   * @param {GenerateOptions} [options] an option that does not exist is refused
   * @returns {Run}
   */
  generate(prompt, options = {}) {
    const run = new Run();
    const { signal, onProgress } = options;
    /** @type {Promise<GenerationEnd>} */
    let end;
    try {
      const request = { type: /** @type {const} */ ("generate"), prompt: wireText(prompt), options: wireSampling(options) };
      end = this.#request(request, {
        onNews(news) {
          if (news.type === "tokens") run.push(news.tokens);
          else if (news.type === "started") run.begin({ seed: news.seed, promptTokens: news.promptTokens });
          else if (news.stage === "prefill") onProgress?.({ stage: "prefill", done: news.done, total: news.total });
        },
        onCancel: (cancel) => run.whenCancelled(cancel),
        signal,
      });
    } catch (error) {
      run.fail(/** @type {EngineError} */ (error));
      return run;
    }
    end.then(
      (value) => {
        this.#refresh(value.model);
        run.finish(value);
      },
      (error) => run.fail(error),
    );
    return run;
  }

  /**
   * How surprised the model is by a text.
   *
   * @param {string} text
   * @param {ScoreOptions} [options]
   * @returns {Promise<Score>}
   */
  async score(text, { onProgress, signal } = {}) {
    throwIfAborted(signal, "the score");
    /** @type {ScoreEnd} */
    const { score, model } = await this.#request({ type: "score", text: wireText(text) }, {
      onNews(news) {
        if (news.type === "progress") onProgress?.({ stage: "score", done: news.done, total: news.total });
      },
      signal,
    });
    this.#refresh(model);
    return score;
  }

  /**
   * @param {string} text
   * @returns {Promise<TextToken[]>}
   */
  async tokenize(text) {
    return this.#request({ type: "tokenize", text: wireText(text) });
  }

  /**
   * Measures this device: every kernel of the build beside the limit that bounds it, in a worker of its own, which is ended
   * afterwards. That takes seconds. Nothing is measured while something else runs, and nothing else runs meanwhile: each would slow the
   * other down, and the figures would be worth nothing.
   *
   * @param {MeasureOptions} [options]
   * @returns {Promise<Measurement>}
   * @throws {EngineError} `busy`, `cancelled`, `bad-request`, `out-of-memory`, `crashed`, and those of `start`
   */
  async measure({ rows = 49_152, rounds = 5, signal } = {}) {
    this.#refuseIfBusy();
    throwIfAborted(signal, "the measurement");
    const size = { rows: wireCount("rows", rows), rounds: wireCount("rounds", rounds) };
    const connection = this.#takeSpare() ?? this.#connect();
    this.#measuring = connection;
    const abort = () => connection.end(cancelled("the measurement"));
    signal?.addEventListener("abort", abort);
    try {
      const build = await connection.ready;
      return { build, ...size, lines: await connection.request({ type: "measure", ...size }) };
    } finally {
      signal?.removeEventListener("abort", abort);
      connection.end(ended());
      this.#measuring = null;
    }
  }

  /**
   * Makes the worker trap for real, so that a page can try its own recovery. Always rejects, with `crashed`.
   *
   * @param {"panic" | "memory" | "stack"} how
   * @returns {Promise<never>}
   */
  async crash(how) {
    await this.#request({ type: "crash", how });
    throw new EngineError("internal", `the worker survived "${how}"`);
  }

  /** Ends the workers: the only sure way to give memory back. Open requests, and all later ones, reject as `disposed`. */
  async dispose() {
    this.#disposed = true;
    for (const connection of this.#connections) connection.end(disposed());
    this.#current = this.#spare = this.#model = null;
  }

  #connect() {
    for (const connection of this.#connections) if (connection.ended) this.#connections.delete(connection);
    try {
      const connection = new Connection(this.#createWorker(), this.#buildName);
      this.#connections.add(connection);
      return connection;
    } catch (error) {
      throw new EngineError(
        "start-failed",
        `the engine's worker could not be started: ${messageOf(error)}. Vitrine needs ${FLOOR}, or newer.`,
        error,
      );
    }
  }

  #takeSpare() {
    const spare = this.#spare;
    this.#spare = null;
    return spare?.ended ? null : spare;
  }

  /**
   * Lets a request of the old model stop, then ends its worker. No request is taken meanwhile.
   *
   * @param {Connection} candidate if it ends first, the old model stays
   */
  async #retire(candidate) {
    const [old, model] = [this.#current, this.#model];
    this.#current = this.#model = null;
    this.#active?.cancel();
    await this.#active?.settled;
    if (candidate.ended) [this.#current, this.#model] = [old, model];
    else old?.end(ended());
  }

  /** @param {ModelInfo} info as it stands after a request */
  #refresh(info) {
    if (this.#model) this.#model = { name: this.#model.name, ...info };
  }

  #refuseIfBusy() {
    if (this.#disposed) throw disposed();
    if (this.#candidate) throw new EngineError("busy", "a model is being loaded; wait for it, or abort it");
    if (this.#measuring) throw new EngineError("busy", "this device is being measured; wait for it, or abort it");
    if (this.#active) throw new EngineError("busy", "another request runs; wait for it, or cancel it");
  }

  /** The worker to send a request to. */
  #claim() {
    const free = !this.#disposed && !this.#active && !this.#measuring;
    if (this.#current && !this.#current.ended && free) return this.#current;
    this.#refuseIfBusy();
    const crash = this.#current?.ended;
    throw new EngineError("no-model", crash ? `no model is loaded: ${crash.message}` : "no model is loaded; load one first");
  }

  /**
   * Sends the one request that may run in the current worker. Throws at once what forbids it.
   *
   * @param {import("./engine/connection.js").Unsent} request
   * @param {object} [options]
   * @param {(news: News) => void} [options.onNews]
   * @param {(cancel: () => void) => void} [options.onCancel]
   * @param {AbortSignal} [options.signal]
   * @returns {Promise<any>}
   */
  #request(request, { onNews, onCancel, signal } = {}) {
    const connection = this.#claim();
    let cancel = () => {};
    const answer = connection.request(request, onNews, (id) => {
      cancel = () => connection.cancel(id);
    });
    onCancel?.(cancel);
    signal?.addEventListener("abort", cancel);
    if (signal?.aborted) cancel();
    const active = {
      cancel,
      settled: answer.catch(() => {}).then(() => {
        signal?.removeEventListener("abort", cancel);
        if (this.#active === active) this.#active = null;
      }),
    };
    this.#active = active;
    // Whoever is told of the end may send the next request at once.
    return active.settled.then(() => answer);
  }
}

/** @param {string} what */
const cancelled = (what) => new EngineError("cancelled", `${what} was cancelled`);
const disposed = () => new EngineError("disposed", "this engine was disposed of; start another");
const ended = () => new EngineError("cancelled", "the worker was ended, since another model took its place");

/**
 * @param {AbortSignal | undefined} signal
 * @param {string} what
 */
function throwIfAborted(signal, what) {
  if (signal?.aborted) throw cancelled(what);
}
