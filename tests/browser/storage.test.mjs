// Large downloads rest on disk while a model loads, and nothing of them stays there.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { zeroCheckpoint } from "./checkpoints.mjs";
import { imitateHub } from "./hub.mjs";
import { Page } from "./page.mjs";
import { inEveryEngine } from "./suite.mjs";

/** @import { TestContext } from "node:test" */
/** @import { Hub } from "./hub.mjs" */

/** Its weights have 23 MB: more than 16, from which on they go to disk. */
const LARGE = { layers: 3, hidden: 512, context: 64 };

const REPOSITORY = "openai-community/gpt2";

inEveryEngine("a large download", (stage) => {
  /** @type {Hub} */
  let hub;
  /** @type {Map<string, Buffer>} */
  let files;
  before(async () => {
    hub = await imitateHub();
    const paths = zeroCheckpoint(join(stage.scratch, "large"), LARGE);
    files = new Map(paths.map((path) => [basename(path), readFileSync(path)]));
  });
  after(() => hub?.close());

  const open = () => Page.open(stage.driver, `${stage.site.url}?hub=${encodeURIComponent(hub.url)}`);

  /** The paths of what lies in the folder of downloads; null where the browser has no such file system for this page. */
  const stored = () =>
    /** @type {Promise<string[] | null>} */ (
      stage.driver.executeAsyncScript(`
        const done = arguments[0];
        const below = async (folder, path) => {
          const found = [];
          for await (const [name, handle] of folder.entries()) {
            found.push(path + name, ...(handle.kind === "directory" ? await below(handle, path + name + "/") : []));
          }
          return found;
        };
        (async () => {
          const root = await navigator.storage.getDirectory();
          return below(await root.getDirectoryHandle("vitrine-downloads", { create: true }), "");
        })().then(done, () => done(null));
      `)
    );

  /** @param {Page} page */
  const nothingIsStored = (page) =>
    page.until("nothing is stored", async () => (await stored())?.length === 0).catch(async (error) => {
      throw new Error(`${error.message} Stored: ${await stored()}`);
    });

  /**
   * Begins the download, and holds it in the middle.
   *
   * @param {TestContext} t
   * @returns {Promise<{ page: Page, release: () => void } | null>} null where the file rests in memory
   */
  async function halfWay(t) {
    /** @type {() => void} */
    let release = () => {};
    const until = new Promise((resolve) => (release = () => resolve(undefined)));
    hub.repositories.set(REPOSITORY, { files, held: { path: "model.safetensors", until } });
    const page = await open();
    if ((await stored()) === null) {
      t.skip("this browser has no origin private file system here");
      return null;
    }
    assert.deepEqual(await stored(), []);
    await stage.driver.executeScript(`
      const { postMessage } = Worker.prototype;
      Worker.prototype.postMessage = function (...message) {
        window.latestWorker = this;
        postMessage.apply(this, message);
      };
    `);
    await page.choose("GPT-2");
    await page.until("the weights are on disk", async () => (await stored())?.some((path) => path.endsWith("/model.safetensors")));
    return { page, release };
  }

  test("goes through the disk", async (t) => {
    const half = await halfWay(t);
    if (!half) return;
    const { page, release } = half;
    release();
    await page.statusMatches(/GPT-2 is ready/);
    assert.deepEqual(await stored(), []);
  });

  test("is a model that answers, through the disk or not", async () => {
    hub.repositories.set(REPOSITORY, { files });
    const page = await open();
    await page.choose("GPT-2");
    await page.statusMatches(/GPT-2 is ready/);
    await page.setGreedy(3);
    assert.ok((await page.generate()).length > 0);
  });

  test("that is cancelled leaves nothing", async (t) => {
    const half = await halfWay(t);
    if (!half) return;
    const { page } = half;
    await page.press("Cancel loading");
    await page.statusMatches(/cancelled.*Storyteller GPT-2 is still loaded/);
    await nothingIsStored(page);
  });

  test("whose worker dies leaves nothing, and the next load works", async (t) => {
    const half = await halfWay(t);
    if (!half) return;
    const { page } = half;
    // As browsers tell of a worker that has ended by itself.
    await stage.driver.executeScript("latestWorker.dispatchEvent(new ErrorEvent('error', { message: 'killed' }))");
    assert.equal(await page.refusal(), "crashed");
    assert.match(await page.status(), /killed.*Storyteller GPT-2 is still loaded/s);
    await nothingIsStored(page);
    hub.repositories.set(REPOSITORY, { files });
    await page.choose("GPT-2");
    await page.statusMatches(/GPT-2 is ready/);
    assert.deepEqual(await stored(), []);
  });

  test("whose tab is closed leaves nothing that the next visit does not sweep away", async (t) => {
    const half = await halfWay(t);
    if (!half) return;
    hub.repositories.set(REPOSITORY, { files });
    const page = await open();
    await nothingIsStored(page);
    await page.choose("GPT-2");
    await page.statusMatches(/GPT-2 is ready/);
    assert.deepEqual(await stored(), []);
  });
});
