// One model takes the place of another, wherever it comes from and however quickly they are picked.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { BROKEN, slowCheckpoint, writeBroken } from "./checkpoints.mjs";
import { imitateHub } from "./hub.mjs";
import { Page } from "./page.mjs";
import { inEveryEngine, json, local } from "./suite.mjs";

/** @import { Hub } from "./hub.mjs" */

const GPT2 = "tests/fixtures/gpt2-tiny-a";
const OPT = "tests/fixtures/opt-tiny-a";

const MEMORY = ["cache", "scratch", "tokenizer", "total", "wasm", "weights"];

/** @param {string} folder in the checkout */
const namesIn = (folder) => readdirSync(local(folder)).filter((file) => !file.startsWith("expected."));

inEveryEngine("models", (stage) => {
  /** @type {Hub} */
  let hub;
  before(async () => {
    hub = await imitateHub();
    const published = new Map(namesIn(GPT2).map((name) => [name, readFileSync(local(`${GPT2}/${name}`))]));
    for (const repository of ["openai-community/gpt2", "distilbert/distilgpt2"]) hub.repositories.set(repository, { files: published });
  });
  after(() => hub?.close());

  /** Opens the page with this hub in place of the public one, and keeps count of its workers from now on. */
  async function open() {
    const page = await Page.open(stage.driver, `${stage.site.url}?precision=f32&hub=${encodeURIComponent(hub.url)}`);
    await stage.driver.executeAsyncScript(`
      const { postMessage, terminate } = Worker.prototype;
      const [seen, ended] = [[], []];
      Worker.prototype.postMessage = function (...message) {
        if (!seen.includes(this)) seen.push(this);
        postMessage.apply(this, message);
      };
      Worker.prototype.terminate = function () {
        ended.push(this);
        terminate.call(this);
      };
      window.workers = () => seen.map((worker) => (ended.includes(worker) ? "ended" : "alive"));
      vitrine.engine.tokenize("so that the first worker is seen").then(arguments[0]);
    `);
    return page;
  }

  /** How each worker fares, in the order of their making. */
  const workers = () => stage.driver.executeScript("return workers()");

  /** @param {Page} page */
  async function writesAsGpt2(page) {
    const { greedy } = json(`${GPT2}/expected.json`);
    await page.fill("textbox", "Prompt", greedy.prompt);
    await page.setGreedy(greedy.ids.length);
    assert.equal(await page.generate(), greedy.text);
  }

  test("a second model ends the first one's worker, and a third one that is refused ends nobody's but its own", async () => {
    const page = await open();
    assert.deepEqual(await workers(), ["alive"]);
    await page.choose("GPT-2");
    await page.statusMatches(/GPT-2 is ready/);
    assert.deepEqual(await workers(), ["ended", "alive"]);
    const [broken] = BROKEN;
    if (!broken) throw new Error("there is a broken checkpoint");
    await page.openFiles(writeBroken(join(stage.scratch, "broken"), broken));
    assert.equal(await page.refusal(), broken.code);
    assert.match(await page.status(), /GPT-2 is still loaded/);
    assert.deepEqual(await workers(), ["ended", "alive", "ended"]);
    await writesAsGpt2(page);
  });

  test("a second model takes the place of the first, and gives its memory back", async () => {
    const page = await Page.open(stage.driver, stage.site.url);
    const memory = () => stage.driver.executeScript("return vitrine.engine.model.memory.wasm");
    const small = Number(await memory());
    await page.openFiles(slowCheckpoint(stage.scratch));
    await page.statusMatches(/Opened files is ready/);
    const large = Number(await memory());
    await page.choose("Storyteller GPT-2");
    await page.statusMatches(/Storyteller GPT-2 is ready/);
    const again = Number(await memory());
    assert.ok(large > 2 * small, `${large} bytes are more than ${small}`);
    assert.ok(again < 1.5 * small, `${again} bytes are about ${small}`);
    assert.ok((await page.generate()).length > 0);
  });

  test("the last of four quick picks is loaded, and nobody is told of a busy engine", async () => {
    const page = await open();
    const seen = await stage.driver.executeScript(
      `const [model, status] = arguments;
       const seen = (window.statuses = []);
       new MutationObserver(() => seen.push([status.dataset.code ?? "", status.textContent])).observe(status, { attributes: true, childList: true });
       for (const name of ["GPT-2", "DistilGPT-2", "GPT-2", "DistilGPT-2"]) {
         model.value = [...model.options].find((option) => option.text.startsWith(name + ",")).value;
         model.dispatchEvent(new Event("change"));
       }`,
      await page.element("combobox", "Model"),
      await page.element("status", "Status"),
    );
    assert.equal(seen, null);
    await page.statusMatches(/DistilGPT-2 is ready/);
    const statuses = /** @type {[string, string][]} */ (await stage.driver.executeScript("return statuses"));
    assert.deepEqual(statuses.filter(([code]) => code !== ""), []);
    assert.equal(/** @type {string[]} */ (await workers()).filter((state) => state === "alive").length, 1);
    await writesAsGpt2(page);
  });

  test("the engine's figures are those of the model as it now is", async () => {
    await open();
    const figures = await stage.driver.executeAsyncScript(`
      const done = arguments[0];
      const { engine } = vitrine;
      (async () => {
        const models = [engine.model];
        await engine.score("Once upon a time there was a little dog.");
        models.push(engine.model);
        await engine.generate("Once upon a time ".repeat(40), { maxNewTokens: 2 }).result;
        models.push(engine.model);
        return models;
      })().then(done, (error) => done(String(error)));
    `);
    const models = /** @type {import("../../www/protocol.js").Model[]} */ (figures);
    for (const { bytes, memory } of models) {
      assert.deepEqual(Object.keys(memory).sort(), MEMORY);
      assert.equal(bytes, memory.total);
      assert.equal(memory.total, memory.weights + memory.cache + memory.scratch + memory.tokenizer);
    }
    const [loaded = NaN, scored = NaN, generated = NaN] = models.map(({ memory }) => memory.cache);
    assert.ok(loaded <= scored && scored < generated, `the cache had ${loaded}, ${scored}, ${generated} bytes`);
  });

  /**
   * Drops files on the page, as far as a script can.
   *
   * @param {Record<string, string>} files their content in base64, by name
   */
  const drop = (files) =>
    stage.driver.executeScript(
      `const transfer = new DataTransfer();
       for (const [name, content] of Object.entries(arguments[0])) {
         transfer.items.add(new File([Uint8Array.from(atob(content), (char) => char.charCodeAt(0))], name));
       }
       for (const type of ["dragover", "drop"]) {
         const event = new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: transfer });
         document.body.dispatchEvent(event);
         if (!event.defaultPrevented) throw new Error("the page leaves the " + type + " to the browser");
       }`,
      files,
    );

  test("files that are dropped on the page are a model", async () => {
    const page = await open();
    const { greedy } = json(`${OPT}/expected.json`);
    await drop(Object.fromEntries(namesIn(OPT).map((name) => [name, readFileSync(local(`${OPT}/${name}`), "base64")])));
    await page.statusMatches(/Opened files is ready/);
    await page.fill("textbox", "Prompt", greedy.prompt);
    await page.setGreedy(greedy.ids.length);
    assert.equal(await page.generate(), greedy.text);
  });

  test("what is dropped and is no model is refused, and the page works on", async () => {
    const page = await open();
    await drop({ "holiday.jpg": "/9j/4AAQ", "notes.txt": "aGVsbG8=" });
    assert.equal(await page.refusal(), "missing-file");
    assert.match(await page.status(), /config\.json.*Storyteller GPT-2 is still loaded/s);
    assert.deepEqual(await workers(), ["alive", "ended"]);
    assert.ok((await page.generate()).length > 0);
  });
});
