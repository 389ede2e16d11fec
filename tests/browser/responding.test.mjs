// The page answers at once, whatever the engine is doing.

import assert from "node:assert/strict";
import { test } from "node:test";
import { slowCheckpoint } from "./checkpoints.mjs";
import { Page } from "./page.mjs";
import { inEveryEngine } from "./suite.mjs";

inEveryEngine("the page responds", (stage) => {
  async function openSlow() {
    const page = await Page.open(stage.driver, stage.site.url);
    await loadSlow(page);
    return page;
  }

  /** @param {Page} page */
  async function loadSlow(page) {
    await page.openFiles(slowCheckpoint(stage.scratch));
    await page.statusMatches(/Opened files is ready/);
  }

  test("Stop answers at once, keeps the text and leaves the page usable", async () => {
    const page = await openSlow();
    await page.fill("spinbutton", "Max new tokens", 1000);
    await page.press("Generate");
    await page.until("some text is there", async () => (await page.output()).length > 20);
    const stoppedAfterMs = await stop(page);
    assert.ok(stoppedAfterMs < 2000, `stopping took ${stoppedAfterMs} ms`);
    assert.match(await page.status(), /Stopped after \d+ tokens/);
    assert.ok((await page.output()).length > 20);
    await page.fill("spinbutton", "Max new tokens", 3);
    assert.ok((await page.generate()).length > 0);
  });

  test("Stop answers while a long prompt is read", async () => {
    const page = await openSlow();
    await stage.driver.executeScript(
      "arguments[0].value = 'the old king '.repeat(300)",
      await page.element("textbox", "Prompt"),
    );
    await page.press("Generate");
    await page.statusMatches(/Reading the prompt: \d+ of \d+/);
    const stoppedAfterMs = await stop(page);
    assert.ok(stoppedAfterMs < 2000, `stopping took ${stoppedAfterMs} ms`);
    assert.match(await page.status(), /Stopped after 0 tokens/);
  });

  test("the page never freezes, while a model loads or writes", async () => {
    const page = await Page.open(stage.driver, stage.site.url);
    await stage.driver.executeScript(`
      const { dataset } = document.documentElement;
      let [last, longest] = [performance.now(), 0];
      setInterval(() => {
        const now = performance.now();
        dataset.longestPauseMs = longest = Math.max(longest, now - last);
        last = now;
      }, 10);
    `);
    await loadSlow(page);
    await page.fill("spinbutton", "Max new tokens", 60);
    assert.ok((await page.generate()).length > 0);
    const pauseMs = Number(await stage.driver.executeScript("return document.documentElement.dataset.longestPauseMs"));
    assert.ok(pauseMs < 500, `the page stood still for ${pauseMs} ms`);
  });
});

/**
 * Presses Stop and waits for the end.
 *
 * @param {Page} page
 * @returns {Promise<number>} milliseconds that it took
 */
async function stop(page) {
  const pressed = Date.now();
  await page.press("Stop");
  await page.until("the writing has stopped", () => page.canPress("Generate"));
  return Date.now() - pressed;
}
