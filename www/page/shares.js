// What a measurement says: how near the kernels come to the limits of this device, and what those allow.

/** @import { MeasuredLine, Measurement } from "../protocol.js" */

/** Bytes that a weight takes at least, by precision: 32 of q8 and q4 share one scale. */
export const BYTES_PER_WEIGHT = /** @type {Record<string, number>} */ ({ f32: 4, q8: 1.0625, q4: 0.5625 });

/** Weights of GPT-2 124M that a token reads: all but the 1,024 positions of 768. */
const GPT2_WEIGHTS = 123_653_376;

/**
 * A kernel in one precision and regime. Figures are the best of all rounds, in billions a second.
 *
 * @typedef {object} Bar
 * @property {string} precision
 * @property {string} kernel
 * @property {number} figure
 * @property {{ name: string, figure: number } | null} limit null where this build cannot measure it
 * @property {number | null} share of the limit
 */

/**
 * @typedef {object} Shares
 * @property {number} bandwidth that one thread reads from memory, in GB/s
 * @property {Bar[]} decode products with a vector, in GB/s of weights
 * @property {Bar[]} prefill products with a matrix, in GMAC/s
 */

/**
 * @param {readonly MeasuredLine[]} lines
 * @returns {Shares}
 */
export function sharesOf(lines) {
  const read = lines.find(({ kernel, unit }) => kernel === "limit" && unit === "GB/s");
  return { bandwidth: read?.best ?? NaN, decode: barsOf(lines, "matvec"), prefill: barsOf(lines, "matmul") };
}

/**
 * @param {readonly MeasuredLine[]} lines
 * @param {string} product
 * @returns {Bar[]}
 */
function barsOf(lines, product) {
  return lines.flatMap(({ kernel, operation, best, limit }) => {
    const [precision = "", what] = operation.split(" ");
    if (what !== product) return [];
    const bound = limit === null ? undefined : lines[limit];
    return {
      precision,
      kernel,
      figure: best,
      limit: bound ? { name: bound.operation, figure: bound.best } : null,
      share: bound ? best / bound.best : null,
    };
  });
}

/**
 * Tokens that a thread can write in a second at most, if it does nothing but read each weight of GPT-2 124M once for each.
 *
 * @param {number} bandwidth in GB/s
 * @param {string} precision
 */
export function mostTokensPerSecond(bandwidth, precision) {
  return (bandwidth * 1e9) / (GPT2_WEIGHTS * (BYTES_PER_WEIGHT[precision] ?? NaN));
}

/**
 * A measurement as a document to send to somebody: what was measured, with what, and when.
 *
 * @param {Measurement} measurement
 * @param {Pick<Navigator, "userAgent" | "hardwareConcurrency">} browser
 * @param {Date} date
 */
export function documentOf({ build, rows, rounds, lines }, { userAgent, hardwareConcurrency }, date) {
  const { name, id, version } = build;
  const about = { date: date.toISOString(), userAgent, hardwareConcurrency, build: { name, id, version }, rows, rounds };
  return JSON.stringify({ ...about, lines }, rounded, 1);
}

/**
 * Four digits are as many as a measurement has.
 *
 * @param {string} _key
 * @param {unknown} value
 */
export function rounded(_key, value) {
  return typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;
}
