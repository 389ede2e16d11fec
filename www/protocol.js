// The messages between engine.js and worker.js, and the shapes that engine.js hands to its callers.
//
// Types only: this file has no code, and says nothing about how a message is carried out.
//
// Rules
// - Messages are unions on `type`. Every message carries the `id` of the request that it belongs to.
// - Every request ends in exactly one `done` or `failed`; what comes before is news of it.
// - A `cancel` names the request to cancel. It is looked at between tokens and between prefill chunks.
// - Unknown ids are ignored, by both sides.
// - `failed` with code `crashed` is the last message of a worker: the engine ends it and fails every open request.
//
// Builds and their ids
// - The site's root holds `build.json`: `{ "id": string, "version": string }`, written when the site is assembled.
// - `pkg/simd128` and `pkg/relaxed` were built with the same id, which their `build()` returns.
// - The worker asks the server for `build.json` anew at its start, adds the id to the URLs of pkg (so that a cache cannot
//   answer with another build), and refuses, as `build-mismatch`, a wasm whose id differs. A site without `build.json` is refused
//   too: it was not assembled, and nothing would say which wasm it holds.
// - `PROTOCOL` stands in engine/connection.js and again in worker.js, on purpose: the two files may come from
//   caches of different ages, and the first message compares them.

/**
 * Every code that a failure can carry.
 *
 * Said by the wasm (`Error::code` in crate/src/error.rs):
 * - `missing-file`: a file that the checkpoint needs is not there.
 * - `bad-config`: config.json cannot be read or contradicts itself.
 * - `unknown-architecture`: config.json names an architecture that this build does not know.
 * - `bad-file`: a file is not what its name or header says.
 * - `missing-tensor`: the checkpoint lacks a tensor that the model needs.
 * - `bad-tensor`: a tensor has another shape or dtype than config.json implies.
 * - `bad-tokenizer`: tokenizer.json, vocab.json or merges.txt is broken.
 * - `bad-request`: an empty prompt, an absurd sampling value, an unknown option.
 * - `context-exceeded`: the text does not fit into the model's context.
 * - `out-of-memory`: the model does not fit into the memory that is left; said before it is loaded.
 * - `read-failed`: bytes of a file could not be read.
 * - `internal`: a defect of the engine that left it usable.
 *
 * Said by engine.js and worker.js:
 * - `busy`: another request runs.
 * - `cancelled`: the request was aborted by its signal.
 * - `no-model`: nothing is loaded.
 * - `disposed`: the engine was disposed of.
 * - `crashed`: the worker trapped and was ended; the next load starts a fresh one.
 * - `start-failed`: the worker or its wasm could not be started.
 * - `build-mismatch`: the parts of the engine are of different builds.
 * - `unsupported-browser`: the browser is below the floor.
 *
 * Said while files are fetched:
 * - `not-found` (404), `unauthorized` (401), `forbidden` (403), `rate-limited` (429), `http-error` (any other status).
 * - `network-error`: no answer, or the connection was lost.
 * - `short-download`: fewer or more bytes came than were announced.
 * - `disk-full`: the browser's storage for this site has no room for the file.
 *
 * @typedef {"missing-file" | "bad-config" | "unknown-architecture" | "bad-file" | "missing-tensor" | "bad-tensor"
 *   | "bad-tokenizer" | "bad-request" | "context-exceeded" | "out-of-memory" | "read-failed" | "internal"
 *   | "busy" | "cancelled" | "no-model" | "disposed" | "crashed" | "start-failed" | "build-mismatch"
 *   | "unsupported-browser" | "not-found" | "unauthorized" | "forbidden" | "rate-limited" | "http-error"
 *   | "network-error" | "short-download" | "disk-full"} ErrorCode
 */

/** @typedef {{ code: ErrorCode, message: string }} Failure */

// ---- What callers of engine.js give ----

/** @typedef {{ name: string, blob: Blob }} NamedBlob A file of a checkpoint; `name` may be a path. */

/**
 * Where a model comes from: one of its keys, not several.
 *
 * @typedef {{ builtin: string }
 *   | { files: FileList | readonly (File | NamedBlob)[] }
 *   | { hub: string, revision?: string }
 *   | { url: string | URL }} Source
 */

/**
 * News of a load. `done` and `total` are bytes; `total` is what is known so far, and grows when the sizes of files are
 * learnt one by one.
 *
 * @typedef {{ stage: "download" | "load", done: number, total: number, file?: string }} LoadProgress
 */

/**
 * How the weights are held: `q8` and `q4` are quantised while they load, and write the same text in every browser and build.
 *
 * @typedef {"f32" | "q8" | "q4"} Precision
 */

/**
 * @typedef {object} LoadOptions
 * @property {Precision} [precision] of the weights in memory; "q8" if not given
 * @property {(progress: LoadProgress) => void} [onProgress]
 * @property {AbortSignal} [signal] rejects the load as `cancelled`
 */

/**
 * What the wasm understands of a generation's options. A key that is not given takes the crate's default.
 *
 * @typedef {object} Sampling
 * @property {number} [maxNewTokens]
 * @property {number} [temperature] 0 is greedy
 * @property {number} [topK] 0 keeps every token
 * @property {number} [topP]
 * @property {number} [minP]
 * @property {number} [repetitionPenalty]
 * @property {string[]} [stop] texts that end the run and are not part of its text
 * @property {number} [seed] the same seed gives the same text; a fresh one if not given
 * @property {boolean} [specialTokens] true: special tokens in the prompt are tokens, not text
 */

/**
 * @typedef {Sampling & {
 *   onProgress?: (progress: { stage: "prefill", done: number, total: number }) => void,
 *   signal?: AbortSignal,
 * }} GenerateOptions
 */

/**
 * @typedef {object} ScoreOptions
 * @property {(progress: { stage: "score", done: number, total: number }) => void} [onProgress] in tokens
 * @property {AbortSignal} [signal] rejects the score as `cancelled`
 */

/**
 * How much to measure.
 *
 * @typedef {object} MeasureOptions
 * @property {number} [rows] of a matrix of 768 columns, which is held in each precision and should be far larger than the caches;
 *   49,152 if not given, which takes 0.3 GB
 * @property {number} [rounds] in which everything is measured in turn; 5 if not given
 * @property {AbortSignal} [signal] rejects the measurement as `cancelled`
 */

// ---- What callers of engine.js get ----

/**
 * @typedef {object} Memory in bytes
 * @property {number} weights
 * @property {number} cache
 * @property {number} scratch
 * @property {number} tokenizer
 * @property {number} total of the four above
 * @property {number} wasm the whole linear memory, which never shrinks
 */

/**
 * What is loaded, as it stands after the last load, generation or score.
 *
 * @typedef {object} Model
 * @property {string} name the built-in model's, the repository's, or the folder's
 * @property {string} architecture
 * @property {number} parameters
 * @property {number} layers
 * @property {number} context in tokens
 * @property {number} vocabulary
 * @property {string} precision
 * @property {number} bytes `memory.total`
 * @property {Memory} memory
 * @property {string} kernel
 * @property {string} build
 * @property {string[]} ignored tensors that the model does not need
 */

/** @typedef {{ id: string, version: string, name: BuildName, kernel: string }} Build */
/** @typedef {"simd128" | "relaxed"} BuildName */

/**
 * One generated token. `text` may be empty while it is held back (an unfinished character, the possible start of a stop
 * string) and then comes with a later token, or at the end. `logprob` is ln softmax of the raw logits.
 *
 * @typedef {{ id: number, text: string, logprob: number }} Token
 */

/** @typedef {{ tokens: number, ms: number, tokensPerSecond: number }} Pace */

/**
 * @typedef {object} GenerationResult
 * @property {"stop" | "length" | "context" | "cancelled"} reason
 * @property {string} text the whole continuation, text that was still held back at the end included
 * @property {Token[]} tokens
 * @property {number} seed the one that was used
 * @property {number} timeToFirstTokenMs from the call to the first token; NaN if there was none
 * @property {Pace} prefill the tokens of the prompt that were read, not those that the last run had read already, up to the first token
 * @property {Pace} decode the tokens after the first
 */

/** @typedef {{ id: number, text: string, logprob: number | null }} ScoredToken */
/** @typedef {{ tokens: ScoredToken[], perplexity: number, bitsPerByte: number }} Score */
/** @typedef {{ id: number, text: string }} TextToken */

/**
 * What was measured of a kernel, or of this device (`kernel` is then "limit"): the median and the best of all rounds.
 *
 * @typedef {object} MeasuredLine
 * @property {string} kernel
 * @property {string} operation for a matrix, its precision first: "q8 matvec [49152, 768]"
 * @property {number} median
 * @property {number} best
 * @property {string} unit "GB/s" or "GMAC/s" (multiply-adds), of which more is better; "ns" or "µs", of which less is
 * @property {number | null} limit the index of the line that bounds this one
 */

/** @typedef {{ build: Build, rows: number, rounds: number, lines: MeasuredLine[] }} Measurement */

// ---- engine → worker ----

/**
 * @typedef {{ kind: "builtin", name: string }
 *   | { kind: "files", files: NamedBlob[] }
 *   | { kind: "hub", repository: string, revision: string }
 *   | { kind: "url", url: string }} WireSource
 */

/** @typedef {{ type: "start", id: number, protocol: number, build: BuildName }} StartRequest */
/** @typedef {{ type: "open", id: number, source: WireSource, precision: string, hub: string }} OpenRequest Fetches, reads headers, plans. */
/** @typedef {{ type: "load", id: number }} LoadRequest Loads what was opened. */
/** @typedef {{ type: "generate", id: number, prompt: string, options: Sampling }} GenerateRequest */
/** @typedef {{ type: "score", id: number, text: string }} ScoreRequest */
/** @typedef {{ type: "tokenize", id: number, text: string }} TokenizeRequest */
/** @typedef {{ type: "measure", id: number, rows: number, rounds: number }} MeasureRequest Sent to a worker that holds no model. */
/** @typedef {{ type: "crash", id: number, how: "panic" | "memory" | "stack" }} CrashRequest A real trap, for testing recovery. */
/** @typedef {{ type: "cancel", id: number }} Cancel Not a request: it has no answer of its own. */

/**
 * @typedef {StartRequest | OpenRequest | LoadRequest | GenerateRequest | ScoreRequest | TokenizeRequest | MeasureRequest
 *   | CrashRequest} Request
 */

// ---- worker → engine ----

/** @typedef {{ type: "progress", id: number, stage: "download" | "load" | "prefill" | "score", done: number, total: number, file?: string }} Progress */
/** @typedef {{ type: "started", id: number, seed: number, promptTokens: number }} Started */
/** @typedef {{ type: "tokens", id: number, tokens: Token[] }} Tokens New tokens only, batched by time. */
/** @typedef {Progress | Started | Tokens} News */
/** @typedef {{ type: "done", id: number, value: unknown }} Done */
/** @typedef {{ type: "failed", id: number, error: Failure }} Failed */
/** @typedef {News | Done | Failed} Answer */

/** @typedef {Omit<Model, "name">} ModelInfo What the worker knows of the model, as it stands now; the value of a `load`'s `done`. */

/**
 * The value of a `generate`'s `done`; `text` is what was still held back.
 *
 * @typedef {object} GenerationEnd
 * @property {"stop" | "length" | "context" | "cancelled"} reason
 * @property {string} text
 * @property {Pace} prefill
 * @property {Pace} decode
 * @property {ModelInfo} model
 */

/** @typedef {{ score: Score, model: ModelInfo }} ScoreEnd The value of a `score`'s `done`. */

export {};
