// The page fits its window, narrow or wide, in every state that it has.

import assert from "node:assert/strict";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { imitateHub } from "./hub.mjs";
import { Page } from "./page.mjs";
import { inEveryEngine, local } from "./suite.mjs";

/** @import { Hub } from "./hub.mjs" */

const GPT2 = "tests/fixtures/gpt2-tiny-a";

inEveryEngine("the page fits", (stage) => {
  /** @type {Hub} */
  let hub;
  before(async () => {
    hub = await imitateHub();
    const names = readdirSync(local(GPT2)).filter((name) => !name.startsWith("expected."));
    const files = new Map(names.map((name) => [name, readFileSync(local(`${GPT2}/${name}`))]));
    hub.repositories.set("openai-community/gpt2", { files, held: { path: "model.safetensors", until: new Promise(() => {}) } });
  });
  after(() => hub?.close());

  /**
   * Opens the page in a frame of that width: windows have a least width, which differs between browsers.
   *
   * @param {number} width
   */
  async function open(width) {
    await stage.driver.get(`${stage.site.url}a-page-without-a-policy`);
    const frame = await stage.driver.executeScript(
      `const frame = document.createElement("iframe");
       Object.assign(frame, { src: arguments[0], width: arguments[1], height: 800 });
       document.body.replaceChildren(frame);
       return frame;`,
      `${stage.site.url}?hub=${encodeURIComponent(hub.url)}`,
      width,
    );
    await stage.driver.switchTo().frame(/** @type {any} */ (frame));
    const page = new Page(stage.driver);
    await page.loaded();
    assert.equal(await stage.driver.executeScript("return innerWidth"), width);
    return page;
  }

  /** @param {string} state */
  async function fits(state) {
    const { width, window, sideways, widest } = /** @type {{ width: number, window: number, sideways: string[], widest: string }} */ (
      await stage.driver.executeScript(`
        const { scrollWidth } = document.scrollingElement;
        const over = [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > innerWidth);
        const boxes = [...document.querySelectorAll("#paper, #facts, #status, .panel, .writing")];
        const sideways = boxes.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.id || one.className);
        return { width: scrollWidth, window: innerWidth, sideways, widest: over.map((one) => one.id || one.className || one.tagName).join(", ") };
      `)
    );
    assert.ok(width <= window, `${state}: ${width} px in a window of ${window} px, because of ${widest}`);
    assert.deepEqual(sideways, [], `${state}: what is cut off, or scrolls sideways`);
  }

  for (const width of [360, 1280]) {
    test(`${width} px: ready, measured, writing, wrong, loading, with everything unfolded`, async () => {
      const page = await open(width);
      await fits("ready");

      await stage.driver.executeScript("for (const one of document.querySelectorAll('details')) one.open = true");
      await fits("unfolded");

      // By script, for WebKitGTK's pointer does not find what lies at the end of a frame that is wider than its window.
      const click = async (/** @type {string} */ name) =>
        stage.driver.executeScript("arguments[0].click()", await page.until(`there is a button ${name}`, () => page.element("button", name)));
      // How well it is measured does not matter here.
      await stage.driver.executeScript("const { engine } = vitrine, { measure } = engine; engine.measure = (options) => measure.call(engine, { ...options, rounds: 1 })");
      await click("Measure this device");
      await page.statusMatches(/This device is measured/);
      await click("Copy as JSON");
      await page.statusMatches(/copied as JSON|refused its clipboard/);
      await fits("measured");

      // One word without an end, and a text as long as the model's context.
      await stage.driver.executeScript("arguments[0].value = 'w'.repeat(120)", await page.element("textbox", "Prompt"));
      await page.setGreedy(200);
      await page.generate();
      await stage.driver.executeScript("document.getElementById('output').append('v'.repeat(500))");
      await fits("long output");

      const junk = join(stage.scratch, `${"n".repeat(120)}.txt`);
      writeFileSync(junk, "junk");
      await page.openFiles([junk]);
      assert.equal(await page.refusal(), "missing-file");
      await fits("error");

      await page.choose("GPT-2");
      const bar = await page.until("the bar is there", () => page.element("progressbar", "Loading"));
      await page.until("the bar shows bytes", async () => Number(await bar.getAttribute("value")) > 0);
      await fits("loading");
    });
  }
});
