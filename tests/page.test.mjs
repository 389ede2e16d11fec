// What of the page needs no DOM.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { filesOf } from "../www/page/drop.js";
import { Latest } from "../www/page/latest.js";
import { readParameters } from "../www/page/parameters.js";
import { settle } from "./loopback.mjs";

describe("of loads asked for one after another", () => {
  /** Tasks that end a while after they are aborted, and never two at a time. */
  function tasks() {
    /** @type {string[]} */
    const log = [];
    let alive = 0;
    const task = (/** @type {string} */ name) => async (/** @type {AbortSignal} */ signal) => {
      assert.equal(++alive, 1, `${name} begins beside another`);
      log.push(`${name} begins`);
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      await settle();
      log.push(`${name} is aborted`);
      alive--;
    };
    return { log, task };
  }

  test("the last one is done, though the same one was asked for before", async () => {
    const latest = new Latest();
    const { log, task } = tasks();
    const [a, b] = [task("a"), task("b")];
    const calls = [a, b, a, b].map((task) => latest.run(task));
    await settle();
    assert.deepEqual(log, ["b begins"]);
    const next = latest.run(a);
    await settle();
    await settle();
    assert.deepEqual(log, ["b begins", "b is aborted", "a begins"]);
    latest.abort();
    assert.deepEqual(await Promise.all([...calls, next]), [false, false, false, false, true]);
  });

  test("one that was asked for while another ends takes its place", async () => {
    const latest = new Latest();
    const { log, task } = tasks();
    const [a, b] = [task("a"), task("b")];
    void latest.run(a);
    await settle();
    const calls = [b, a, b].map((task) => latest.run(task));
    await settle();
    await settle();
    assert.deepEqual(log, ["a begins", "a is aborted", "b begins"]);
    latest.abort();
    assert.deepEqual(await Promise.all(calls), [false, false, true]);
  });

  test("one that fails does not keep the next from its turn", async () => {
    const latest = new Latest();
    await assert.rejects(latest.run(async () => Promise.reject(new Error("no"))), /no/);
    assert.equal(await latest.run(async () => {}), true);
  });
});

describe("what is dropped", () => {
  const file = (/** @type {string} */ fullPath) => ({
    isFile: true,
    fullPath,
    file: (/** @type {(file: File) => void} */ resolve) => resolve(new File([fullPath], "name")),
  });

  /**
   * A folder as browsers read one: in parts, the last of them empty.
   *
   * @param {object[][]} parts
   */
  const folder = (...parts) => ({
    isFile: false,
    isDirectory: true,
    createReader: () => ({ readEntries: (/** @type {(part: object[]) => void} */ resolve) => resolve(parts.shift() ?? []) }),
  });

  const unreadable = {
    isFile: true,
    file: (/** @type {unknown} */ _, /** @type {(error: Error) => void} */ reject) => reject(new DOMException("it is gone", "NotFoundError")),
  };

  const items = (/** @type {object[]} */ ...entries) =>
    entries.map((entry) => /** @type {any} */ ({ webkitGetAsEntry: () => entry, getAsFile: () => null }));

  test("is read, folders and all", async () => {
    const names = async (/** @type {Promise<{ name: string }[]>} */ files) => (await files).map(({ name }) => name);
    const nested = folder([file("/m/a")], [folder([file("/m/sub/b")]), file("/m/c")]);
    assert.deepEqual(await names(filesOf(items(nested))), ["m/a", "m/sub/b", "m/c"]);
    const many = folder(Array.from({ length: 3000 }, (_, n) => file(`/m/${n}`)));
    assert.equal((await filesOf(items(many))).length, 1000);
    for (const entry of [null, unreadable]) {
      const item = { webkitGetAsEntry: () => entry, getAsFile: () => new File([], "config.json") };
      assert.deepEqual(await names(filesOf([/** @type {any} */ (item)])), ["config.json"]);
    }
  });

  test("and cannot be read, or is no file, is a failure", async () => {
    await assert.rejects(filesOf(items(folder([unreadable]))), { code: "read-failed", message: /it is gone/ });
    await assert.rejects(filesOf(items(folder())), { code: "missing-file" });
    const text = { webkitGetAsEntry: () => null, getAsFile: () => null };
    await assert.rejects(filesOf([/** @type {any} */ (text)]), { code: "missing-file" });
  });
});

test("the page's address may name a hub on this machine only", () => {
  assert.deepEqual(readParameters("?hub=http://127.0.0.1:8000&build=simd128"), { hub: "http://127.0.0.1:8000", build: "simd128" });
  assert.deepEqual(readParameters("?hub=http://localhost:8000&precision=q4"), { hub: "http://localhost:8000", precision: "q4" });
  for (const hub of ["https://example.org", "http://127.0.0.1.example.org", "//127.0.0.1", "http://127.0.0.1@example.org", "javascript:alert(1)"]) {
    assert.deepEqual(readParameters(`?hub=${encodeURIComponent(hub)}&build=fastest&precision=q9`), {}, hub);
  }
});
