// engine.js against scripted workers: what callers are promised, whatever the worker does.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { afterEach, describe, test } from "node:test";
import { chooseBuild } from "../www/capabilities.js";
import { Engine } from "../www/engine.js";
import { BUILD, done, failed, FakeWorker, MODEL, settle, STILL, token } from "./loopback.mjs";

/** @import { EngineError } from "../www/errors.js" */

/** @typedef {ConstructorParameters<typeof FakeWorker>[0]} Script */

/**
 * An engine whose n-th worker follows the n-th script; later ones are healthy.
 *
 * @param {...Script} scripts
 */
async function start(...scripts) {
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
async function loaded(...scripts) {
  const all = await start(...scripts);
  await all.engine.load({ builtin: "storyteller" });
  return all;
}

afterEach(() => FakeWorker.terminateAll());

/**
 * @param {Promise<unknown>} promise
 * @param {string} code
 * @param {RegExp} [message]
 */
function rejects(promise, code, message = /./) {
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
function finish(worker, id, end = {}) {
  const value = { reason: "length", text: "", prefill: STILL, decode: STILL, memory: MODEL.memory, ...end };
  worker.post({ type: "done", id, value });
}

describe("start", () => {
  test("greets the worker with the protocol and the build", async () => {
    const { engine, worker } = await start();
    const { protocol, build } = await worker(0).request("start");
    assert.equal(protocol, 1);
    assert.equal(build, "simd128");
    assert.deepEqual(engine.build, BUILD);
    assert.equal(engine.model, null);
  });

  test("both sides of the protocol are of one number", async () => {
    const number = async (/** @type {string} */ file) =>
      /const PROTOCOL = (\d+);/.exec(await readFile(new URL(`../www/${file}`, import.meta.url), "utf8"))?.[1];
    assert.match((await number("worker.js")) ?? "", /^\d+$/);
    assert.equal(await number("worker.js"), await number("engine/connection.js"));
  });

  test("a build mismatch rejects, and ends the worker", async () => {
    /** @type {FakeWorker[]} */
    const workers = [];
    const createWorker = () => {
      workers.push(new FakeWorker({ start: failed("build-mismatch", "two builds") }));
      return /** @type {FakeWorker} */ (workers[0]);
    };
    await rejects(Engine.start({ build: "simd128", createWorker }), "build-mismatch", /two builds/);
    assert.equal(workers[0]?.terminated, true);
  });

  test("a worker whose script does not run is start-failed, and so is one that cannot be made", async () => {
    const dead = new FakeWorker({ start: (_, worker) => worker.die("SyntaxError: import") });
    await rejects(Engine.start({ build: "simd128", createWorker: () => dead }), "start-failed", /SyntaxError: import/);
    const createWorker = () => {
      throw new Error("blocked");
    };
    await rejects(Engine.start({ build: "simd128", createWorker }), "start-failed", /blocked/);
  });

  test("the build follows the capabilities; below the floor the code is unsupported-browser", () => {
    assert.equal(chooseBuild({ workers: true, simd128: true, relaxedSimd: true }), "relaxed");
    assert.equal(chooseBuild({ workers: true, simd128: true, relaxedSimd: false }), "simd128");
    const lacking = { workers: true, simd128: false, relaxedSimd: false };
    assert.throws(() => chooseBuild(lacking), { code: "unsupported-browser", message: /SIMD/ });
  });
});

describe("load", () => {
  test("opens, then loads, in the worker that was started, with progress", async () => {
    const { engine, workers, worker } = await start({
      open(request, worker) {
        worker.post({ type: "progress", id: request.id, stage: "download", file: "config.json", done: 1, total: 2 });
        done({})(request, worker);
      },
      load(request, worker) {
        worker.post({ type: "progress", id: request.id, stage: "load", done: 3, total: 4 });
        done(MODEL)(request, worker);
      },
    });
    /** @type {object[]} */
    const progress = [];
    const model = await engine.load({ hub: "a/b" }, { onProgress: (news) => progress.push(news) });
    assert.deepEqual(model, MODEL);
    assert.deepEqual(engine.model, MODEL);
    assert.deepEqual(progress, [
      { stage: "download", file: "config.json", done: 1, total: 2 },
      { stage: "load", done: 3, total: 4 },
    ]);
    assert.equal(workers.length, 1);
    assert.deepEqual(worker(0).seen.map(({ type }) => type), ["start", "open", "load"]);
    const { source, precision, hub } = await worker(0).request("open");
    assert.deepEqual(source, { kind: "hub", repository: "a/b", revision: "main" });
    assert.equal(precision, "f32");
    assert.equal(hub, "https://huggingface.co");
  });

  test("a second model starts in a worker of its own, and the first worker is ended before weights are read", async () => {
    /** @type {boolean[]} */
    const firstEnded = [];
    const { engine, workers, worker } = await loaded({}, {
      open(request, self) {
        firstEnded.push(worker(0).terminated);
        done({})(request, self);
      },
      load(request, self) {
        firstEnded.push(worker(0).terminated);
        done({ ...MODEL, name: "second" })(request, self);
      },
    });
    await engine.load({ url: "https://example.org/model" });
    assert.equal(workers.length, 2);
    assert.deepEqual(firstEnded, [false, true]);
    assert.equal(engine.model?.name, "second");
    assert.equal((await worker(1).request("open")).source.url, "https://example.org/model/");
  });

  test("a refused candidate is ended, and the old model stays and answers", async () => {
    const { engine, worker } = await loaded(
      { tokenize: done([{ id: 1, text: "a" }]) },
      { open: failed("bad-config", "config.json: no n_layer") },
    );
    await rejects(engine.load({ builtin: "other" }), "bad-config", /n_layer/);
    assert.equal(worker(1).terminated, true);
    assert.equal(worker(0).terminated, false);
    assert.equal(engine.model?.name, "tiny");
    assert.deepEqual(await engine.tokenize("a"), [{ id: 1, text: "a" }]);
  });

  test("a load that fails after the swap leaves no model, and the next one works", async () => {
    const { engine, worker } = await loaded({}, { load: failed("out-of-memory", "not enough memory") });
    await rejects(engine.load({ builtin: "big" }), "out-of-memory");
    assert.equal(worker(0).terminated, true);
    assert.equal(worker(1).terminated, true);
    assert.equal(engine.model, null);
    await rejects(engine.tokenize("a"), "no-model");
    await engine.load({ builtin: "storyteller" });
    assert.deepEqual(engine.model, MODEL);
  });

  test("a candidate that crashes while it opens leaves the old model", async () => {
    const { engine } = await loaded({ tokenize: done([]) }, { open: (_, worker) => worker.die("unreachable") });
    await rejects(engine.load({ builtin: "other" }), "crashed", /unreachable/);
    assert.deepEqual(await engine.tokenize(""), []);
  });

  test("an abort while it opens ends the candidate and keeps the old model", async () => {
    const { engine, worker } = await loaded({ tokenize: done([]) }, { open: () => {} });
    const abort = new AbortController();
    const load = engine.load({ hub: "a/b" }, { signal: abort.signal });
    await worker(1)?.request("open");
    abort.abort();
    await rejects(load, "cancelled");
    assert.equal(worker(1).terminated, true);
    assert.deepEqual(await engine.tokenize(""), []);
  });

  test("an abort while it loads leaves no model, and the next load works", async () => {
    const { engine, worker } = await loaded({}, { load: () => {} });
    const abort = new AbortController();
    const load = engine.load({ hub: "a/b" }, { signal: abort.signal });
    await worker(1).request("load");
    abort.abort();
    await rejects(load, "cancelled");
    assert.equal(engine.model, null);
    await engine.load({ builtin: "storyteller" });
    assert.deepEqual(engine.model, MODEL);
  });

  test("an abort before the load sends nothing", async () => {
    const { engine, worker } = await start();
    await rejects(engine.load({ hub: "a/b" }, { signal: AbortSignal.abort() }), "cancelled");
    await settle();
    assert.deepEqual(worker(0).seen.map(({ type }) => type), ["start"]);
  });

  test("the old model answers while the new one opens; a run that still goes is cancelled at the swap, and keeps its text", async () => {
    /** @type {(value: undefined) => void} */
    let accept = () => {};
    const accepted = new Promise((resolve) => (accept = resolve));
    const { engine, worker } = await loaded({}, {
      open: (request, self) => void accepted.then(() => done({})(request, self)),
    });
    const load = engine.load({ builtin: "other" });
    const run = engine.generate("a");
    const { id } = await worker(0).request("generate");
    worker(0).post({ type: "tokens", id, tokens: [token(1)] });
    accept(undefined);
    await worker(0).request("cancel");
    assert.equal(worker(0).terminated, false);
    finish(worker(0), id, { reason: "cancelled", text: "…" });
    await load;
    const result = await run.result;
    assert.equal(result.reason, "cancelled");
    assert.equal(result.text, " t1…");
    assert.equal(worker(0).terminated, true);
  });

  test("sources that are none are bad requests", async () => {
    const { engine } = await start();
    const sources = [{}, { hub: "a/b", url: "https://x/" }, { files: [] }, { hub: "../../etc" }, { builtin: "../x" }, { url: "file:///x" }];
    for (const source of sources) await rejects(engine.load(/** @type {any} */ (source)), "bad-request");
    await engine.load({ builtin: "storyteller" });
  });

  test("files travel with the names of their folder", async () => {
    const { engine, worker } = await start();
    const blob = new Blob(["{}"]);
    await engine.load({ files: [{ name: "m/config.json", blob }, new File(["x"], "merges.txt")] });
    const { source } = await worker(0).request("open");
    assert.deepEqual(source.files.map((/** @type {any} */ { name }) => name), ["m/config.json", "merges.txt"]);
    assert.equal(await source.files[1].blob.text(), "x");
  });
});

describe("generate", () => {
  test("yields the tokens and settles the result with all text", async () => {
    const { engine, worker } = await loaded();
    const run = engine.generate("a", { maxNewTokens: 3, temperature: 0, stop: ["\n"], seed: undefined });
    const { id, prompt, options } = await worker(0).request("generate");
    assert.equal(prompt, "a");
    assert.deepEqual(options, { maxNewTokens: 3, temperature: 0, stop: ["\n"] });
    worker(0).post({ type: "started", id, seed: 7, promptTokens: 1 });
    worker(0).post({ type: "tokens", id, tokens: [token(1), token(2)] });
    worker(0).post({ type: "tokens", id, tokens: [token(3)] });
    const memory = { ...MODEL.memory, cache: 512 };
    finish(worker(0), id, { text: "!", memory });
    const tokens = [];
    for await (const one of run) tokens.push(one);
    assert.deepEqual(tokens, [token(1), token(2), token(3)]);
    const result = await run.result;
    assert.equal(result.reason, "length");
    assert.equal(result.text, " t1 t2 t3!");
    assert.deepEqual(result.tokens, tokens);
    assert.equal(result.seed, 7);
    assert.ok(result.timeToFirstTokenMs >= 0);
    assert.deepEqual(await run.started, { seed: 7, promptTokens: 1 });
    assert.equal(engine.model?.memory.cache, 512);
  });

  test("tells of the prefill", async () => {
    const { engine, worker } = await loaded();
    /** @type {object[]} */
    const progress = [];
    const run = engine.generate("a", { onProgress: (news) => progress.push(news) });
    const { id } = await worker(0).request("generate");
    worker(0).post({ type: "progress", id, stage: "prefill", done: 16, total: 20 });
    finish(worker(0), id);
    await run.result;
    assert.deepEqual(progress, [{ stage: "prefill", done: 16, total: 20 }]);
  });

  test("messages of unknown ids are ignored", async () => {
    const { engine, worker } = await loaded();
    const run = engine.generate("a");
    const { id } = await worker(0).request("generate");
    worker(0).post({ type: "tokens", id: id + 100, tokens: [token(9)] });
    worker(0).post({ type: "done", id: id + 100, value: null });
    worker(0).post({ type: "failed", id: id + 100, error: { code: "internal", message: "?" } });
    worker(0).post({ type: "tokens", id, tokens: [token(1)] });
    finish(worker(0), id);
    assert.equal((await run.result).text, " t1");
    // An answer to a request that has ended is one to an unknown id.
    worker(0).post({ type: "tokens", id, tokens: [token(2)] });
    await settle();
    assert.equal(run.text, " t1");
  });

  test("a break cancels, waits until the run has stopped, and keeps the text", async () => {
    const { engine, worker } = await loaded({
      cancel: ({ id }, worker) => finish(worker, id, { reason: "cancelled" }),
      tokenize: done([]),
    });
    const run = engine.generate("a");
    const { id } = await worker(0).request("generate");
    worker(0).post({ type: "tokens", id, tokens: [token(1), token(2)] });
    for await (const one of run) {
      assert.deepEqual(one, token(1));
      break;
    }
    assert.deepEqual((await worker(0).request("cancel")).id, id);
    assert.deepEqual(await engine.tokenize(""), []); // not busy any more
    const result = await run.result;
    assert.equal(result.reason, "cancelled");
    assert.equal(result.text, " t1 t2");
  });

  test("an abort cancels, keeps the text and rejects nothing", async () => {
    const { engine, worker } = await loaded({ cancel: ({ id }, worker) => finish(worker, id, { reason: "cancelled", text: "." }) });
    const abort = new AbortController();
    const run = engine.generate("a", { signal: abort.signal });
    const { id } = await worker(0).request("generate");
    worker(0).post({ type: "tokens", id, tokens: [token(1)] });
    let text = "";
    for await (const one of run) {
      text += one.text;
      abort.abort();
    }
    assert.equal(text, " t1");
    assert.equal((await run.result).text, " t1.");
  });

  test("a signal that was aborted before cancels at once", async () => {
    const { engine } = await loaded({ cancel: ({ id }, worker) => finish(worker, id, { reason: "cancelled" }) });
    const run = engine.generate("a", { signal: AbortSignal.abort() });
    assert.equal((await run.result).reason, "cancelled");
  });

  test("cancel() resolves with the result, and does nothing to a run that is over", async () => {
    const { engine, worker } = await loaded({ cancel: ({ id }, worker) => finish(worker, id, { reason: "cancelled" }) });
    const run = engine.generate("a");
    assert.equal((await run.cancel()).reason, "cancelled");
    assert.equal((await run.cancel()).reason, "cancelled");
    assert.equal(worker(0).seen.filter(({ type }) => type === "cancel").length, 1);
  });

  test("a second request while one runs rejects busy, whichever it is; the first is not disturbed", async () => {
    const { engine, worker } = await loaded({ tokenize: done([]) });
    const run = engine.generate("a");
    const { id } = await worker(0).request("generate");
    await rejects(engine.generate("b").result, "busy");
    await rejects(engine.generate("b")[Symbol.asyncIterator]().next(), "busy");
    await rejects(engine.tokenize("b"), "busy");
    await rejects(engine.score("b"), "busy");
    await rejects(engine.load({ builtin: "other" }), "busy");
    finish(worker(0), id);
    assert.equal((await run.result).reason, "length");
    await engine.tokenize("b");
  });

  test("a second load while one runs rejects busy", async () => {
    const { engine } = await start({ open: () => {} });
    const abort = new AbortController();
    const load = engine.load({ builtin: "a" }, { signal: abort.signal });
    await rejects(engine.load({ builtin: "b" }), "busy");
    await rejects(engine.tokenize("b"), "busy");
    abort.abort();
    await rejects(load, "cancelled");
  });

  test("a failure rejects the iterator and the result, and leaves the engine usable", async () => {
    const { engine } = await loaded({ generate: failed("bad-request", "the prompt is empty"), tokenize: done([]) });
    const run = engine.generate("");
    await rejects(run[Symbol.asyncIterator]().next(), "bad-request", /empty/);
    await rejects(run.result, "bad-request");
    await rejects(run.started, "bad-request");
    await engine.tokenize("a");
  });

  test("an option that does not exist, and a prompt that is no text, are bad requests", async () => {
    const { engine } = await loaded();
    await rejects(engine.generate("a", /** @type {any} */ ({ max_new_tokens: 3 })).result, "bad-request", /maxNewTokens/);
    await rejects(engine.generate(/** @type {any} */ (undefined)).result, "bad-request", /undefined/);
  });

  test("without a model the code is no-model", async () => {
    const { engine } = await start();
    await rejects(engine.generate("a").result, "no-model");
  });
});

describe("crash", () => {
  test("fails every open request, with the panic's text; the next load works", async () => {
    const { engine, worker, workers } = await loaded({}, { open: () => {} });
    const run = engine.generate("a");
    const { id } = await worker(0).request("generate");
    worker(0).post({ type: "tokens", id, tokens: [token(1)] });
    worker(0).post({ type: "failed", id, error: { code: "crashed", message: "the engine crashed: panicked at model.rs" } });
    /** @type {object[]} */
    const tokens = [];
    await rejects((async () => { for await (const one of run) tokens.push(one); })(), "crashed", /panicked at model.rs/);
    assert.deepEqual(tokens, [token(1)]);
    await rejects(run.result, "crashed");
    assert.equal(worker(0).terminated, true);
    assert.equal(engine.model, null);
    await rejects(engine.tokenize("a"), "no-model", /panicked at model.rs/);
    const abort = new AbortController();
    const stuck = engine.load({ builtin: "other" }, { signal: abort.signal });
    assert.equal(workers.length, 2);
    abort.abort();
    await rejects(stuck, "cancelled");
    assert.deepEqual(await engine.load({ builtin: "storyteller" }), MODEL);
  });

  test("an error event and an unreadable message are crashes too", async () => {
    for (const event of ["error", "messageerror"]) {
      const { engine, worker } = await loaded();
      const run = engine.generate("a");
      await worker(0).request("generate");
      worker(0).dispatchEvent(new Event(event));
      await rejects(run.result, "crashed");
      assert.equal(worker(0).terminated, true);
      await engine.load({ builtin: "storyteller" });
    }
  });

  test("a crash between requests is noticed", async () => {
    const { engine, worker } = await loaded();
    worker(0).die("gone");
    assert.equal(engine.model, null);
    await rejects(engine.generate("a").result, "no-model", /gone/);
  });

  test("a trap on request rejects as crashed", async () => {
    const { engine } = await loaded({ crash: failed("crashed", "the engine crashed: on request") });
    await rejects(engine.crash("panic"), "crashed", /on request/);
  });
});

describe("score and dispose", () => {
  test("a score is the worker's, and an abort rejects it", async () => {
    const score = { tokens: [{ id: 1, text: "a", logprob: null }], perplexity: 3, bitsPerByte: 1 };
    const scripts = { score: done(score) };
    const { engine } = await loaded(scripts);
    assert.deepEqual(await engine.score("a"), score);

    const { engine: slow, worker } = await loaded({ cancel: failed("cancelled", "the score was cancelled") });
    const abort = new AbortController();
    const pending = slow.score("a", { signal: abort.signal });
    await worker(0).request("score");
    abort.abort();
    await rejects(pending, "cancelled");
  });

  test("dispose ends every worker, fails what is open, and refuses what comes later", async () => {
    const { engine, worker } = await loaded({}, { open: () => {} });
    const load = engine.load({ builtin: "other" });
    const run = engine.generate("a");
    await worker(0).request("generate");
    await engine.dispose();
    await rejects(run.result, "disposed");
    await rejects(load, "disposed");
    assert.equal(worker(0).terminated, true);
    assert.equal(worker(1).terminated, true);
    assert.equal(engine.model, null);
    await rejects(engine.load({ builtin: "storyteller" }), "disposed");
    await rejects(engine.generate("a").result, "disposed");
    await rejects(engine.tokenize("a"), "disposed");
  });
});
