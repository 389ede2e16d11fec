// worker.js in threads of Node, under the real engine.js and over a pkg without wasm: cancels, batches, traps.

import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { Engine } from "../www/engine.js";
import { PROTOCOL } from "../www/engine/connection.js";
import { EXHAUSTING_BYTES, REFUSED_BYTES, TRAPPING_BYTES, TRAPPING_ROWS, UNREADABLE_BYTES } from "./fake-pkg.mjs";

/** @import { Answer } from "../www/protocol.js" */
/** @import { WorkerLike } from "../www/engine/connection.js" */

/** @type {string} */
let site;
/** @type {Set<Thread>} */
const threads = new Set();

before(async () => {
  site = await mkdtemp(join(tmpdir(), "vitrine-worker-"));
  await cp(new URL("../www", import.meta.url), site, { recursive: true, filter: (path) => !path.endsWith("models") });
  await mkdir(join(site, "pkg/simd128"), { recursive: true });
  await cp(new URL("fake-pkg.mjs", import.meta.url), join(site, "pkg/simd128/vitrine.js"));
  await writeFile(join(site, "package.json"), '{ "type": "module" }');
  await writeFile(join(site, "build.json"), '{ "id": "fake", "version": "0.1.0" }');
});
after(() => rm(site, { recursive: true }));
afterEach(() => Promise.all([...threads].map((thread) => thread.terminate())));

/** A thread as a browser's worker looks from outside. */
class Thread extends EventTarget {
  /** Every message that it sent. @type {any[]} */
  sent = [];
  ended = false;

  constructor() {
    super();
    const url = pathToFileURL(join(site, "worker.js")).href;
    this.worker = new Worker(new URL("worker-thread.mjs", import.meta.url), { workerData: { url } });
    this.worker.on("message", (data) => {
      this.sent.push(data);
      this.dispatchEvent(new MessageEvent("message", { data }));
    });
    this.worker.on("error", ({ message }) => this.dispatchEvent(Object.assign(new Event("error"), { message })));
    threads.add(this);
  }

  /** @param {any} message */
  postMessage(message) {
    this.worker.postMessage(message);
  }

  terminate() {
    this.ended = true;
    threads.delete(this);
    return this.worker.terminate();
  }

  /**
   * Posts a request and waits for its end.
   *
   * @param {{ type: string, id: number }} request
   * @returns {Promise<any>}
   */
  async answer(request) {
    this.postMessage(request);
    for (;;) {
      const end = this.sent.find(({ type, id }) => id === request.id && (type === "done" || type === "failed"));
      if (end) return end;
      await new Promise((resolve) => this.addEventListener("message", resolve, { once: true }));
    }
  }
}

/** @param {number} [configBytes] */
const files = (configBytes = 2) =>
  [["config.json", configBytes], ["tokenizer.json", 1], ["model.safetensors", 1]].map(([name, bytes]) => ({
    name: String(name),
    blob: new Blob(["x".repeat(Number(bytes))]),
  }));

async function start() {
  /** @type {Thread[]} */
  const all = [];
  const createWorker = () => {
    const thread = new Thread();
    all.push(thread);
    return /** @type {WorkerLike} */ (/** @type {unknown} */ (thread));
  };
  const engine = await Engine.start({ build: "simd128", createWorker });
  return { engine, thread: (/** @type {number} */ n) => /** @type {Thread} */ (all[n]) };
}

async function loaded() {
  const all = await start();
  await all.engine.load({ files: files() });
  return all;
}

test("a load ends with the model; its progress is thinned out, and its last is whole", async () => {
  const { engine, thread } = await loaded();
  assert.equal(engine.model?.architecture, "fake");
  assert.equal(engine.model?.precision, "q8");
  const progress = thread(0).sent.filter(({ stage }) => stage === "load");
  assert.ok(progress.length < 100, `${progress.length} messages for 1001 steps`);
  assert.deepEqual([progress.at(-1).done, progress.at(-1).total], [1000, 1000]);
});

test("a generation: start, prefill, tokens, end; the first token at once, the others in batches", async () => {
  const { engine, thread } = await loaded();
  /** @type {number[]} */
  const prefill = [];
  const run = engine.generate("a", { maxNewTokens: 2000, onProgress: ({ done }) => prefill.push(done) });
  const result = await run.result;
  assert.deepEqual(await run.started, { seed: 5, promptTokens: 2 });
  assert.deepEqual(prefill, [1, 2]);
  assert.equal(result.reason, "length");
  assert.equal(result.text, `${"x".repeat(2000)}!`);
  assert.deepEqual(result.tokens.map(({ id }) => id), Array.from({ length: 2000 }, (_, id) => id));
  assert.equal(result.prefill.tokens, 2);
  assert.equal(result.decode.tokens, 1999);
  assert.ok(result.decode.ms > 0 && result.decode.tokensPerSecond > 0);
  const batches = thread(0).sent.filter(({ type }) => type === "tokens").map(({ tokens }) => tokens.length);
  assert.equal(batches[0], 1);
  assert.ok(batches.length < 1000, `${batches.length} messages for 2000 tokens`);
  assert.equal(engine.model?.memory.cache, 0, "the generation was freed");
});

test("a cancel is heard between two steps, and keeps what was written and what was held back", async () => {
  const { engine } = await loaded();
  const run = engine.generate("a");
  for await (const { id } of run) if (id === 100) break;
  const { reason, text, tokens } = await run.result;
  assert.equal(reason, "cancelled");
  assert.ok(tokens.length > 100);
  assert.equal(text, `${"x".repeat(tokens.length)}?`);
  assert.equal(engine.model?.memory.cache, 0, "the generation was freed");
});

test("a score ends with its figures, and with the model as it then is", async () => {
  const { engine } = await loaded();
  const before = engine.model;
  assert.deepEqual(await engine.score("a"), { tokens: [], perplexity: 2, bitsPerByte: 1 });
  assert.deepEqual(engine.model, before);
  assert.notEqual(engine.model, before, "the worker was asked");
});

test("a score is cancelled between two steps", async () => {
  const { engine } = await loaded();
  const abort = new AbortController();
  const score = engine.score("endless", { signal: abort.signal, onProgress: () => abort.abort() });
  await assert.rejects(score, { code: "cancelled" });
  assert.equal((await engine.tokenize("ab")).length, 2);
});

test("a failure with a code leaves the worker as it was", async () => {
  const { engine, thread } = await loaded();
  await assert.rejects(engine.generate("").result, { code: "bad-request", message: "the prompt is empty" });
  await assert.rejects(engine.generate("memory").result, { code: "out-of-memory" });
  const { reason } = await engine.generate("a", { maxNewTokens: 1 }).result;
  assert.equal(reason, "length");
  assert.equal(engine.model?.memory.cache, 0, "the failed generation was freed");
  assert.equal(thread(0).ended, false);
});

test("an exception that is no trap is a defect, and leaves the worker as it was", async () => {
  const { engine, thread } = await loaded();
  await assert.rejects(engine.generate("defect").result, { code: "internal", message: /x is not a function/ });
  assert.equal((await engine.generate("a", { maxNewTokens: 3 }).result).text, "xxx!");
  assert.equal(engine.model?.memory.cache, 0, "the failed generation was freed");
  assert.equal(thread(0).ended, false);
});

for (const [prompt, message] of /** @type {const} */ ([
  ["trap", /panicked at fake-pkg\.mjs/],
  ["stack", /Maximum call stack size exceeded/],
])) {
  test(`a trap in a step (${prompt}) is a crash that tells why, and the next load works`, async () => {
    const { engine, thread } = await loaded();
    await assert.rejects(engine.generate(prompt).result, { code: "crashed", message });
    assert.equal(thread(0).ended, true);
    assert.equal(engine.model, null);
    await engine.load({ files: files() });
    assert.equal((await engine.generate("a", { maxNewTokens: 3 }).result).text, "xxx!");
  });
}

test("a step that fails takes nothing from those before it", async () => {
  for (const prompt of ["late defect", "late trap"]) {
    const { engine } = await loaded();
    const run = engine.generate(prompt);
    await assert.rejects(run.result);
    assert.equal(run.text, "x".repeat(10), prompt);
  }
});

test("a trap on request is a crash too", async () => {
  const { engine } = await loaded();
  await assert.rejects(engine.crash("memory"), { code: "crashed", message: /unreachable; most often, memory has run out/ });
});

test("a measurement is made by a worker of its own, which ends; if it traps, what is loaded stays", async () => {
  const { engine, thread } = await loaded();
  const { build, rows, rounds, lines } = await engine.measure({ rows: 100, rounds: 7 });
  assert.deepEqual([build.id, rows, rounds], ["fake", 100, 7]);
  assert.deepEqual(lines.map(({ operation, unit, limit }) => [operation, unit, limit]), [["number", "GB/s", null]]);
  assert.deepEqual([thread(0).ended, thread(1).ended], [false, true]);
  await assert.rejects(engine.measure({ rows: TRAPPING_ROWS }), { code: "crashed", message: /memory has run out/ });
  assert.deepEqual([thread(0).ended, thread(2).ended], [false, true]);
  assert.equal((await engine.generate("a", { maxNewTokens: 3 }).result).text, "xxx!");
});

test("a checkpoint that is refused, or that traps, leaves the old model", async () => {
  const { engine, thread } = await loaded();
  await assert.rejects(engine.load({ files: files(REFUSED_BYTES) }), { code: "bad-config", message: "config.json: refused" });
  await assert.rejects(engine.load({ files: files(TRAPPING_BYTES) }), { code: "crashed", message: /panicked/ });
  await assert.rejects(engine.load({ files: [{ name: "notes.txt", blob: new Blob() }] }), { code: "missing-file" });
  assert.deepEqual([1, 2, 3].map((n) => thread(n).ended), [true, true, true]);
  assert.equal((await engine.tokenize("abc")).length, 3);
});

test("a load that fails while it waits for a file tells why, and the next works", async () => {
  const { engine } = await start();
  await assert.rejects(engine.load({ files: files(UNREADABLE_BYTES) }), { code: "read-failed", message: /model.safetensors/ });
  await assert.rejects(engine.load({ files: files(EXHAUSTING_BYTES) }), { code: "crashed", message: /memory has run out/ });
  assert.equal((await engine.load({ files: files() })).architecture, "fake");
});

test("the handshake refuses another protocol, another build, and a site without build.json", async () => {
  const greeting = { type: "start", id: 1, protocol: PROTOCOL, build: "simd128" };
  assert.equal((await new Thread().answer({ ...greeting, id: 7 })).value.id, "fake");
  const { error } = await new Thread().answer({ ...greeting, .../** @type {object} */ ({ protocol: 0 }) });
  assert.equal(error.code, "build-mismatch");

  const build = join(site, "build.json");
  await writeFile(build, '{ "id": "other", "version": "0.1.0" }');
  await assert.rejects(start(), { code: "build-mismatch", message: /other.*fake/ });
  await rm(build);
  await assert.rejects(start(), { code: "start-failed", message: /build\.json/ });
  await writeFile(build, '{ "id": "fake", "version": "0.1.0" }');
  await assert.rejects(Engine.start({ build: "relaxed", createWorker: () => /** @type {any} */ (new Thread()) }), {
    code: "start-failed",
    message: /pkg\/relaxed/,
  });
});

test("what the worker does not know fails; a cancel of it is ignored; a second request is busy", async () => {
  const thread = new Thread();
  await thread.answer({ .../** @type {object} */ ({ protocol: PROTOCOL, build: "simd128" }), type: "start", id: 1 });
  assert.equal((await thread.answer({ type: "dream", id: 2 })).error.code, "bad-request");
  assert.equal((await thread.answer({ type: "load", id: 3 })).error.code, "bad-request");
  assert.equal((await thread.answer({ type: "tokenize", id: 4 })).error.code, "no-model");
  thread.postMessage({ type: "cancel", id: 99 });
  await thread.answer({ .../** @type {object} */ ({ source: { kind: "files", files: files() }, precision: "f32" }), type: "open", id: 5 });
  await thread.answer({ type: "load", id: 6 });
  const running = thread.answer({ .../** @type {object} */ ({ prompt: "a", options: {} }), type: "generate", id: 7 });
  assert.equal((await thread.answer({ type: "tokenize", id: 8 })).error.code, "busy");
  thread.postMessage({ type: "cancel", id: 7 });
  assert.equal((await running).value.reason, "cancelled");
});
