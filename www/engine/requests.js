// What callers hand to engine.js, checked and brought into the form that the worker is sent.

import { EngineError } from "../errors.js";

/** @import { NamedBlob, Sampling, Source, WireSource } from "../protocol.js" */

const isNumber = (/** @type {unknown} */ value) => typeof value === "number";

/**
 * The options of a generation that reach the wasm, and the kind of value that each takes; which values make sense is for the
 * wasm to say.
 *
 * @type {Record<keyof Sampling, { kind: string, is: (value: unknown) => boolean }>}
 */
const SAMPLING = {
  maxNewTokens: { kind: "a number", is: isNumber },
  temperature: { kind: "a number", is: isNumber },
  topK: { kind: "a number", is: isNumber },
  topP: { kind: "a number", is: isNumber },
  minP: { kind: "a number", is: isNumber },
  repetitionPenalty: { kind: "a number", is: isNumber },
  stop: { kind: "an array of strings", is: (value) => Array.isArray(value) && value.every((one) => typeof one === "string") },
  seed: { kind: "a number", is: isNumber },
  specialTokens: { kind: "true or false", is: (value) => typeof value === "boolean" },
};

const KINDS = ["builtin", "files", "hub", "url"];

/** @param {string} message */
const bad = (message) => new EngineError("bad-request", message);

/** A repository's owner and name, as they stand in URLs. */
const REPOSITORY = /^[\w-][\w.-]*\/[\w-][\w.-]*$/;

/** A branch, a tag or a commit. It may hold slashes (refs/pr/1), and never "..", which a URL would resolve. */
const REVISION = /^(?!.*\.\.)[\w-][\w./+@-]*$/;

/**
 * How a value that was refused is quoted.
 *
 * @param {unknown} value
 */
function shown(value) {
  if (typeof value === "string") return JSON.stringify(value);
  return value === null ? "null" : `a value of type ${typeof value}`;
}

/**
 * @param {Source} source
 * @returns {WireSource}
 * @throws {EngineError} `bad-request`
 */
export function wireSource(source) {
  const kinds = KINDS.filter((kind) => source?.[/** @type {keyof Source} */ (kind)] !== undefined);
  if (kinds.length !== 1) {
    throw bad(`a source has exactly one of ${KINDS.join(", ")}; this one has ${kinds.join(", ") || "none"}`);
  }
  if ("builtin" in source && source.builtin !== undefined) {
    const name = source.builtin;
    if (typeof name !== "string" || !/^[a-z0-9][a-z0-9-]*$/.test(name)) {
      throw bad(`${shown(name)} is not the name of a built-in model`);
    }
    return { kind: "builtin", name };
  }
  if ("files" in source && source.files !== undefined) return { kind: "files", files: wireFiles(source.files) };
  if ("hub" in source && source.hub !== undefined) {
    const { hub: repository, revision = "main" } = source;
    if (typeof repository !== "string" || !REPOSITORY.test(repository)) {
      throw bad(`${shown(repository)} is not a repository's owner and name; one looks like openai-community/gpt2`);
    }
    if (typeof revision !== "string" || !REVISION.test(revision)) {
      throw bad(`${shown(revision)} is not a revision; one is a branch, a tag or a commit, such as main`);
    }
    return { kind: "hub", repository, revision };
  }
  const { url } = /** @type {{ url: string | URL }} */ (source);
  return { kind: "url", url: wireFolder(url) };
}

/**
 * @param {FileList | readonly (File | NamedBlob)[]} given
 * @returns {NamedBlob[]}
 */
function wireFiles(given) {
  if (typeof given !== "object" || given === null) throw bad(`files: expected a list of files, found ${shown(given)}`);
  const files = Array.from(given, (file) => {
    const named = file instanceof Blob ? { name: file.webkitRelativePath || file.name, blob: file } : file;
    if (typeof named?.name !== "string" || !(named.blob instanceof Blob)) {
      throw bad("every file is a File or { name, blob }");
    }
    return { name: named.name, blob: named.blob };
  });
  if (files.length === 0) throw bad("no files were given");
  return files;
}

/**
 * @param {string | URL} url
 * @returns {string} with a slash at its end
 */
function wireFolder(url) {
  // Anything else would be taken for the name of a folder beside the page.
  if (typeof url !== "string" && !(url instanceof URL)) throw bad(`${shown(url)} is not a URL`);
  let absolute;
  try {
    absolute = new URL(url, globalThis.location?.href);
  } catch {
    throw bad(`${shown(url)} is not a URL`);
  }
  if (!/^https?:$/.test(absolute.protocol)) throw bad(`${absolute.href} is not an http or https URL`);
  absolute.search = "";
  absolute.hash = "";
  if (!absolute.pathname.endsWith("/")) absolute.pathname += "/";
  return absolute.href;
}

/**
 * Which precisions there are is for the wasm to say.
 *
 * @param {unknown} precision
 * @returns {string}
 */
export function wirePrecision(precision) {
  if (typeof precision !== "string" || !/^[a-z0-9_]+$/.test(precision)) {
    throw bad(`${shown(precision)} is not a precision; one looks like f32`);
  }
  return precision;
}

/**
 * What a model is called, for a checkpoint does not say.
 *
 * @param {WireSource} source
 * @returns {string}
 */
export function nameOf(source) {
  switch (source.kind) {
    case "builtin":
      return source.name;
    case "hub":
      return source.repository;
    case "url":
      return new URL(source.url).pathname.split("/").at(-2) || new URL(source.url).host;
    case "files": {
      const name = source.files[0]?.name ?? "";
      return name.includes("/") ? name.slice(0, name.indexOf("/")) : "opened files";
    }
  }
}

/**
 * @param {Record<string, unknown>} options of `generate`, `signal` and `onProgress` included
 * @returns {Sampling}
 * @throws {EngineError} `bad-request` for an option that does not exist, or that holds another kind of value
 */
export function wireSampling({ signal, onProgress, ...options }) {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    if (!Object.hasOwn(SAMPLING, name)) throw bad(`unknown option ${name}; there are ${Object.keys(SAMPLING).join(", ")}`);
    const { kind, is } = SAMPLING[/** @type {keyof Sampling} */ (name)];
    if (!is(value)) throw bad(`${name}: expected ${kind}, found ${JSON.stringify(value) ?? typeof value}`);
  }
  return Object.fromEntries(given);
}

/**
 * @param {string} name
 * @param {unknown} count
 * @returns {number}
 */
export function wireCount(name, count) {
  if (!Number.isSafeInteger(count) || Number(count) < 1) throw bad(`${name}: expected a positive integer, found ${shown(count)}`);
  return Number(count);
}

/**
 * @param {unknown} text
 * @returns {string}
 */
export function wireText(text) {
  if (typeof text !== "string") throw bad(`expected a text, found ${shown(text)}`);
  return text;
}
