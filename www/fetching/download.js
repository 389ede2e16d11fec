// One file over HTTP, with progress, and every way in which that fails made clear.

import { EngineError, messageOf } from "../errors.js";

/** @import { ErrorCode } from "../protocol.js" */
/** @import { Downloads } from "./storage.js" */

/**
 * @typedef {object} Wanted
 * @property {string} url
 * @property {string} file its name, for messages
 * @property {number | null} size in bytes as somebody announced it; null if nobody did
 */

/**
 * @param {Wanted} wanted
 * @param {Downloads} downloads
 * @param {(progress: { done: number, size: number | null }) => void} onProgress of this file, in bytes
 * @returns {Promise<Blob>}
 * @throws {EngineError}
 */
export async function download(wanted, downloads, onProgress) {
  const response = await ask(wanted.url, wanted.file);
  const size = wanted.size ?? contentLength(response);
  onProgress({ done: 0, size });
  const sink = await downloads.sink(wanted.file, size);
  try {
    const received = await drain(response, wanted.file, size, (bytes, done) => {
      sink.write(bytes);
      onProgress({ done, size });
    });
    // A server's Content-Length may count compressed bytes, so only too few of them are a fault; a listing's size is exact.
    if (size !== null && (received < size || (wanted.size !== null && received > size))) {
      throw new EngineError("short-download", `${wanted.file}: ${received} bytes came, but ${size} were announced; try again`);
    }
    return await sink.finish();
  } catch (error) {
    await sink.discard();
    throw error;
  }
}

/**
 * Like `fetch`, but every answer that is not a success is an error.
 *
 * @param {string} url
 * @param {string} file its name, for messages
 * @returns {Promise<Response>}
 * @throws {EngineError}
 */
export async function ask(url, file) {
  let response;
  try {
    response = await fetch(url, { credentials: "omit", referrerPolicy: "no-referrer" });
  } catch (error) {
    throw new EngineError(
      "network-error",
      `${file}: no answer from ${new URL(url).host} (${messageOf(error)}); check the connection and the address`,
      error,
    );
  }
  if (response.ok) return response;
  await response.body?.cancel().catch(() => {});
  throw refusal(response, file);
}

/**
 * @param {Response} response
 * @param {string} file
 */
function refusal({ status, headers, url }, file) {
  const { host } = new URL(url);
  const detail = headers.get("X-Error-Message");
  const said = detail ? `; ${host} says: ${detail}` : "";
  const fail = (/** @type {ErrorCode} */ code, /** @type {string} */ text) =>
    new EngineError(code, `${file}: ${text} (${status} from ${host}${said})`);
  const retryAfter = headers.get("Retry-After");
  switch (status) {
    case 401:
      return fail("unauthorized", "it does not exist, or is private");
    case 403:
      return headers.get("X-Error-Code") === "GatedRepo"
        ? fail("forbidden", "its owner asks visitors to accept conditions first; do that there, then download and open the files")
        : fail("forbidden", "access is not allowed");
    case 404:
      return fail("not-found", "it does not exist; check the name");
    case 429:
      return fail("rate-limited", `too many requests; try again ${retryAfter ? `in ${retryAfter} s` : "later"}`);
    default:
      return fail("http-error", status >= 500 ? "the server failed; try again later" : "the server refused");
  }
}

/**
 * Reads a body to its end.
 *
 * @param {Response} response
 * @param {string} file
 * @param {number | null} size
 * @param {(bytes: Uint8Array<ArrayBuffer>, done: number) => void} onBytes
 * @returns {Promise<number>} bytes received
 */
async function drain(response, file, size, onBytes) {
  const reader = response.body?.getReader();
  let done = 0;
  while (reader) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch (error) {
      const of = size === null ? "" : ` of ${size}`;
      throw new EngineError(
        "network-error",
        `${file}: the connection was lost after ${done}${of} bytes (${messageOf(error)}); try again`,
        error,
      );
    }
    if (chunk.done) break;
    done += chunk.value.length;
    try {
      onBytes(chunk.value, done);
    } catch (error) {
      await reader.cancel().catch(() => {});
      throw error;
    }
  }
  return done;
}

/** @param {Response} response */
function contentLength({ headers }) {
  const length = Number(headers.get("Content-Length") ?? NaN);
  return headers.get("Content-Encoding") === null && Number.isSafeInteger(length) ? length : null;
}
