// The frame of every end-to-end test file: one browser of each engine, one host for the site.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { ENGINES } from "./engines.mjs";
import { hostSite } from "./site.mjs";

/** @import { WebDriver } from "selenium-webdriver" */
/** @import { Host } from "./site.mjs" */

/**
 * @typedef {object} Stage
 * @property {WebDriver} driver
 * @property {Host} site
 * @property {string} scratch a folder for files that the tests make
 */

/**
 * Declares the tests of `body` once for each engine. An engine that this machine lacks is one skipped test.
 *
 * @param {string} title
 * @param {(stage: Stage) => void} body the stage is set when a test runs, not while it is declared
 */
export function inEveryEngine(title, body) {
  for (const engine of ENGINES) {
    const name = `${title}, in ${engine.name}`;
    if (engine.missing) {
      test(name, { skip: engine.missing });
      continue;
    }
    describe(name, () => {
      const stage = /** @type {Stage} */ ({});
      /** @type {() => Promise<void>} */
      let quit = async () => {};
      before(async () => {
        stage.scratch = mkdtempSync(join(tmpdir(), "vitrine-"));
        stage.site = await hostSite();
        ({ driver: stage.driver, quit } = await engine.start());
      });
      after(async () => {
        await quit();
        stage.site?.close();
        rmSync(stage.scratch, { recursive: true, force: true });
      });
      body(stage);
    });
  }
}

/** @param {string} path in the checkout */
export const local = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));

/** @param {string} path in the checkout */
export const json = (path) => JSON.parse(readFileSync(local(path), "utf8"));
