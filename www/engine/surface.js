// What worker.js expects of pkg: the surface that crate/src/web exports. Types only.

/** @import { Build, MeasuredLine, Memory, ModelInfo, NamedBlob, Sampling, Score, TextToken, Token } from "../protocol.js" */

/**
 * @typedef {object} Pkg one build of pkg, as a module
 * @property {(options: { module_or_path: URL }) => Promise<unknown>} default loads the wasm
 * @property {() => Build} build
 * @property {(now: () => number) => void} calibrate chooses among kernels, in at most 10 ms
 * @property {() => string | undefined} lastPanic after a trap, the panic's text
 * @property {(how: "panic" | "memory" | "stack") => void} crash
 * @property {(config: string, precision: string) => unknown} estimate throws if the model of that config cannot be loaded
 * @property {new (files: NamedBlob[]) => Candidate} Candidate
 * @property {(now: () => number, rows: number, rounds: number) => MeasuredLine[]} measure takes seconds
 */

/**
 * @typedef {object} Plan what loading would take
 * @property {string} architecture
 * @property {number} parameters
 * @property {number} layers
 * @property {number} context
 * @property {number} vocabulary
 * @property {string} precision
 * @property {Omit<Memory, "wasm">} bytes
 * @property {number} available bytes that are left to this instance
 */

/**
 * @typedef {object} Candidate
 * @property {(precision: string) => Plan} plan
 * @property {(precision: string, onProgress: (done: number, total: number) => void) => Loading} load consumes the candidate
 */

/**
 * @typedef {object} LoadingStep one of
 * @property {Promise<unknown>} [reading] to wait for before the next step, whether it is kept or not
 * @property {Session} [session] the end
 */

/**
 * @typedef {object} Loading
 * @property {() => LoadingStep} step
 * @property {() => void} free
 */

/**
 * @typedef {object} Session
 * @property {() => ModelInfo} info
 * @property {(text: string) => TextToken[]} tokenize
 * @property {(prompt: string, options: Sampling) => Generation} generate
 * @property {(text: string) => Scoring} score
 */

/**
 * @typedef {object} GenerationStep one of
 * @property {{ done: number, total: number }} [prefill] tokens of the prompt
 * @property {Token} [token]
 * @property {{ reason: "stop" | "length" | "context", text: string }} [end]
 */

/**
 * @typedef {object} Generation
 * @property {number} seed
 * @property {number} promptTokens
 * @property {number} reusedTokens of the prompt, which the last run had read already
 * @property {() => GenerationStep} step
 * @property {() => { reason: "cancelled", text: string }} finish
 * @property {() => void} free
 */

/**
 * @typedef {object} ScoringStep one of
 * @property {{ done: number, total: number }} [progress] tokens of the text
 * @property {Score} [end]
 */

/**
 * @typedef {object} Scoring
 * @property {() => ScoringStep} step
 * @property {() => void} free
 */

export {};
