// Which files of a checkpoint are needed, judged by their names alone.
//
// A folder or a repository often holds the same weights several times (safetensors, PyTorch, TensorFlow, ONNX); one set is
// chosen, by the rule that crate/src/files.rs has too: the published names first, safetensors before PyTorch, each as one
// file, by its index, or as shards; then, in the same order, the shards or the one file of any other name.

import { EngineError, messageOf } from "../errors.js";

/**
 * @typedef {object} Chosen
 * @property {string[]} small config and tokenizer
 * @property {string[]} weights empty where `index` must say
 * @property {string | null} index a JSON file that lists the shards
 */

/** The published names of weights, in order of preference. */
export const WEIGHTS = [
  { file: "model.safetensors", index: "model.safetensors.index.json", shards: /^model-\d{5}-of-\d{5}\.safetensors$/ },
  { file: "pytorch_model.bin", index: "pytorch_model.bin.index.json", shards: /^pytorch_model-\d{5}-of-\d{5}\.bin$/ },
];

const SHARD = /^(?<stem>.*)-\d{5}-of-(?<count>\d{5})\.(?:safetensors|bin)$/;
const NOT_A_MODEL = /(^|\/)(training_args|optimizer|scheduler)\.bin$/;

/** @param {string} message */
const missing = (message) => new EngineError("missing-file", message);

/**
 * @param {readonly string[]} paths of all files that there are
 * @param {string} where for messages: "the files given", "the repository a/b"
 * @returns {Chosen} paths out of `paths`, all of one folder
 * @throws {EngineError} `missing-file`
 */
export function chooseFiles(paths, where) {
  const config = shallowest(paths.filter((path) => basename(path) === "config.json"));
  if (config === undefined) throw missing(`config.json is not among ${where}, which are ${listing(paths)}`);
  const folder = config.slice(0, -"config.json".length);
  const siblings = new Set(
    paths.filter((path) => path.startsWith(folder) && !path.slice(folder.length).includes("/")),
  );
  const has = (/** @type {string} */ name) => siblings.has(folder + name);

  const small = [config];
  if (has("tokenizer.json")) {
    small.push(`${folder}tokenizer.json`);
  } else if (has("vocab.json") && has("merges.txt")) {
    small.push(`${folder}vocab.json`, `${folder}merges.txt`);
  } else {
    throw missing(`neither tokenizer.json nor vocab.json with merges.txt is among ${where}, which are ${listing(paths)}`);
  }

  const named = (/** @type {RegExp} */ pattern) => [...siblings].filter((path) => pattern.test(basename(path))).sort();
  for (const { file, index, shards } of WEIGHTS) {
    if (has(file)) return { small, weights: [folder + file], index: null };
    if (has(index)) return { small, weights: [], index: folder + index };
    const found = named(shards);
    if (found.length > 0) return { small, weights: wholeSet(found, where), index: null };
  }
  // Files that carry a name of their own, as people keep them in folders.
  for (const extension of [/\.safetensors$/, /\.bin$/]) {
    const candidates = named(extension).filter((path) => !NOT_A_MODEL.test(path));
    const shards = candidates.filter((path) => SHARD.test(path));
    if (shards.length > 0) return { small, weights: wholeSet(shards, where), index: null };
    if (candidates.length === 1) return { small, weights: candidates, index: null };
    if (candidates.length > 1) throw missing(`${candidates.join(" and ")} could each be the weights; give only one of them`);
  }
  throw missing(
    `no weights (model.safetensors or pytorch_model.bin) are among ${where}, which are ${listing(paths)}`,
  );
}

/**
 * @param {string[]} shards by their names
 * @param {string} where
 * @returns {string[]} the same, all of one set that lacks none
 * @throws {EngineError} `missing-file`
 */
function wholeSet(shards, where) {
  /** The first of each set, and how many that has. @type {Map<string, { first: string, count: number }>} */
  const sets = new Map();
  for (const path of shards) {
    const { stem, count } = SHARD.exec(path)?.groups ?? {};
    const set = `${stem} of ${count}`;
    if (!sets.has(set)) sets.set(set, { first: path, count: Number(count) });
  }
  const [set, ...others] = [...sets.values()];
  if (others.length > 0) {
    const firsts = [...sets.values()].map(({ first }) => first);
    throw missing(`${firsts.join(" and ")} are of different sets of shards; give only one of them`);
  }
  if (shards.length !== set?.count) {
    throw missing(`of ${set?.count} shards, ${shards.length} are among ${where}: ${listing(shards)}`);
  }
  return shards;
}

/**
 * The shards that an index names.
 *
 * @param {string} text of the index
 * @param {string} file its path, for messages
 * @returns {string[]} paths in the index's folder
 * @throws {EngineError} `bad-file`
 */
export function shardsOf(text, file) {
  let map;
  try {
    map = JSON.parse(text).weight_map;
  } catch (error) {
    throw new EngineError("bad-file", `${file}: not JSON: ${messageOf(error)}`, error);
  }
  const names = map && typeof map === "object" ? [...new Set(Object.values(map))].sort() : [];
  if (names.length === 0) throw new EngineError("bad-file", `${file}: its weight_map names no files`);
  const folder = file.slice(0, -basename(file).length);
  return names.map((name) => {
    if (typeof name !== "string" || !/^[\w-][\w.-]*$/.test(name)) {
      throw new EngineError("bad-file", `${file}: ${JSON.stringify(name)} is not the name of a file beside it`);
    }
    return folder + name;
  });
}

/** @param {string} path */
export function basename(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

/**
 * @param {string[]} paths
 * @returns {string | undefined}
 */
function shallowest(paths) {
  const depth = (/** @type {string} */ path) => path.split("/").length;
  return paths.sort((a, b) => depth(a) - depth(b) || (a < b ? -1 : 1))[0];
}

/** @param {readonly string[]} paths */
function listing(paths) {
  const shown = paths.slice(0, 8).join(", ") || "none";
  return paths.length > 8 ? `${shown} and ${paths.length - 8} more` : shown;
}
