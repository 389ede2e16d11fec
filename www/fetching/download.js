// One file over HTTP, with progress, and every way in which that fails made clear.

import { EngineError, messageOf } from "../errors.js";

/** @import { ErrorCode } from "../protocol.js" */
/** @import { Downloads } from "./storage.js" */

/** Configs, tokenizers and indices: the wasm reads no larger ones. */
const MOST_TEXT_BYTES = 64 * 1024 ** 2;

/** Weights: four times the memory that a wasm instance can have. */
const MOST_BYTES = 16 * 1024 ** 3;

/**
 * @typedef {object} Wanted
 * @property {string} url
 * @property {string} file its name, for messages
 * @property {number | null} size in bytes as a listing gave it, which is exact; null without a listing
 */

/**
 * @param {Wanted} wanted
 * @param {Downloads} downloads
 * @param {(progress: { done: number, size: number | null }) => void} onProgress of this file, in bytes
 * @returns {Promise<Blob>}
 * @throws {EngineError}
 */
export async function download(wanted, downloads, onProgress) {
  const { file, size: listed } = wanted;
  const most = /\.(json|txt)$/.test(file) ? MOST_TEXT_BYTES : MOST_BYTES;
  if (listed !== null && listed > most) throw tooLarge(file, most);
  const response = await ask(wanted.url, file);
  const size = listed ?? contentLength(response);
  onProgress({ done: 0, size });
  const sink = await downloads.sink(file, size);
  try {
    const received = await drain(response, file, size, (bytes, done) => {
      // Said at once, for the body of a broken server, or of a wicked one, may have no end.
      if (listed !== null && done > listed) throw wrongSize(file, `more than ${listed}`, listed);
      if (done > most) throw tooLarge(file, most);
      sink.write(bytes);
      onProgress({ done, size });
    });
    const counts = listed !== null || countsDecoded(response);
    if (size !== null && received < size && counts) throw wrongSize(file, String(received), size);
    return await sink.finish();
  } catch (error) {
    await sink.discard();
    throw error;
  }
}

/**
 * Whether a Content-Length counts the bytes of the file itself. Where there is a Content-Encoding it counts compressed ones,
 * and an answer from another origin does not show whether there is one.
 *
 * @param {Response} response
 */
const countsDecoded = ({ type }) => type === "basic";

/**
 * @param {string} file
 * @param {string} came
 * @param {number} announced
 */
const wrongSize = (file, came, announced) =>
  new EngineError("short-download", `${file}: ${came} bytes came, but ${announced} were announced; try again`);

/**
 * @param {string} file
 * @param {number} most
 */
const tooLarge = (file, most) =>
  new EngineError("bad-file", `${file}: it has more than ${Math.round(most / 1e6)} MB, which no such file of a model has`);

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
