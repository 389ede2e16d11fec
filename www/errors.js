// The one error class of the JavaScript side. Failures of the wasm arrive with the same shape.

/** @import { ErrorCode, Failure } from "./protocol.js" */

/** A failure with a stable `code` to switch on and a `message` for people. */
export class EngineError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} message what happened and, where it is not obvious, what to do next
   * @param {unknown} [cause]
   */
  constructor(code, message, cause) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "EngineError";
    /** @readonly */
    this.code = code;
  }
}

/**
 * Whether `error` is a failure that somebody meant, rather than a trap or a defect. (A DOMException's `code` is a number.)
 *
 * @param {unknown} error
 * @returns {error is Error & Failure}
 */
export function isFailure(error) {
  return error instanceof Error && "code" in error && typeof error.code === "string";
}

/**
 * The text of anything that was thrown.
 *
 * @param {unknown} error
 */
export function messageOf(error) {
  return error instanceof Error ? error.message || error.name : String(error);
}
