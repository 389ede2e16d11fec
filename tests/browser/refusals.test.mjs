// What cannot be done is said clearly, and the page works on.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { BROKEN, writeBroken, zeroCheckpoint } from "./checkpoints.mjs";
import { Page } from "./page.mjs";
import { inEveryEngine, json } from "./suite.mjs";

inEveryEngine("the page refuses", (stage) => {
  /** @type {Page} */
  let page;

  /** The built-in model still writes what it should. */
  async function stillWrites() {
    const { prompt } = json("www/models/storyteller/expected.json");
    const { storyteller: expected } = json("tests/fixtures/built_in.json");
    await page.fill("textbox", "Prompt", prompt);
    await page.setGreedy(8);
    const text = await page.generate();
    assert.ok(text.length > 0 && expected.f32.startsWith(text), text);
  }

  test("each broken checkpoint, by what is wrong with it", async (t) => {
    page = await Page.open(stage.driver, `${stage.site.url}?precision=f32`);
    for (const broken of BROKEN) {
      await t.test(broken.what, async () => {
        await page.openFiles(writeBroken(join(stage.scratch, broken.what.replaceAll(" ", "-")), broken));
        assert.deepEqual(await page.refusal(), broken.code);
        assert.match(await page.status(), broken.says);
      });
    }
    await stillWrites();
  });

  test("a model too big for memory, before it is loaded, with the figures", async () => {
    page = await Page.open(stage.driver, `${stage.site.url}?precision=f32`);
    await page.openFiles(zeroCheckpoint(join(stage.scratch, "huge"), { layers: 24, hidden: 2048, context: 1024 }));
    assert.equal(await page.refusal(), "out-of-memory");
    assert.match(await page.status(), /\d.*GB|\d.*MB|\d.*GiB|\d.*MiB/);
    await stillWrites();
  });

  test("prompts and sampling values that make no sense", async () => {
    page = await Page.open(stage.driver, `${stage.site.url}?precision=f32`);
    await page.fill("textbox", "Prompt", "");
    await page.press("Generate");
    assert.equal(await page.refusal(), "bad-request");

    await stage.driver.executeScript(
      "arguments[0].value = 'once more '.repeat(400)",
      await page.element("textbox", "Prompt"),
    );
    await page.press("Generate");
    assert.equal(await page.refusal(), "context-exceeded");
    assert.match(await page.status(), /512/);

    await page.fill("textbox", "Prompt", "Once");
    for (const [name, value] of /** @type {[string, string][]} */ ([
      ["Temperature", "-1"],
      ["Top-p", "7"],
      ["Max new tokens", "0"],
    ])) {
      const before = await (await page.element("spinbutton", name)).getAttribute("value");
      await page.fill("spinbutton", name, value);
      await page.press("Generate");
      assert.equal(await page.refusal(), "bad-request", name);
      await page.fill("spinbutton", name, before ?? "");
    }
    await stillWrites();
  });

  for (const how of ["panic", "memory", "stack"]) {
    test(`to pretend that nothing happened after a crash (${how}), and loads again`, async () => {
      page = await Page.open(stage.driver, `${stage.site.url}?precision=f32`);
      const failure = await stage.driver.executeAsyncScript(
        "const done = arguments[1]; vitrine.engine.crash(arguments[0]).catch(({ code, message }) => done({ code, message }))",
        how,
      );
      assert.equal(/** @type {any} */ (failure).code, "crashed", JSON.stringify(failure));
      await page.press("Generate");
      assert.equal(await page.refusal(), "no-model");
      assert.match(await page.status(), /crashed/);
      await page.choose("Storyteller GPT-2");
      await page.statusMatches(/Storyteller GPT-2 is ready/);
      await stillWrites();
    });
  }
});
