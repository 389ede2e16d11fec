// The page as a person meets it: everything is found by its role and its accessible name.

import { By } from "selenium-webdriver";

/** @import { WebDriver, WebElement } from "selenium-webdriver" */

/** Where elements of a role may be found; the browser then says which of them have the role and the name. */
const CANDIDATES = {
  button: "button",
  combobox: "select",
  file: "input[type=file]",
  group: "fieldset, [role=group]",
  log: "[role=log]",
  progressbar: "progress, [role=progressbar]",
  region: "section",
  spinbutton: "input[type=number]",
  status: "output, [role=status]",
  textbox: "textarea, input:not([type]), input[type=text]",
};

/** @typedef {keyof typeof CANDIDATES} Role */

/** The elements of a selector, those first whose own words or labels hold a name: Chromium takes 25 ms to say what one is called. */
const LIKELIEST_FIRST = `
  const [selector, name] = arguments;
  const holds = (one) => {
    const labels = [...(one.labels ?? []), ...(one.ariaLabelledByElements ?? [])];
    return [one.ariaLabel, one.textContent, ...labels.map((label) => label.textContent)].some((words) => words?.includes(name));
  };
  return [...document.querySelectorAll(selector)].sort((one, other) => holds(other) - holds(one));
`;

/** What WebKitGTK calls the roles of some native controls. @type {Partial<Record<Role, string>>} */
const ALIASES = { combobox: "button", progressbar: "group", spinbutton: "textbox" };

/** How long a model of the tests may take to load or to write. */
const PATIENCE_MS = 60_000;

export class Page {
  driver;
  /** @type {Map<string, WebElement>} */
  #found = new Map();

  /** @param {WebDriver} driver */
  constructor(driver) {
    this.driver = driver;
  }

  /**
   * Opens the page and waits until the model that it starts with is there.
   *
   * @param {WebDriver} driver
   * @param {string} url
   */
  static async open(driver, url) {
    await driver.get(url);
    const page = new Page(driver);
    await page.loaded();
    return page;
  }

  /**
   * The one element with this role and name.
   *
   * @param {Role} role
   * @param {string} name
   */
  async element(role, name) {
    const key = `${role} ${name}`;
    const known = this.#found.get(key);
    if (known) return known;
    /** @type {unknown[]} */
    const failures = [];
    const candidates = /** @type {WebElement[]} */ (await this.driver.executeScript(LIKELIEST_FIRST, CANDIDATES[role], name));
    for (const candidate of candidates) {
      let itsRole, itsName;
      try {
        [itsRole, itsName] = [await candidate.getAriaRole(), await candidate.getAccessibleName()];
      } catch (error) {
        // After some loads of the page, WebKit's driver cannot tell the role of a hidden button. The one that is sought may come later.
        failures.push(error);
        continue;
      }
      // A file input's role differs between browsers, and WebKit adds the words on its button to the name.
      const fits = [role, ALIASES[role]].includes(itsRole) && itsName === name;
      if (role === "file" ? itsName.startsWith(name) : fits) {
        this.#found.set(key, candidate);
        return candidate;
      }
    }
    throw new Error(`the page has no ${role} "${name}"${failures.map((failure) => `; one could not be asked: ${failure}`).join("")}`);
  }

  /** So that the failure that `refusal` finds is one of what comes next. */
  async #forgetFailure() {
    await this.driver.executeScript("delete arguments[0].dataset.code", await this.element("status", "Status"));
  }

  /** @param {string} name */
  async press(name) {
    await this.#forgetFailure();
    await (await this.element("button", name)).click();
  }

  /**
   * Replaces what a text box or a number box holds.
   *
   * @param {"textbox" | "spinbutton"} role
   * @param {string} name
   * @param {string | number} value
   */
  async fill(role, name, value) {
    const box = await this.element(role, name);
    await box.clear();
    if (value !== "") await box.sendKeys(String(value));
  }

  /**
   * Greedy writing of so many tokens.
   *
   * @param {number} maxNewTokens
   */
  async setGreedy(maxNewTokens) {
    await this.fill("spinbutton", "Temperature", 0);
    await this.fill("spinbutton", "Max new tokens", maxNewTokens);
  }

  /**
   * Gives files to "Open files".
   *
   * @param {string[]} paths
   */
  async openFiles(paths) {
    await this.#forgetFailure();
    await (await this.element("file", "Open files")).sendKeys(paths.join("\n"));
  }

  /** The continuation so far, to the character. */
  async output() {
    return /** @type {string} */ (
      await this.driver.executeScript("return arguments[0].textContent", await this.element("log", "Output"))
    );
  }

  async status() {
    return (await this.element("status", "Status")).getText();
  }

  /** @param {string} name of a button */
  async canPress(name) {
    return (await this.element("button", name)).isEnabled();
  }

  /**
   * Waits until the page says that something failed.
   *
   * @returns {Promise<string>} the code of the failure
   */
  async refusal() {
    const status = await this.element("status", "Status");
    return this.until("something was refused", async () => (await status.getAttribute("data-code")) ?? "");
  }

  /**
   * Chooses from a combobox.
   *
   * @param {string} name how the entry begins, up to a comma
   * @param {"Model" | "Precision"} [from]
   */
  async choose(name, from = "Model") {
    await this.#forgetFailure();
    const box = await this.element("combobox", from);
    for (const option of await box.findElements(By.css("option"))) {
      if ((await option.getText()).startsWith(`${name},`)) return option.click();
    }
    throw new Error(`${from} has no "${name}"`);
  }

  /** Waits until a model is there. */
  async loaded() {
    await this.until("a model is loaded", () => this.canPress("Generate"));
  }

  /** Presses Generate and waits for the end. */
  async generate() {
    await this.press("Generate");
    await this.until("the writing has ended", async () => (await this.canPress("Generate")) && !(await this.canPress("Stop")));
    return this.output();
  }

  /**
   * Waits until the status says something.
   *
   * @param {RegExp} pattern
   */
  async statusMatches(pattern) {
    await this.until(`the status matches ${pattern}`, async () => pattern.test(await this.status()));
  }

  /**
   * @template T
   * @param {string} what
   * @param {() => Promise<T>} probe
   * @param {number} [patienceMs]
   * @returns {Promise<T>} the first truthy answer
   */
  async until(what, probe, patienceMs = PATIENCE_MS) {
    const end = Date.now() + patienceMs;
    let problem = "";
    for (;;) {
      try {
        const answer = await probe();
        if (answer) return answer;
      } catch (error) {
        problem = String(error);
      }
      if (Date.now() > end) {
        const status = await this.status().catch((error) => String(error));
        throw new Error(`waited ${patienceMs} ms until ${what}. ${problem} The status says: ${status}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
