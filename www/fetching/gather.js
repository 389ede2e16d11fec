// From a source to the files of a checkpoint: chosen, fetched where they are remote, and named as the wasm expects.

import { EngineError, messageOf } from "../errors.js";
import { basename, chooseFiles, shardsOf, WEIGHTS } from "./choose.js";
import { download } from "./download.js";
import { fileUrl, listRepository } from "./hub.js";

/** @import { ErrorCode, NamedBlob, WireSource } from "../protocol.js" */
/** @import { Wanted } from "./download.js" */
/** @import { Downloads } from "./storage.js" */

/** News of a download is given at most this often. */
const PROGRESS_INTERVAL_MS = 50;

/** What a plain web server may say of a file that it does not have. @type {readonly ErrorCode[]} */
const ABSENT = ["not-found", "forbidden"];

/**
 * @typedef {object} Gathering
 * @property {string} hub base URL of the hub, without a trailing slash
 * @property {string} site base URL of the site, with one
 * @property {Downloads} downloads
 * @property {(progress: { file: string, done: number, total: number }) => void} onProgress over all files, in bytes
 * @property {(config: NamedBlob) => void | Promise<void>} onConfig given a remote config.json before the weights are fetched; may throw
 */

/**
 * @param {WireSource} source
 * @param {Gathering} gathering
 * @returns {Promise<NamedBlob[]>}
 * @throws {EngineError}
 */
export async function gather(source, gathering) {
  const fetching = new Fetching(gathering);
  switch (source.kind) {
    case "files":
      return chooseLocal(source.files);
    case "builtin":
      return gatherBuiltin(`${gathering.site}models/${source.name}/`, fetching);
    case "hub":
      return gatherRepository(gathering.hub, source.repository, source.revision, fetching);
    case "url":
      return gatherFolder(source.url, fetching);
  }
}

/** Downloads one after another, and the sum of their progress. */
class Fetching {
  #downloads;
  #onProgress;
  #onConfig;
  #lastNews = -Infinity;
  /** @type {Map<string, { done: number, size: number }>} */
  #files = new Map();

  /** @param {Gathering} gathering */
  constructor({ downloads, onProgress, onConfig }) {
    this.#downloads = downloads;
    this.#onProgress = onProgress;
    this.#onConfig = onConfig;
  }

  /** @param {Wanted[]} files whose sizes count from now on */
  announce(files) {
    for (const { file, size } of files) this.#files.set(file, { done: 0, size: size ?? 0 });
  }

  /**
   * @param {Wanted} wanted
   * @returns {Promise<NamedBlob>}
   */
  async one(wanted) {
    const { file } = wanted;
    const blob = await download(wanted, this.#downloads, ({ done, size }) => {
      this.#files.set(file, { done, size: Math.max(size ?? 0, done) });
      this.#tell(file, done === size);
    });
    this.#files.set(file, { done: blob.size, size: blob.size });
    this.#tell(file, true);
    const named = { name: basename(file), blob };
    if (named.name === "config.json") await this.#onConfig(named);
    return named;
  }

  /** @param {Wanted[]} files */
  async all(files) {
    const blobs = [];
    for (const wanted of files) blobs.push(await this.one(wanted));
    return blobs;
  }

  /**
   * As `one`, but null if the server says that there is no such file. One that may not list its files to strangers, as an S3
   * bucket, forbids those that are absent.
   *
   * @param {Wanted} wanted
   */
  async maybe(wanted) {
    try {
      return await this.one(wanted);
    } catch (error) {
      if (error instanceof EngineError && ABSENT.includes(error.code)) return null;
      throw error;
    }
  }

  /**
   * @param {string} file
   * @param {boolean} now
   */
  #tell(file, now) {
    if (!now && performance.now() - this.#lastNews < PROGRESS_INTERVAL_MS) return;
    this.#lastNews = performance.now();
    let done = 0;
    let total = 0;
    for (const one of this.#files.values()) {
      done += one.done;
      total += one.size;
    }
    this.#onProgress({ file, done, total });
  }
}

/**
 * @param {string} base of the model's folder
 * @param {Fetching} fetching
 */
function gatherBuiltin(base, fetching) {
  const files = ["config.json", "tokenizer.json", "model.safetensors"];
  return fetching.all(files.map((file) => ({ url: base + file, file, size: null })));
}

/**
 * @param {string} hub
 * @param {string} repository
 * @param {string} revision
 * @param {Fetching} fetching
 */
async function gatherRepository(hub, repository, revision, fetching) {
  const listed = new Map((await listRepository(hub, repository, revision)).map(({ path, size }) => [path, size]));
  // A checkpoint's files lie in the root; folders hold conversions.
  const root = [...listed.keys()].filter((path) => !path.includes("/"));
  const where = `the files of ${repository}`;
  const wanted = (/** @type {string} */ path) => ({
    url: fileUrl(hub, repository, revision, path),
    file: path,
    size: listed.get(path) ?? null,
  });
  const chosen = chooseFiles(root, where);
  let { weights } = chosen;
  if (chosen.index !== null) {
    const { blob } = await fetching.one(wanted(chosen.index));
    weights = presentShards(await textOf(chosen.index, blob), chosen.index, root, where);
  }
  const files = [...chosen.small, ...weights].map(wanted);
  fetching.announce(files);
  return fetching.all(files);
}

/**
 * A folder of a plain web server, which has no listing: the files are asked for by name.
 *
 * @param {string} base
 * @param {Fetching} fetching
 */
async function gatherFolder(base, fetching) {
  const at = (/** @type {string} */ file) => ({ url: base + encodeURIComponent(file), file, size: null });
  const config = await fetching.one(at("config.json"));
  const tokenizer = await fetching.maybe(at("tokenizer.json"));
  const small = tokenizer ? [config, tokenizer] : [config, ...(await fetching.all([at("vocab.json"), at("merges.txt")]))];
  for (const { file, index } of WEIGHTS) {
    const whole = await fetching.maybe(at(file));
    if (whole) return [...small, whole];
    const list = await fetching.maybe(at(index));
    if (list) return [...small, ...(await fetching.all(shardsOf(await textOf(index, list.blob), index).map(at)))];
  }
  throw new EngineError("not-found", `${base} holds neither model.safetensors nor pytorch_model.bin`);
}

/** @param {NamedBlob[]} files */
async function chooseLocal(files) {
  const where = "the files given";
  const byPath = new Map(files.map(({ name, blob }) => [name, blob]));
  const paths = [...byPath.keys()];
  const chosen = chooseFiles(paths, where);
  const blobAt = (/** @type {string} */ path) => /** @type {Blob} */ (byPath.get(path));
  let { weights } = chosen;
  if (chosen.index !== null) {
    weights = presentShards(await textOf(chosen.index, blobAt(chosen.index)), chosen.index, paths, where);
  }
  return [...chosen.small, ...weights].map((path) => ({ name: basename(path), blob: blobAt(path) }));
}

/**
 * @param {string} file its name, for messages
 * @param {Blob} blob
 */
async function textOf(file, blob) {
  try {
    return await blob.text();
  } catch (error) {
    throw new EngineError("read-failed", `${file} cannot be read: ${messageOf(error)}`, error);
  }
}

/**
 * @param {string} text of the index
 * @param {string} index its path
 * @param {string[]} paths of all files that there are
 * @param {string} where
 */
function presentShards(text, index, paths, where) {
  const shards = shardsOf(text, index);
  const absent = shards.filter((path) => !paths.includes(path));
  if (absent.length > 0) {
    throw new EngineError("missing-file", `${index} names ${absent.join(", ")}, not among ${where}`);
  }
  return shards;
}
