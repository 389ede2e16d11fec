// Where downloads rest, on a disk that a browser grants, limits or refuses.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Downloads, sweepDownloads } from "../www/fetching/storage.js";
import { folder, gathered, serving } from "./gathering.mjs";
import { fakePlatform, REFUSALS } from "./opfs.mjs";

/** Larger than what is kept in memory. */
const LARGE = 17 * 1024 * 1024;

describe("storage", () => {
  const weights = Buffer.alloc(LARGE, 7);
  const large = () => folder(/** @type {any} */ ({ "config.json": "{}", "tokenizer.json": "{}", "model.safetensors": weights }));

  test("a large file lies in the file system until it is released, a small one in memory", async () => {
    const { folders, held, platform } = fakePlatform();
    const downloads = new Downloads(platform);
    await serving(large(), async (url) => {
      const { files } = await gathered({ kind: "url", url }, { downloads });
      const blob = files.find(({ name }) => name === "model.safetensors")?.blob;
      assert.deepEqual(Buffer.from(await /** @type {Blob} */ (blob).arrayBuffer()), weights);
    });
    assert.deepEqual([...folders.values()].map((files) => [...files.keys()]), [["model.safetensors"]]);
    assert.equal(held.size, 1);
    await downloads.release();
    await new Promise((resolve) => setTimeout(resolve, 1));
    assert.equal(folders.size, 0);
    assert.equal(held.size, 0);
  });

  test("without a file system, a large file lies in memory", async () => {
    await serving(large(), async (url) => {
      const { files } = await gathered({ kind: "url", url });
      assert.equal(files.at(-1)?.blob.size, LARGE);
    });
  });

  test("a disk that is known to be too small is refused before the download, one that fills up when it does", async () => {
    for (const limits of [{ quota: 1e6 }, { room: 5e6 }]) {
      const { folders, platform } = fakePlatform(limits);
      const downloads = new Downloads(platform);
      await serving(large(), async (url) => {
        const message = limits.quota ? /model\.safetensors has 17\.8 MB.*1\.0 MB more/ : /could not be stored after [\d.]+ MB/;
        await assert.rejects(gathered({ kind: "url", url }, { downloads }), { code: "disk-full", message });
      });
      assert.ok([...folders.values()].every((files) => files.size === 0));
      await downloads.release();
      assert.equal(folders.size, 0);
    }
  });

  test("a browser that refuses the file system or its locks keeps a large file in memory, and leaves nothing behind", async () => {
    for (const refuses of REFUSALS) {
      const { folders, held, platform } = fakePlatform({ refuses });
      const downloads = new Downloads(platform);
      await sweepDownloads(platform, 10);
      await serving(large(), async (url) => {
        const { files } = await gathered({ kind: "url", url }, { downloads });
        assert.equal(files.at(-1)?.blob.size, LARGE, refuses);
      });
      await downloads.release();
      await new Promise((resolve) => setTimeout(resolve, 1));
      assert.equal(held.size, 0, refuses);
      assert.ok([...folders.values()].every((files) => files.size === 0), refuses);
    }
  });

  test("what an ended load left behind is swept away, and what a living one holds is not", async () => {
    const { folders, held, platform } = fakePlatform();
    const alive = new Downloads(platform);
    await alive.sink("a.bin", LARGE);
    const [name] = folders.keys();
    folders.set("left behind", new Map([["b.bin", []]]));
    await sweepDownloads(platform, 10);
    assert.deepEqual([...folders.keys()], [name]);
    held.clear(); // its worker was ended
    await sweepDownloads(platform, 10);
    assert.equal(folders.size, 0);
  });

  test("a file that is still open is removed when it is not", async () => {
    const { folders, platform } = fakePlatform({ inUse: 2 });
    folders.set("left behind", new Map());
    await sweepDownloads(platform);
    assert.equal(folders.size, 0);
  });
});
