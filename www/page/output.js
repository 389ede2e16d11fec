// The sheet of paper: the prompt, and after it the log whose text is exactly the continuation.

import { element } from "./elements.js";

/** Nearer to the end than this, the reader follows the text. */
const FOLLOW_PX = 48;

/** Text arrives as often as it likes; it is painted once a frame. */
export class Output {
  #paper = element("paper", HTMLElement);
  #echo = element("echo", HTMLElement);
  #log = element("output", HTMLElement);
  #text = new Text();
  #pending = "";
  #frame = 0;

  /** @param {string} prompt */
  begin(prompt) {
    this.#flush();
    this.#echo.textContent = prompt;
    this.#text = new Text();
    this.#log.replaceChildren(this.#text);
    this.#log.setAttribute("aria-busy", "true"); // screen readers wait for the whole
    this.#paper.scrollTop = this.#paper.scrollHeight;
  }

  /** @param {string} text */
  append(text) {
    this.#pending += text;
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  /** @param {string} [text] the whole continuation, where it is known */
  end(text) {
    this.#flush();
    if (text !== undefined && text !== this.#text.data) this.#text.data = text;
    this.#log.removeAttribute("aria-busy");
  }

  #flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.#pending === "") return;
    const { scrollHeight, scrollTop, clientHeight } = this.#paper;
    const follows = scrollHeight - scrollTop - clientHeight < FOLLOW_PX;
    this.#text.appendData(this.#pending);
    this.#pending = "";
    if (follows) this.#paper.scrollTop = this.#paper.scrollHeight;
  }
}
