// engine.js against scripted workers: what callers are promised, whatever the worker does.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { afterEach, describe, test } from "node:test";
import { chooseBuild } from "../www/capabilities.js";
import { Engine } from "../www/engine.js";
import { PROTOCOL } from "../www/engine/connection.js";
import { BUILD, done, failed, FakeWorker, finish, loaded, loadsAs, MODEL, rejects, settle, start, token } from "./loopback.mjs";

afterEach(() => FakeWorker.terminateAll());

describe("start", () => {
  test("greets the worker with the protocol and the build", async () => {
    const { engine, worker } = await start();
    const { protocol, build } = await worker(0).request("start");
    assert.equal(protocol, PROTOCOL);
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
        loadsAs(MODEL)(request, worker);
      },
    });
    /** @type {object[]} */
    const progress = [];
    const model = await engine.load({ hub: "a/b" }, { onProgress: (news) => progress.push(news) });
    assert.deepEqual(model, { ...MODEL, name: "a/b" });
    assert.deepEqual(engine.model, model);
    assert.deepEqual(progress, [
      { stage: "download", file: "config.json", done: 1, total: 2 },
      { stage: "load", done: 3, total: 4 },
    ]);
    assert.equal(workers.length, 1);
    assert.deepEqual(worker(0).seen.map(({ type }) => type), ["start", "open", "load"]);
    const { source, precision, hub } = await worker(0).request("open");
    assert.deepEqual(source, { kind: "hub", repository: "a/b", revision: "main" });
    assert.equal(precision, "q8");
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
        loadsAs(MODEL)(request, self);
      },
    });
    await engine.load({ url: "https://example.org/model" });
    assert.equal(workers.length, 2);
    assert.deepEqual(firstEnded, [false, true]);
    assert.equal(engine.model?.name, "model");
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
    assert.equal(engine.model?.name, "storyteller");
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
    const sources = [
      ...[null, {}, { hub: "a/b", url: "https://x/" }],
      ...[{ files: [] }, { files: null }, { files: 3 }, { files: [null] }, { files: [{ name: "a" }] }, { files: ["a"] }],
      ...[{ hub: "../../etc" }, { hub: "gpt2" }, { hub: "a/b/c" }, { hub: "a/.." }, { hub: "a/b?c" }, { hub: "a/b\n" }, { hub: 3 }, { hub: null }],
      ...["", "..", "a/../b", "a b", "/a", 3, null].map((revision) => ({ hub: "a/b", revision })),
      ...[{ builtin: "../x" }, { builtin: 3 }, { builtin: null }],
      ...[{ url: "file:///x" }, { url: "http://" }, { url: null }],
    ];
    for (const source of sources) await rejects(engine.load(/** @type {any} */ (source)), "bad-request");
    for (const precision of ["", "F 32", 32, null]) {
      const options = /** @type {any} */ ({ precision });
      await rejects(engine.load({ builtin: "storyteller" }, options), "bad-request", /is not a precision/);
    }
    await engine.load({ hub: "some-one/a.model_1", revision: "refs/pr/1" });
    await engine.load({ builtin: "storyteller" });
  });

  test("files travel with the names of their folder", async () => {
    const { engine, worker } = await start();
    const blob = new Blob(["{}"]);
    await engine.load({ files: [{ name: "m/config.json", blob }, new File(["x"], "merges.txt")] });
    const { source } = await worker(0).request("open");
    assert.deepEqual(source.files.map((/** @type {any} */ { name }) => name), ["m/config.json", "merges.txt"]);
    assert.equal(engine.model?.name, "m");
    assert.equal(await source.files[1].blob.text(), "x");
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

describe("dispose", () => {
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
