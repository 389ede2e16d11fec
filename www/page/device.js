// The panel "Measure this device": a button, what goes on, the chart, and a document to copy.

import { isFailure } from "../errors.js";
import { element, setText } from "./elements.js";
import { formatShare, formatSpeed } from "./format.js";
import { documentOf, mostTokensPerSecond, sharesOf } from "./shares.js";
import { say, sayFailure } from "./status.js";

/** @import { Measurement } from "../protocol.js" */
/** @import { Bar } from "./shares.js" */

/**
 * @typedef {object} Host what the panel asks of the page
 * @property {(signal: AbortSignal) => Promise<Measurement>} measure
 * @property {() => string} hindrance why nothing can be measured now; empty if it can
 * @property {() => void} onChange a measurement has begun or ended
 */

export class Device {
  #button = element("measure", HTMLButtonElement);
  #cancelButton = element("cancel-measuring", HTMLButtonElement);
  #host;
  /** @type {AbortController | null} */
  #under = null;
  /** Settles when the panel is done with the last measurement. @type {Promise<void>} */
  #measured = Promise.resolve();
  /** Whether the panel says what is in the way. */
  #hindered = false;
  /** What was measured last, to be copied. */
  #document = "";

  /** @param {Host} host */
  constructor(host) {
    this.#host = host;
    this.#button.disabled = false;
    this.#button.addEventListener("click", () => {
      if (!this.#under) this.#measured = this.#measure();
    });
    this.#cancelButton.addEventListener("click", () => this.#under?.abort());
    element("copy-measurement", HTMLButtonElement).addEventListener("click", () => void this.#copy());
  }

  get measuring() {
    return this.#under !== null;
  }

  /** Ends a measurement that goes on. */
  async cancel() {
    this.#under?.abort();
    await this.#measured;
  }

  /** What was in the way may be gone. */
  refresh() {
    if (!this.#hindered || this.#host.hindrance()) return;
    this.#hindered = false;
    setText("device-note", "");
  }

  async #measure() {
    const hindrance = this.#host.hindrance();
    if (hindrance) {
      this.#hindered = true;
      tell("device-note", hindrance);
      return;
    }
    this.#under = new AbortController();
    const clock = this.#showProgress();
    tell("device-note", "Measuring this device. Generate comes back when that is done.");
    this.#host.onChange();
    try {
      const measurement = await this.#host.measure(this.#under.signal);
      this.#document = documentOf(measurement, navigator, new Date());
      showShares(measurement);
      setText("copy-note", "");
      element("measurement-field", HTMLElement).hidden = true;
      tell("device-note", "This device is measured.");
    } catch (error) {
      if (isFailure(error) && error.code === "cancelled") tell("device-note", "The measurement was cancelled.");
      else tellFailure("device-note", error);
    }
    clearInterval(clock);
    this.#under = null;
    this.#hideProgress();
    this.#host.onChange();
  }

  #showProgress() {
    const startedAt = performance.now();
    const tick = () => setText("measuring-time", `${Math.floor((performance.now() - startedAt) / 1000)} s`);
    tick();
    element("measuring-row", HTMLElement).hidden = false;
    // A button that is disabled under the keyboard hands its focus to the other one.
    if (document.activeElement === this.#button) this.#cancelButton.focus();
    this.#button.disabled = true;
    return setInterval(tick, 1000);
  }

  #hideProgress() {
    this.#button.disabled = false;
    if (document.activeElement === this.#cancelButton) this.#button.focus();
    element("measuring-row", HTMLElement).hidden = true;
  }

  async #copy() {
    const field = element("measurement", HTMLTextAreaElement);
    field.value = this.#document;
    const row = element("measurement-field", HTMLElement);
    try {
      await navigator.clipboard.writeText(this.#document);
      row.hidden = true;
      tell("copy-note", "The measurement was copied as JSON.");
    } catch {
      // No permission, or a page that is not served securely, which has no clipboard at all.
      row.hidden = false;
      field.focus();
      field.select();
      tell("copy-note", "The browser refused its clipboard; here is the JSON, selected, to copy by hand.");
    }
  }
}

/**
 * Says something where the visitor looks, and in the region that screen readers listen to.
 *
 * @param {"device-note" | "copy-note"} id
 * @param {string} text
 */
function tell(id, text) {
  say(text);
  element(id, HTMLElement).classList.remove("failed");
  setText(id, text);
}

/**
 * @param {"device-note"} id
 * @param {unknown} error
 */
function tellFailure(id, error) {
  sayFailure(error, "Nothing was measured; what is loaded stays.");
  element(id, HTMLElement).classList.add("failed");
  setText(id, element("status", HTMLElement).textContent ?? "");
}

/** @param {Measurement} measurement */
function showShares({ lines, rounds }) {
  const { bandwidth, decode, prefill } = sharesOf(lines);
  const [q8, q4] = ["q8", "q4"].map((precision) => formatSpeed(mostTokensPerSecond(bandwidth, precision)));
  const reads = bandwidth.toFixed(1);
  setText("device-bound", `One thread reads ${reads} GB/s of memory here. GPT-2 124M reads every weight once for a token, so it writes at most ${q8} in q8, ${q4} in q4.`);
  setText("measured-rounds", String(rounds));
  setText("decode-about", `Billions of bytes of weights a second, of the ${reads} GB/s that one thread reads.`);
  element("decode-shares", HTMLElement).replaceChildren(...decode.map((bar) => row(bar, "")));
  element("prefill-shares", HTMLElement).replaceChildren(
    ...prefill.map((bar) => row(bar, bar.limit ? `of the ${bar.limit.figure.toFixed(1)} of ${bar.limit.name}` : "")),
  );
  element("device-shares", HTMLElement).hidden = false;
}

/**
 * @param {Bar} bar
 * @param {string} limit in words
 */
function row({ precision, kernel, figure, share }, limit) {
  const made = document.createElement("tr");
  const head = part("th", "", part("span", "precision", precision), ` ${kernel}`);
  head.scope = "row";
  const bar = part("span", "bar", part("span", ""));
  bar.style.setProperty("--share", String(Math.min(1, share ?? 0)));
  head.append(bar, part("span", "limit", limit));
  made.append(head, part("td", "", figure.toFixed(1)), part("td", "", formatShare(share ?? NaN)));
  return made;
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} className
 * @param {...(Node | string)} content
 */
function part(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}
