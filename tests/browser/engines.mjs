// The browser engines of this machine, driven through WebDriver: Chromium, Firefox, and WebKit where it is installed.

import { spawn } from "node:child_process";
import { accessSync, constants, existsSync, readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { delimiter, join } from "node:path";
import { Builder, Capabilities } from "selenium-webdriver";
import chrome from "selenium-webdriver/chrome.js";
import firefox from "selenium-webdriver/firefox.js";

/** @import { WebDriver } from "selenium-webdriver" */

/** The arguments that the crate's own tests in these browsers use. */
const SHARED = JSON.parse(readFileSync(new URL("../../crate/webdriver.json", import.meta.url), "utf8"));

const SCRIPT_TIMEOUT_MS = 120_000;

/**
 * @typedef {object} Engine
 * @property {string} name
 * @property {string | false} missing what this machine lacks to run it
 * @property {() => Promise<Session>} start
 */

/** @typedef {{ driver: WebDriver, quit: () => Promise<void> }} Session */

/**
 * @param {...string} names
 * @returns {string | null} the first of these programs that is on PATH
 */
function onPath(...names) {
  for (const name of names) {
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch {
        // Not here.
      }
    }
  }
  return null;
}

/** @param {Record<string, string | null>} programs */
function lacking(programs) {
  const missing = Object.keys(programs).filter((name) => !programs[name]);
  return missing.length > 0 && `this machine lacks ${missing.join(" and ")}`;
}

/** @param {WebDriver} driver */
async function session(driver, after = () => {}) {
  await driver.manage().setTimeouts({ script: SCRIPT_TIMEOUT_MS });
  return {
    driver,
    async quit() {
      await driver.quit();
      after();
    },
  };
}

/** @returns {Engine} */
function chromium() {
  const programs = {
    chromium: onPath("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    chromedriver: onPath("chromedriver"),
  };
  return {
    name: "Chromium",
    missing: lacking(programs),
    async start() {
      const options = new chrome.Options();
      options.setBinaryPath(/** @type {string} */ (programs.chromium));
      options.addArguments(...SHARED["goog:chromeOptions"].args, "--window-size=1280,1000");
      const service = new chrome.ServiceBuilder(/** @type {string} */ (programs.chromedriver));
      return session(
        await new Builder().forBrowser("chrome").setChromeOptions(options).setChromeService(service).build(),
      );
    },
  };
}

/** @returns {Engine} */
function gecko() {
  const programs = { firefox: onPath("firefox-esr", "firefox"), geckodriver: onPath("geckodriver") };
  return {
    name: "Firefox",
    missing: lacking(programs),
    async start() {
      const options = new firefox.Options();
      options.setBinary(/** @type {string} */ (programs.firefox));
      options.addArguments(...SHARED["moz:firefoxOptions"].args, "--width=1280", "--height=1000");
      const service = new firefox.ServiceBuilder(/** @type {string} */ (programs.geckodriver));
      return session(
        await new Builder().forBrowser("firefox").setFirefoxOptions(options).setFirefoxService(service).build(),
      );
    },
  };
}

/** WebKitGTK's MiniBrowser, which has no headless mode, on a display of its own. @returns {Engine} */
function webkit() {
  const programs = { WebKitWebDriver: onPath("WebKitWebDriver"), Xvfb: onPath("Xvfb"), MiniBrowser: miniBrowser() };
  return {
    name: "WebKit",
    missing: lacking(programs),
    async start() {
      const display = spawn("Xvfb", ["-displayfd", "1", "-screen", "0", "1280x1000x24", "-nolisten", "tcp"], {
        stdio: ["ignore", "pipe", "ignore"],
      });
      const number = await new Promise((resolve, reject) => {
        display.once("error", reject);
        display.once("exit", () => reject(new Error("Xvfb did not start")));
        display.stdout.once("data", (text) => resolve(String(text).trim()));
      });
      const port = await freePort();
      const webDriver = spawn("WebKitWebDriver", [`--port=${port}`], {
        stdio: "ignore",
        env: {
          ...process.env,
          DISPLAY: `:${number}`,
          GDK_BACKEND: "x11",
          LIBGL_ALWAYS_SOFTWARE: "1",
          WEBKIT_DISABLE_COMPOSITING_MODE: "1",
          // Its sandbox does not start inside a container; the tests open nothing but this machine's own pages.
          WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: "1",
        },
      });
      const end = () => {
        webDriver.kill();
        display.kill();
      };
      try {
        const capabilities = new Capabilities({
          browserName: "MiniBrowser",
          "webkitgtk:browserOptions": { binary: programs.MiniBrowser, args: ["--automation"] },
        });
        const server = `http://127.0.0.1:${port}`;
        await answering(`${server}/status`);
        return await session(await new Builder().usingServer(server).withCapabilities(capabilities).build(), end);
      } catch (error) {
        end();
        throw error;
      }
    },
  };
}

/** MiniBrowser lies beside the library, in a folder named after its version. */
function miniBrowser() {
  const libraries = ["/usr/lib", "/usr/libexec", "/usr/lib64"].filter(existsSync);
  const nested = libraries.flatMap((folder) =>
    readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && /-linux-gnu$/.test(entry.name))
      .map((entry) => join(folder, entry.name)),
  );
  for (const folder of [...libraries, ...nested]) {
    for (const name of readdirSync(folder).filter((name) => /^webkit(2)?gtk-/.test(name)).sort().reverse()) {
      const program = join(folder, name, "MiniBrowser");
      if (existsSync(program)) return program;
    }
  }
  return null;
}

/** A port that nobody listens to, below those that the system gives to connections of its own. */
async function freePort() {
  for (let port = 20_000 + (process.pid % 10_000); ; port++) {
    const server = createServer();
    const free = await new Promise((resolve) => server.once("error", () => resolve(false)).listen(port, "127.0.0.1", () => resolve(true)));
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

/** @param {string} url */
async function answering(url) {
  for (let attempt = 0; attempt < 100; attempt++) {
    if (await fetch(url).then((response) => response.ok, () => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`nothing answers at ${url}`);
}

/** @type {Engine[]} */
export const ENGINES = [chromium(), gecko(), webkit()];
