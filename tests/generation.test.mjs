// Generations and scores against scripted workers: iterators, results, cancels, and one request at a time.

import assert from "node:assert/strict";
import { afterEach, describe, test } from "node:test";
import { done, failed, FakeWorker, finish, GROWN, infoOf, loaded, rejects, settle, start, token } from "./loopback.mjs";

afterEach(() => FakeWorker.terminateAll());

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
    finish(worker(0), id, { text: "!", model: infoOf(GROWN) });
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
    assert.deepEqual(engine.model, GROWN);
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

  test("an option that does not exist, or is of another kind, and a prompt that is no text, are bad requests", async () => {
    const { engine } = await loaded();
    await rejects(engine.generate("a", /** @type {any} */ ({ max_new_tokens: 3 })).result, "bad-request", /maxNewTokens/);
    await rejects(engine.generate("a", /** @type {any} */ ({ temperature: "hot" })).result, "bad-request", /temperature: expected a number, found "hot"/);
    await rejects(engine.generate("a", /** @type {any} */ ({ stop: "\n" })).result, "bad-request", /stop: expected an array of strings/);
    await rejects(engine.generate(/** @type {any} */ (undefined)).result, "bad-request", /undefined/);
  });

  test("without a model the code is no-model", async () => {
    const { engine } = await start();
    await rejects(engine.generate("a").result, "no-model");
  });
});

describe("score", () => {
  test("a score is the worker's, and an abort rejects it", async () => {
    const score = { tokens: [{ id: 1, text: "a", logprob: null }], perplexity: 3, bitsPerByte: 1 };
    const { engine } = await loaded({ score: done({ score, model: infoOf(GROWN) }) });
    assert.deepEqual(await engine.score("a"), score);
    assert.deepEqual(engine.model, GROWN);

    const { engine: slow, worker } = await loaded({ cancel: failed("cancelled", "the score was cancelled") });
    const abort = new AbortController();
    const pending = slow.score("a", { signal: abort.signal });
    await worker(0).request("score");
    abort.abort();
    await rejects(pending, "cancelled");
  });
});
