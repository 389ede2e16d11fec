// The page writes: with the model that it brings, and with files that a visitor opens.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Page } from "./page.mjs";
import { inEveryEngine, json, local } from "./suite.mjs";

/** Checkpoints of the reference implementation, each with what it wrote. */
const FIXTURES = readdirSync(local("tests/fixtures"), { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && entry.name !== "text")
  .map((entry) => entry.name);

/** The built-in model as the repository has it; the site ships it at 8 bits. */
const STORYTELLER = ["config.json", "tokenizer.json", "model.safetensors"].map((file) => local(`www/models/storyteller/${file}`));

inEveryEngine("the page writes", (stage) => {
  test("the built-in model, opened as it was before the site made 8 bits of it, writes what the reference writes", async () => {
    const expected = json("www/models/storyteller/expected.json");
    const page = await Page.open(stage.driver, `${stage.site.url}?precision=f32`);
    await page.openFiles(STORYTELLER);
    await page.statusMatches(/Opened files is ready/);
    await page.fill("textbox", "Prompt", expected.prompt);
    await page.setGreedy(expected.ids.length);
    assert.equal(await page.generate(), expected.text);
    assert.deepEqual(stage.site.missing, [], "the page asked for files that the site does not have");
  });

  // The texts were recorded natively, from the portable kernels.
  test("every build and precision writes its known greedy text", async () => {
    const { prompt, ids } = json("www/models/storyteller/expected.json");
    const { storyteller: expected } = json("tests/fixtures/built_in.json");
    for (const build of ["simd128", "relaxed"]) {
      await stage.driver.get(`${stage.site.url}?build=${build}`);
      const page = new Page(stage.driver);
      await page.until("the engine has started or said why not", async () => (await page.canPress("Generate")) || /could not be started/.test(await page.status()));
      if (build === "relaxed" && !(await page.canPress("Generate"))) {
        assert.equal(await relaxedSimd(stage.driver), false, await page.status());
        continue;
      }
      assert.equal(await stage.driver.executeScript("return vitrine.engine.build.name"), build);
      assert.equal(await stage.driver.executeScript("return vitrine.engine.model.precision"), "q8", "the default");
      await page.fill("textbox", "Prompt", prompt);
      await page.setGreedy(ids.length);
      for (const [precision, text] of Object.entries(expected)) {
        await page.choose(precision, "Precision");
        await page.until(`the model is there in ${precision}`, async () => (await stage.driver.executeScript("return vitrine.engine.model?.precision")) === precision && page.canPress("Generate"));
        assert.equal(await page.generate(), text, `${build}, ${precision}`);
      }
    }
  });

  test("the built-in models are the first two of the list: the page opens with GPT-2's, and OPT's is a pick away", async () => {
    const page = await Page.open(stage.driver, stage.site.url);
    const models = await page.element("combobox", "Model");
    const listed = await stage.driver.executeScript("return [...arguments[0].options].filter((option) => !option.hidden && option.value).map((option) => option.label)", models);
    assert.deepEqual(/** @type {string[]} */ (listed).slice(0, 2), ["Storyteller GPT-2, built in", "Storyteller OPT, built in"]);
    await writes("storyteller");
    await page.choose("Storyteller OPT");
    await page.statusMatches(/Storyteller OPT is ready/);
    await writes("storyteller-opt");

    async function writes(/** @type {string} */ name) {
      assert.equal(await stage.driver.executeScript("return vitrine.engine.model.name"), name);
      const { prompt, ids } = json(`www/models/${name}/expected.json`);
      await page.fill("textbox", "Prompt", prompt);
      await page.setGreedy(ids.length);
      assert.equal(await page.generate(), json("tests/fixtures/built_in.json")[name].q8);
    }
  });

  test("the same seed writes the same text, a fresh one is shown", async () => {
    const page = await Page.open(stage.driver, stage.site.url);
    await page.fill("spinbutton", "Temperature", 1);
    await page.fill("spinbutton", "Max new tokens", 30);
    await page.fill("spinbutton", "Seed", 7);
    const first = await page.generate();
    assert.ok(first.length > 20, first);
    assert.equal(await page.generate(), first);
    await page.fill("spinbutton", "Seed", 8);
    assert.notEqual(await page.generate(), first);
  });

  for (const name of FIXTURES) {
    test(`files opened by hand write what the reference writes: ${name}`, async () => {
      const folder = local(`tests/fixtures/${name}`);
      const { greedy } = json(`tests/fixtures/${name}/expected.json`);
      const files = readdirSync(folder).filter((file) => !file.startsWith("expected."));
      const page = await Page.open(stage.driver, `${stage.site.url}?precision=f32`);
      await page.openFiles(files.map((file) => join(folder, file)));
      await page.statusMatches(/Opened files is ready/);
      await page.fill("textbox", "Prompt", greedy.prompt);
      await page.setGreedy(greedy.ids.length);
      assert.equal(await page.generate(), greedy.text);
    });
  }
});

/** @param {import("selenium-webdriver").WebDriver} driver */
async function relaxedSimd(driver) {
  return driver.executeAsyncScript(`
    const done = arguments[arguments.length - 1];
    import(new URL("capabilities.js", location.href).href).then((module) => done(module.detectCapabilities().relaxedSimd));
  `);
}
