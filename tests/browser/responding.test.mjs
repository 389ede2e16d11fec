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
    await stop(page);
    const tokens = Number(/Stopped after (\d+) tokens/.exec(await page.status())?.[1]);
    assert.ok(tokens > 0 && tokens < 900, `${tokens} tokens`);
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
    // How many chunks of the prompt are read after Stop: the one that was begun, and one whose message is on its way.
    await stage.driver.executeScript(
      `const { dataset } = document.documentElement;
      addEventListener("click", ({ target }) => {
        if (target.textContent.trim() === "Stop") dataset.readAfterStop = 0;
      });
      new MutationObserver(() => {
        if ("readAfterStop" in dataset && /Reading/.test(arguments[0].textContent)) dataset.readAfterStop++;
      }).observe(arguments[0], { childList: true, characterData: true, subtree: true });`,
      await page.element("status", "Status"),
    );
    await page.press("Generate");
    await page.statusMatches(/Reading the prompt: \d+ of \d+/);
    await stop(page);
    assert.match(await page.status(), /Stopped after 0 tokens/);
    const chunks = Number(await stage.driver.executeScript("return document.documentElement.dataset.readAfterStop"));
    assert.ok(chunks <= 2, `${chunks} more chunks were read`);
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
    const started = Date.now();
    await loadSlow(page);
    await page.fill("spinbutton", "Max new tokens", 60);
    assert.ok((await page.generate()).length > 0);
    // Of a busy machine's time a page gets what there is; one that does the engine's work stands still for most of it.
    const workedMs = Date.now() - started;
    const pauseMs = Number(await stage.driver.executeScript("return document.documentElement.dataset.longestPauseMs"));
    assert.ok(pauseMs < workedMs / 4, `the page stood still for ${pauseMs} of ${workedMs} ms`);
  });
});

/**
 * Presses Stop and waits for the end.
 *
 * @param {Page} page
 */
async function stop(page) {
  await page.press("Stop");
  await page.until("the writing has stopped", () => page.canPress("Generate"));
}
