// The measurement of a device: what the engine promises of it, the clock that it goes by, and what is made of its figures.

import assert from "node:assert/strict";
import { afterEach, describe, test } from "node:test";
import { measure } from "../www/measuring.js";
import { documentOf, mostTokensPerSecond, sharesOf } from "../www/page/shares.js";
import { BUILD, done, failed, FakeWorker, finish, loaded, MODEL, rejects, settle, start } from "./loopback.mjs";

/** @import { MeasuredLine } from "../www/protocol.js" */

afterEach(() => FakeWorker.terminateAll());

/**
 * @param {string} kernel
 * @param {string} operation
 * @param {number} best
 * @param {string} unit
 * @param {number | null} [limit]
 * @returns {MeasuredLine}
 */
const line = (kernel, operation, best, unit, limit = null) => ({ kernel, operation, median: best / 2, best, unit, limit });

const LINES = [
  line("limit", "read 151 MB", 20, "GB/s"),
  line("limit", "i32x4.dot_i16x8_s", 40, "GMAC/s"),
  line("simd128", "q8 matvec [49152, 768]", 15, "GB/s", 0),
  line("simd128", "q8 matmul 96 x [3072, 768]", 30, "GMAC/s", 1),
  line("portable", "q4 matmul 96 x [3072, 768]", 3, "GMAC/s"),
  line("simd128", "softmax 1000", 0.7, "ns"),
  line("sampler", "greedy of 50257", 60.5, "µs"),
];

describe("the engine measures", () => {
  test("in a worker of its own, which ends; the spare one, if there is one", async () => {
    const { engine, workers, worker } = await start({ measure: done(LINES) }, {}, { measure: done(LINES) });
    assert.deepEqual(await engine.measure(), { build: BUILD, rows: 49_152, rounds: 5, lines: LINES });
    assert.deepEqual([workers.length, worker(0).terminated], [1, true]);
    await engine.load({ builtin: "storyteller" });
    assert.deepEqual(await engine.measure({ rows: 64, rounds: 1 }), { build: BUILD, rows: 64, rounds: 1, lines: LINES });
    assert.deepEqual([workers.length, worker(1).terminated, worker(2).terminated], [3, false, true]);
    const { rows, rounds } = await worker(2).request("measure");
    assert.deepEqual([rows, rounds], [64, 1]);
    assert.deepEqual(engine.model, MODEL);
  });

  test("nothing while something runs, and nothing runs meanwhile", async () => {
    const { engine, worker } = await loaded({ tokenize: done([]) }, { measure: () => {} });
    const run = engine.generate("a");
    await rejects(engine.measure(), "busy", /another request/);
    const { id } = await worker(0).request("generate");
    finish(worker(0), id);
    await run.result;

    const abort = new AbortController();
    const measurement = engine.measure({ signal: abort.signal });
    await worker(1).request("measure");
    await rejects(engine.generate("a").result, "busy", /being measured/);
    await rejects(engine.tokenize("a"), "busy", /being measured/);
    await rejects(engine.load({ builtin: "storyteller" }), "busy", /being measured/);
    await rejects(engine.measure(), "busy", /being measured/);
    abort.abort();
    await rejects(measurement, "cancelled", /measurement/);
    assert.equal(worker(1).terminated, true);
    assert.deepEqual(await engine.tokenize("a"), []);
  });

  test("nothing while a model is being loaded", async () => {
    const { engine } = await start({ open: () => {} });
    const abort = new AbortController();
    const load = engine.load({ builtin: "storyteller" }, { signal: abort.signal });
    await rejects(engine.measure(), "busy", /being loaded/);
    abort.abort();
    await rejects(load, "cancelled");
  });

  test("and a worker that fails, dies or cannot be started takes nothing with it", async () => {
    const { engine, worker } = await loaded(
      { tokenize: done([]) },
      { measure: failed("out-of-memory", "not enough memory") },
      { measure: (_, worker) => worker.die("gone") },
      { start: (_, worker) => worker.die("no script") },
    );
    await rejects(engine.measure(), "out-of-memory");
    await rejects(engine.measure(), "crashed", /gone/);
    await rejects(engine.measure(), "start-failed", /no script/);
    assert.deepEqual([0, 1, 2, 3].map((n) => worker(n).terminated), [false, true, true, true]);
    assert.deepEqual(await engine.tokenize("a"), []);
  });

  test("nothing of a size that is none, and nothing once it is aborted or disposed of", async () => {
    const { engine, worker } = await start();
    for (const size of [0, -1, 1.5, NaN, Infinity, "64", null]) {
      await rejects(engine.measure(/** @type {any} */ ({ rows: size })), "bad-request", /^rows/);
      await rejects(engine.measure(/** @type {any} */ ({ rounds: size })), "bad-request", /^rounds/);
    }
    await rejects(engine.measure({ signal: AbortSignal.abort() }), "cancelled");
    await settle();
    assert.deepEqual(worker(0).seen.map(({ type }) => type), ["start"]);
    await engine.dispose();
    await rejects(engine.measure(), "disposed");
  });
});

describe("the clock of a measurement", () => {
  /** How many calls each sample took. @type {number[]} */
  const samples = [];

  /** Times its own calls of `now`, for a millisecond or more. */
  const pkg = {
    measure(/** @type {() => number} */ now) {
      const start = now();
      let calls = 1;
      while (now() - start < 1) calls++;
      const elapsed = now() - start;
      samples.push(calls);
      return [line("a", "b", (3 * calls) / elapsed, "GB/s"), line("a", "b", elapsed / calls, "ns"), line("a", "b", elapsed / calls, "µs")];
    },
  };
  /** Steps by `step` ms; a microsecond passes with every look at it. @param {number} step */
  function clock(step) {
    let time = 0;
    return () => Math.floor((time += 0.001) / step) * step;
  }

  for (const [step, least] of /** @type {const} */ ([[1, 19_000], [0.1, 1_900], [0.005, 990]])) {
    test(`that steps by ${step} ms: samples are long beside a step, and figures are those of real time`, () => {
      const [rate, time, alike] = measure(pkg, { rows: 1, rounds: 1 }, clock(step));
      assert.ok((samples.at(-1) ?? 0) >= least, `a sample of ${samples.at(-1)} µs`);
      assert.ok(Math.abs((rate?.best ?? 0) / 3000 - 1) < 0.06, `${rate?.best}`);
      assert.ok(Math.abs((rate?.median ?? 0) / 1500 - 1) < 0.06, `${rate?.median}`);
      assert.ok(Math.abs((time?.best ?? 0) / 0.001 - 1) < 0.06, `${time?.best}`);
      assert.equal(alike?.best, time?.best);
    });
  }
});

describe("of a measurement's lines", () => {
  test("shares are those of the limit that each names, and what is no matrix product has none", () => {
    assert.deepEqual(sharesOf(LINES), {
      bandwidth: 20,
      decode: [{ precision: "q8", kernel: "simd128", figure: 15, limit: { name: "read 151 MB", figure: 20 }, share: 0.75 }],
      prefill: [
        { precision: "q8", kernel: "simd128", figure: 30, limit: { name: "i32x4.dot_i16x8_s", figure: 40 }, share: 0.75 },
        { precision: "q4", kernel: "portable", figure: 3, limit: null, share: null },
      ],
    });
  });

  test("the bandwidth bounds GPT-2 124M by the bytes of its weights", () => {
    // 123,653,376 weights of 34 bytes for 32 in q8, of 18 in q4.
    assert.equal(mostTokensPerSecond((123_653_376 * 34 * 100) / 32 / 1e9, "q8"), 100);
    assert.equal(mostTokensPerSecond((123_653_376 * 18 * 100) / 32 / 1e9, "q4"), 100);
  });

  test("a document says what was measured, with what and when, in four digits", () => {
    const measurement = { build: BUILD, rows: 64, rounds: 3, lines: [line("simd128", "softmax 1000", 0.1234567, "ns"), line("limit", "read 151 MB", 123_456, "GB/s")] };
    const browser = { userAgent: "A browser", hardwareConcurrency: 8, language: "en" };
    assert.deepEqual(JSON.parse(documentOf(measurement, browser, new Date(0))), {
      date: "1970-01-01T00:00:00.000Z",
      userAgent: "A browser",
      hardwareConcurrency: 8,
      build: { name: "simd128", id: "b1", version: "0.1.0" },
      rows: 64,
      rounds: 3,
      lines: [
        { kernel: "simd128", operation: "softmax 1000", median: 0.06173, best: 0.1235, unit: "ns", limit: null },
        { kernel: "limit", operation: "read 151 MB", median: 61_728, best: 123_456, unit: "GB/s", limit: null },
      ],
    });
  });
});
