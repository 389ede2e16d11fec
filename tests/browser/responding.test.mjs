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

  /**
   * Has the page note, when Stop is pressed, what it says then, and later what it says of reading last: what a driver sees comes late.
   *
   * @param {Page} page
   */
  async function noteStop(page) {
    await stage.driver.executeScript(
      `const [status, output] = arguments, { dataset } = document.documentElement;
      const say = () => status.textContent;
      addEventListener("click", ({ target }) => {
        if (target.closest("button")?.textContent.trim() !== "Stop") return;
        [dataset.status, dataset.last, dataset.output] = [say(), say(), output.textContent.length];
        new MutationObserver(() => {
          if (/Reading/.test(say())) dataset.last = say();
        }).observe(status, { childList: true, characterData: true, subtree: true });
      }, { capture: true, once: true });`,
      await page.element("status", "Status"),
      await page.element("log", "Output"),
    );
  }

  /** @param {"status" | "last" | "output"} what */
  async function noted(what) {
    const said = await stage.driver.executeScript("return document.documentElement.dataset[arguments[0]] ?? null", what);
    return /** @type {string} */ (said ?? assert.fail("Stop was not pressed"));
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
    await noteStop(page);
    await stop(page);
    const tokens = Number(/Stopped after (\d+) tokens/.exec(await page.status())?.[1]);
    const length = (await page.output()).length;
    const after = (tokens * (length - Number(await noted("output")))) / length;
    assert.ok(after < 200, `about ${after} of ${tokens} tokens were written after Stop`);
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
    await noteStop(page);
    await stop(page);
    assert.match(await page.status(), /Stopped after 0 tokens/);
    const { done: before } = readingOf(await noted("status"));
    const { done: after, total } = readingOf(await noted("last"));
    assert.ok(after - before <= total / 2, `${before} of ${total} tokens at Stop, then ${after}`);
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
    // A busy machine gives a page what time there is; one that did the engine's work would stand still while a model loads.
    const workedMs = Date.now() - started;
    const pauseMs = Number(await stage.driver.executeScript("return document.documentElement.dataset.longestPauseMs"));
    assert.ok(pauseMs > 0 && pauseMs < workedMs / 4, `the page stood still for ${pauseMs} of ${workedMs} ms`);
  });
});

/** @param {string} status */
function readingOf(status) {
  const [, done, total] = /Reading the prompt: (\d+) of (\d+)/.exec(status) ?? [];
  assert.ok(total, `the status said ${status}`);
  return { done: Number(done), total: Number(total) };
}

/**
 * Presses Stop and waits for the end.
 *
 * @param {Page} page
 */
async function stop(page) {
  await page.press("Stop");
  await page.until("the writing has stopped", () => page.canPress("Generate"));
}
