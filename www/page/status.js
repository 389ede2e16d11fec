// The region "Status" and the bar "Loading": what goes on, in words and in bytes.

import { isFailure, messageOf } from "../errors.js";
import { element, setText } from "./elements.js";
import { formatBytes } from "./format.js";

/** @import { LoadProgress } from "../protocol.js" */

/** @param {string} text */
export function say(text) {
  const status = element("status", HTMLElement);
  status.classList.remove("failed");
  delete status.dataset.code;
  setText("status", text);
}

/**
 * @param {unknown} error
 * @param {string} [advice] what to do next, where the message does not say
 */
export function sayFailure(error, advice = "") {
  const status = element("status", HTMLElement);
  status.classList.add("failed");
  status.dataset.code = isFailure(error) ? error.code : "unknown";
  const message = messageOf(error).replace(/[^.!?…]$/, "$&."); // the engine's own have no full stop
  setText("status", advice ? `${message}\n${advice}` : message);
}

/** @param {LoadProgress | null} progress null: nothing is being loaded */
export function showProgress(progress) {
  const bar = element("loading", HTMLProgressElement);
  element("loading-row", HTMLElement).hidden = progress === null;
  if (progress === null || progress.total === 0) {
    bar.removeAttribute("value");
    bar.removeAttribute("aria-valuetext");
    setText("loading-bytes", "");
    return;
  }
  const { stage, done, total } = progress;
  const verb = stage === "download" ? "Downloading" : "Preparing";
  const text = `${verb}: ${formatBytes(done)} of ${formatBytes(total)}`;
  bar.max = total;
  bar.value = done;
  bar.setAttribute("aria-valuetext", text);
  setText("loading-bytes", text);
}
