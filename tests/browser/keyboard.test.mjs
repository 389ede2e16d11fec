// The page without a mouse.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Key } from "selenium-webdriver";
import { slowCheckpoint } from "./checkpoints.mjs";
import { Page } from "./page.mjs";
import { inEveryEngine } from "./suite.mjs";

/** More controls than the page has. */
const MOST_TABS = 40;

inEveryEngine("with the keyboard alone", (stage) => {
  /** @param {string} keys one after another */
  const press = (keys) => stage.driver.actions().sendKeys(keys).perform();

  /** @param {string} key */
  const pressWithControl = (key) => stage.driver.actions().keyDown(Key.CONTROL).sendKeys(key).keyUp(Key.CONTROL).perform();

  const focused = () => stage.driver.switchTo().activeElement().getAccessibleName();

  /** What shows that the focus is where it is: the outline of the control, or of the label that stands for it. */
  const outline = async () =>
    /** @type {{ style: string, width: number }} */ (
      await stage.driver.executeScript(`
        const focused = document.activeElement;
        const seen = focused.closest(".opener") ?? focused;
        const { outlineStyle, outlineWidth } = getComputedStyle(seen);
        return { style: outlineStyle, width: parseFloat(outlineWidth) };
      `)
    );

  /**
   * Presses Tab until the control is there.
   *
   * @param {string} name how its name begins
   * @returns {Promise<string[]>} what the focus was on before
   */
  async function tabTo(name) {
    const passed = [];
    for (let tabs = 0; tabs < MOST_TABS; tabs++) {
      await press(Key.TAB);
      const { style, width } = await outline();
      const here = await focused();
      assert.ok(style !== "none" && width >= 2, `the focus on "${here}" is not seen: ${style}, ${width} px`);
      if (here.startsWith(name)) return passed;
      passed.push(here);
    }
    throw new Error(`Tab leads to ${passed.join(", ")}, and not to ${name}`);
  }

  /** @param {Page} page */
  const someText = (page) => page.until("some text is there", async () => (await page.output()).length > 20);

  /** @param {Page} page */
  const stopped = (page) => page.statusMatches(/Stopped after \d+ tokens/);

  async function openSlow() {
    const page = await Page.open(stage.driver, stage.site.url);
    await page.openFiles(slowCheckpoint(stage.scratch));
    await page.statusMatches(/Opened files is ready/);
    await stage.driver.executeScript("document.activeElement.blur()");
    await page.fill("spinbutton", "Max new tokens", 900);
    await stage.driver.executeScript("document.activeElement.blur(); getSelection().removeAllRanges()");
    return page;
  }

  test("every control is reached, in the order in which it is read, and its focus is seen", async () => {
    await Page.open(stage.driver, stage.site.url);
    for (const name of ["Prompt", "Generate", "Text", "Model", "Precision", "Open files", "Open folder", "Temperature", "Top-k", "Top-p", "Max new tokens", "Seed"]) {
      await tabTo(name);
    }
  });

  test("a text is written and stopped with Enter on Generate and on Stop, between which the focus goes by itself", async () => {
    const page = await openSlow();
    const prompt = await page.element("textbox", "Prompt");
    await stage.driver.executeScript("arguments[0].focus()", prompt);
    await pressWithControl("a");
    await press("The old king");
    assert.equal(await prompt.getAttribute("value"), "The old king");
    assert.deepEqual(await tabTo("Generate"), []);
    await press(Key.ENTER);
    await someText(page);
    assert.equal(await focused(), "Stop");
    await press(Key.ENTER);
    await stopped(page);
    await page.until("Generate has the focus", async () => (await focused()) === "Generate");
    const text = await page.output();
    await press(Key.SPACE);
    await page.until("a new text has begun", async () => (await page.output()).length < text.length);
    await press(Key.ESCAPE);
    await stopped(page);
  });

  test("Ctrl and Enter in the prompt write, Escape stops, and the focus stays in the prompt", async () => {
    const page = await openSlow();
    await stage.driver.executeScript("arguments[0].focus()", await page.element("textbox", "Prompt"));
    await pressWithControl(Key.ENTER);
    await someText(page);
    await press(Key.ESCAPE);
    await stopped(page);
    assert.equal(await focused(), "Prompt");
  });

  test("a measurement is begun and cancelled with Enter, and the focus goes to the button that is left", async () => {
    const page = await Page.open(stage.driver, stage.site.url);
    await tabTo("Measure this device"); // what unfolds the panel
    await press(Key.ENTER);
    assert.deepEqual(await tabTo("Measure this device"), []);
    await press(Key.ENTER);
    await page.until("Cancel measuring has the focus", async () => (await focused()) === "Cancel measuring");
    await press(Key.ENTER);
    await page.statusMatches(/measurement was cancelled/);
    assert.equal(await focused(), "Measure this device");
  });

  test("another model is picked with an arrow", async (t) => {
    if (/WebKit/.test(await stage.driver.executeScript("return navigator.userAgent.includes('Chrome') ? '' : navigator.userAgent"))) {
      t.skip("WebKitGTK opens a menu of the desktop's, which WebDriver does not reach");
      return;
    }
    const page = await Page.open(stage.driver, stage.site.url);
    await tabTo("Model");
    await press(Key.ARROW_DOWN);
    await page.statusMatches(/Storyteller OPT is ready/);
    assert.equal(await focused(), "Model");
  });
});
