// Models from a hub and from a plain folder on the web, served by this machine.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { imitateHub } from "./hub.mjs";
import { Page } from "./page.mjs";
import { inEveryEngine, json, local } from "./suite.mjs";

/** @import { Hub } from "./hub.mjs" */

const GPT2 = "tests/fixtures/gpt2-tiny-a";
const OPT = "tests/fixtures/opt-tiny-a";

/** @param {string} folder in the checkout */
function published(folder) {
  const files = readdirSync(local(folder)).filter((file) => !file.startsWith("expected."));
  const other = ["README.md", ".gitattributes", "onnx/decoder_model.onnx", "tf_model.h5", "64.tflite"];
  return new Map([
    ...other.map((path) => /** @type {[string, Buffer]} */ ([path, Buffer.from("not for us")])),
    ...files.map((file) => /** @type {[string, Buffer]} */ ([file, readFileSync(local(`${folder}/${file}`))])),
  ]);
}

inEveryEngine("the hub", (stage) => {
  /** @type {Hub} */
  let hub;
  before(async () => {
    hub = await imitateHub();
  });
  after(() => hub?.close());

  /** Opens the page with this hub in place of the public one. */
  const open = () => Page.open(stage.driver, `${stage.site.url}?precision=f32&hub=${encodeURIComponent(hub.url)}`);

  for (const [name, repository, folder] of /** @type {[string, string, string][]} */ ([
    ["GPT-2", "openai-community/gpt2", GPT2], // model.safetensors, tokenizer.json
    ["OPT-125M", "facebook/opt-125m", OPT], // pytorch_model.bin, vocab.json, merges.txt
  ])) {
    test(`${name} of the model list is fetched, file by file, and writes`, async () => {
      hub.repositories.set(repository, { files: published(folder) });
      const page = await open();
      hub.requests.length = 0;
      await page.choose(name);
      await page.statusMatches(new RegExp(`${name} is ready`));
      const { greedy } = json(`${folder}/expected.json`);
      await page.fill("textbox", "Prompt", greedy.prompt);
      await page.setGreedy(greedy.ids.length);
      assert.equal(await page.generate(), greedy.text);
      const unneeded = hub.requests.filter((path) => /README|gitattributes|onnx|h5|tflite/.test(path));
      assert.deepEqual(unneeded, [], "only the files that are needed are fetched");
    });
  }

  test("an absent, a gated and an unknown revision's repository are told apart", async () => {
    await open();
    hub.repositories.set("some/gated", { files: published(GPT2), gated: true });
    const load = (/** @type {object} */ source) => failureOf(source);
    assert.equal((await load({ hub: "some/absent" })).code, "unauthorized");
    assert.equal((await load({ hub: "some/gated" })).code, "forbidden");
    hub.repositories.set("some/model", { files: published(GPT2) });
    assert.equal((await load({ hub: "some/model", revision: "v2" })).code, "not-found");
    hub.repositories.set("some/empty", { files: new Map([["README.md", Buffer.from("hello")]]) });
    assert.equal((await load({ hub: "some/empty" })).code, "missing-file");
  });

  test("a connection that breaks off is a clear error, and the model before it stays", async () => {
    hub.repositories.set("distilbert/distilgpt2", { files: published(GPT2), cut: "model.safetensors" });
    const page = await open();
    await page.choose("DistilGPT-2");
    assert.match(await page.refusal(), /^(network-error|short-download)$/);
    assert.match(await page.status(), /model\.safetensors/);
    assert.match(await page.status(), /Storyteller GPT-2 is still loaded/);
    assert.ok((await page.generate()).length > 0);
  });

  test("a download shows its progress and can be cancelled", async () => {
    hub.repositories.set("facebook/opt-125m", { files: published(GPT2), slow: "model.safetensors" });
    const page = await open();
    await page.choose("OPT-125M");
    const bar = await page.until("the bar is there", () => page.element("progressbar", "Loading"));
    await page.until("the bar shows bytes", async () => Number(await bar.getAttribute("value")) > 0);
    assert.match((await bar.getAttribute("aria-valuetext")) ?? "", /\d+(\.\d+)? [kMG]?B of \d/);
    await page.press("Cancel loading");
    await page.statusMatches(/cancelled/);
    assert.ok((await page.generate()).length > 0);
  });

  test("a folder on a plain web server is a source too", async () => {
    await open();
    const model = await stage.driver.executeAsyncScript(
      "const done = arguments[0]; vitrine.engine.load({ url: 'models/storyteller/' }).then((model) => done(model.architecture), done)",
    );
    assert.equal(model, "gpt2");
    assert.equal((await failureOf({ url: "models/nothing/" })).code, "not-found");
    assert.equal((await failureOf({ url: "http://127.0.0.1:9/" })).code, "network-error");
  });

  /**
   * @param {object} source that cannot be loaded
   * @returns {Promise<{ code: string, message: string }>}
   */
  async function failureOf(source) {
    const failure = await stage.driver.executeAsyncScript(
      `const [source, done] = arguments;
       vitrine.engine.load(source).then(() => done({ code: "loaded" }), ({ code, message }) => done({ code, message }))`,
      source,
    );
    return /** @type {{ code: string, message: string }} */ (failure);
  }
});
