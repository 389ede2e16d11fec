// One worker, seen as requests and their answers.
//
// It knows ids, and when a worker is dead. It does not know what a request means.

import { FLOOR } from "../capabilities.js";
import { EngineError, messageOf } from "../errors.js";

/** @import { Answer, Build, BuildName, Failure, News, Request } from "../protocol.js" */

/** Compared in the first message with the worker's own number, which may come from an older or newer file. */
export const PROTOCOL = 2;

/**
 * What is needed of a Worker; tests put a loopback port behind it.
 *
 * @typedef {Pick<Worker, "postMessage" | "terminate" | "addEventListener">} WorkerLike
 */

/**
 * A request without its id.
 *
 * @typedef {Request extends infer R ? R extends Request ? Omit<R, "id"> : never : never} Unsent
 */

/**
 * @typedef {object} Open
 * @property {(value: any) => void} resolve
 * @property {(error: EngineError) => void} reject
 * @property {(news: News) => void} onNews
 */

export class Connection {
  #worker;
  #lastId = 0;
  /** @type {Map<number, Open>} */
  #open = new Map();
  /** @type {EngineError | null} */
  #ended = null;
  #heard = false;

  /**
   * Greets the worker at once: `ready` settles with the worker's build, or rejects.
   *
   * @param {WorkerLike} worker
   * @param {BuildName} build
   */
  constructor(worker, build) {
    this.#worker = worker;
    worker.addEventListener("message", (event) => this.#receive(/** @type {MessageEvent} */ (event).data));
    worker.addEventListener("error", (event) => {
      event.preventDefault?.();
      this.#die(/** @type {ErrorEvent} */ (event).message || "it gave no reason");
    });
    worker.addEventListener("messageerror", () => this.#die("a message could not be read"));
    /** @type {Promise<Build>} */
    this.ready = this.request({ type: "start", protocol: PROTOCOL, build });
    this.ready.catch(() => {}); // whoever awaits it hears of it
  }

  /** Why this worker no longer answers; null while it does. */
  get ended() {
    return this.#ended;
  }

  /**
   * @param {Unsent} request
   * @param {(news: News) => void} [onNews]
   * @param {(id: number) => void} [onId] told the id before anything is sent, for `cancel`
   * @returns {Promise<any>} the value of `done`
   */
  request(request, onNews = () => {}, onId = () => {}) {
    return new Promise((resolve, reject) => {
      if (this.#ended) {
        reject(this.#ended);
        return;
      }
      const id = ++this.#lastId;
      this.#open.set(id, { resolve, reject, onNews });
      onId(id);
      try {
        this.#worker.postMessage({ ...request, id });
      } catch (error) {
        this.#open.delete(id);
        reject(new EngineError("bad-request", `the request cannot be sent to the worker: ${messageOf(error)}`, error));
      }
    });
  }

  /** @param {number} id of the request to cancel; nothing happens if it has ended */
  cancel(id) {
    if (!this.#ended && this.#open.has(id)) this.#worker.postMessage({ type: "cancel", id });
  }

  /**
   * Ends the worker. Every open request, and every later one, fails with `error`.
   *
   * @param {EngineError} error
   */
  end(error) {
    if (this.#ended) return;
    this.#ended = error;
    this.#worker.terminate();
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const { reject } of open) reject(error);
  }

  /** @param {string} reason */
  #die(reason) {
    // Nothing heard yet: the worker's script did not even run.
    this.end(
      this.#heard
        ? new EngineError("crashed", `the engine crashed: ${reason}`)
        : new EngineError("start-failed", `the engine's worker could not be started: ${reason}. It needs ${FLOOR}, or newer.`),
    );
  }

  /** @param {Answer} answer */
  #receive(answer) {
    this.#heard = true;
    const open = this.#open.get(answer.id);
    if (!open) return;
    if (answer.type === "done") {
      this.#open.delete(answer.id);
      open.resolve(answer.value);
    } else if (answer.type === "failed") {
      const error = rebuild(answer.error);
      if (error.code === "crashed") {
        this.end(error);
      } else {
        this.#open.delete(answer.id);
        open.reject(error);
      }
    } else {
      open.onNews(answer);
    }
  }
}

/** @param {Failure} failure */
function rebuild({ code, message }) {
  return new EngineError(code, message);
}
