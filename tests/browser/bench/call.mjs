// Calls from Node into the page of a benchmark.

/** @import { WebDriver } from "selenium-webdriver" */

/** A model may take a minute to load, and a slow engine minutes to write. */
const PATIENCE_MS = 600_000;

/**
 * Awaits `globalThis[object][method](...arguments)` in the page.
 *
 * @param {WebDriver} driver
 * @param {string} object
 * @param {string} method
 * @param {...unknown} argumentList
 * @returns {Promise<any>}
 */
export async function call(driver, object, method, ...argumentList) {
  await driver.manage().setTimeouts({ script: PATIENCE_MS });
  const answer = await driver.executeAsyncScript(
    `const [object, method, argumentList, done] = arguments;
     Promise.resolve().then(() => globalThis[object][method](...argumentList))
       .then((value) => done({ value }), (error) => done({ failed: String(error?.stack ?? error?.message ?? error) }));`,
    object,
    method,
    argumentList,
  );
  const { failed, value } = /** @type {{ failed?: string, value?: unknown }} */ (answer);
  if (failed !== undefined) throw new Error(`${object}.${method}(${argumentList.map((x) => JSON.stringify(x)).join(", ").slice(0, 80)}): ${failed}`);
  return value;
}
