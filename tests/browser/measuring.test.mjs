// The panel "Measure this device": what it shows is what the engine measured, and the page writes before and after.

import assert from "node:assert/strict";
import { test } from "node:test";
import { By, Key } from "selenium-webdriver";
import { slowCheckpoint } from "./checkpoints.mjs";
import { Page } from "./page.mjs";
import { inEveryEngine, json } from "./suite.mjs";

/** A measurement takes seconds, and on a busy machine many. */
const PATIENCE_MS = 180_000;

const MEASURE = "Measure this device";

inEveryEngine("this device is measured", (stage) => {
  /** @type {Page} */
  let page;

  const region = () => page.element("region", MEASURE);

  /** What the panel says, what it shows of its chart included. */
  const said = async () => (await region()).getText();

  /** @param {RegExp} pattern */
  const says = (pattern) => page.until(`the panel says ${pattern}`, async () => pattern.test(await said()), PATIENCE_MS);

  /** WebDriver of WebKitGTK takes what is folded for displayed. */
  const isOpen = async () => /** @type {boolean} */ (await stage.driver.executeScript("return arguments[0].querySelector('details').open", await region()));

  async function open() {
    page = await Page.open(stage.driver, stage.site.url);
    await unfold();
  }

  async function unfold() {
    await (await region()).findElement(By.css("summary")).click();
    await page.until("the panel is open", isOpen);
  }

  /** WebKitGTK may fail to tell the role of what has just been unfolded. @param {string} name */
  async function press(name) {
    await page.until(`there is a button ${name}`, () => page.element("button", name));
    await page.press(name);
  }

  /** The built-in model writes what it should. */
  async function writes() {
    const expected = json("www/models/storyteller/expected.json");
    await page.fill("textbox", "Prompt", expected.prompt);
    await page.setGreedy(8);
    const text = await page.generate();
    assert.ok(text.length > 0, await page.status());
    assert.equal(await stage.driver.executeScript("return vitrine.engine.model.name"), "storyteller");
  }

  /** The rows of both tables, as text. @returns {Promise<string[][][]>} */
  async function charts() {
    return stage.driver.executeScript(
      `return [...arguments[0].querySelectorAll("table")].map((table) =>
         [...table.tBodies[0].rows].map((row) => [row.querySelector("th[scope=row]").innerText, ...[...row.cells].slice(1).map((cell) => cell.innerText)]))`,
      await region(),
    );
  }

  /** What the clipboard holds, as a text box tells. */
  async function pasted() {
    const box = await page.element("textbox", "Prompt");
    await stage.driver.executeScript("arguments[0].value = ''; arguments[0].focus()", box);
    await stage.driver.actions().keyDown(Key.CONTROL).sendKeys("v").keyUp(Key.CONTROL).perform();
    return page.until("something was pasted", async () => (await box.getAttribute("value")) ?? "");
  }

  test("the panel is closed at first; it shows every kernel beside its limit, and the same figures as JSON; then the page writes", async () => {
    page = await Page.open(stage.driver, stage.site.url);
    assert.equal(await isOpen(), false);
    await unfold();
    assert.match(await said(), /seconds.*300 MB.*Nothing leaves this tab/s);
    await press(MEASURE);
    assert.equal(await page.canPress("Generate"), false);
    assert.match(await page.status(), /Measuring this device/);
    await says(/This device is measured/);
    assert.equal(await page.status(), "This device is measured.");
    assert.equal(await page.canPress("Generate"), true);
    assert.equal(await page.canPress(MEASURE), true);

    const [decode = [], prefill = []] = await charts();
    for (const bars of [decode, prefill]) {
      const precisions = bars.map(([head = ""]) => head.split(/\s/)[0]);
      assert.deepEqual([...new Set(precisions)], ["f32", "q8", "q4"]);
      for (const [head, figure, share] of bars) {
        assert.ok(Number(figure) > 0, `${head}: ${figure}`);
        assert.match(share ?? "", /^[1-9]\d* %$/, head);
      }
    }
    assert.ok(prefill.every(([head = ""]) => /of the \d+\.\d of [a-z0-9]+x\d+\./.test(head)), "every instruction is named");
    const bound = /at most ([\d.]+) tokens\/s in q8, ([\d.]+) tokens\/s in q4/.exec(await said());
    assert.ok(bound && Number(bound[2]) > Number(bound[1]) && Number(bound[1]) > 0, await said());

    await press("Copy as JSON");
    await page.statusMatches(/was copied as JSON/);
    const text = await pasted();
    const { date, userAgent, hardwareConcurrency, build, rows, rounds, lines } = JSON.parse(text);
    assert.ok(Math.abs(Date.now() - Date.parse(date)) < 600_000, date);
    const here = await stage.driver.executeScript("return [navigator.userAgent, navigator.hardwareConcurrency, vitrine.engine.build.name, vitrine.engine.build.id]");
    assert.deepEqual([userAgent, hardwareConcurrency, build.name, build.id], here);
    assert.deepEqual([rows, rounds], [49_152, 5]);
    const figures = (/** @type {string} */ product) =>
      lines.filter((/** @type {any} */ { operation }) => operation.includes(` ${product} `)).map((/** @type {any} */ { best }) => best);
    for (const [bars, product] of /** @type {[string[][], string][]} */ ([[decode, "matvec"], [prefill, "matmul"]])) {
      const shown = bars.map(([, figure]) => Number(figure));
      assert.equal(shown.length, figures(product).length);
      // One is rounded to a tenth, the other to four digits.
      figures(product).forEach((/** @type {number} */ best, /** @type {number} */ i) => assert.ok(Math.abs(best - (shown[i] ?? 0)) < 0.06, `${best}, shown as ${shown[i]}`));
    }

    await stage.driver.executeScript("Object.defineProperty(navigator, 'clipboard', { value: undefined })");
    await press("Copy as JSON");
    await page.statusMatches(/refused its clipboard/);
    const field = await page.until("the text box is there", () => page.element("textbox", "Measurement as JSON"));
    assert.equal(await field.isDisplayed(), true);
    assert.equal(await field.getAttribute("value"), text);
    assert.equal(await stage.driver.executeScript("return arguments[0].selectionEnd - arguments[0].selectionStart", field), text.length);

    await writes();
    assert.deepEqual(stage.site.missing, [], "the page asked for files that the site does not have");
  });

  test("a measurement is cancelled, by its button or by a load, and the page writes", async () => {
    await open();
    await press(MEASURE);
    await press("Cancel measuring");
    await says(/was cancelled/);
    assert.deepEqual(await charts(), [[], []]);
    await writes();

    await press(MEASURE);
    assert.equal(await page.canPress("Generate"), false);
    await page.choose("q4", "Precision");
    await page.statusMatches(/Storyteller GPT-2 is ready/);
    await says(/was cancelled/);
    assert.equal(await stage.driver.executeScript("return vitrine.engine.model.precision"), "q4");
    await writes();
  });

  test("nothing is measured while a text is written, and the text goes on", async () => {
    await open();
    await page.openFiles(slowCheckpoint(stage.scratch));
    await page.statusMatches(/Opened files is ready/);
    await page.fill("spinbutton", "Max new tokens", 900);
    await press("Generate");
    await page.until("some text is there", async () => (await page.output()).length > 20);
    await press(MEASURE);
    await says(/A text is being written/);
    assert.equal(await page.canPress("Stop"), true);
    const { length } = await page.output();
    await page.until("the text has grown", async () => (await page.output()).length > length);
    await press("Stop");
    await page.statusMatches(/Stopped after \d+ tokens/);
    assert.doesNotMatch(await said(), /A text is being written/);
  });

  test("what fails is said, and the page writes", async () => {
    await open();
    const failure = await stage.driver.executeAsyncScript(
      "const done = arguments[0]; vitrine.engine.measure({ rows: 2e6 }).catch(({ code, message }) => done({ code, message }))",
    );
    assert.equal(/** @type {any} */ (failure).code, "out-of-memory", JSON.stringify(failure));

    // A worker whose script is not there.
    await stage.driver.executeScript(`
      const Real = window.Worker;
      window.Worker = function (url, options) {
        window.Worker = Real;
        return new Real(new URL("none.js", url), options);
      };
    `);
    await press(MEASURE);
    assert.equal(await page.refusal(), "start-failed");
    await says(/could not be started.*Nothing was measured/s);
    assert.equal(await page.canPress(MEASURE), true);
    await writes();
  });
});
