// The figures of a benchmark beside the machine's limits, in a terminal.

import { BYTES_PER_WEIGHT } from "../../../www/page/shares.js";
import { median } from "./record.mjs";

/** A line of the kernels' table. @typedef {import("../../../www/protocol.js").MeasuredLine} Line */

/** @typedef {{ tokens: number, tokensPerSecond: number, ms: number[] }} Pace */

/**
 * A model in one precision, as a build ran it.
 *
 * @typedef {object} Measured
 * @property {string} precision
 * @property {string} kernel
 * @property {number} parameters
 * @property {number} storytellerTokens how many of the built-in model's expected tokens were written
 * @property {{ ms: number[], median: number }} load
 * @property {{ weights: number, total: number, wasm?: number, peak?: number | null }} memory
 * @property {Pace[]} prefill
 * @property {Pace | null} decode
 * @property {Pace | null} [longDecode] near the end of the context
 * @property {{ read: number[], peak?: number[] }} [beside] the limits of each round, in GB/s and GMAC/s: see `besideRounds`
 */

/** @typedef {{ build: string, wasm?: { bytes: number, gzipped: number } | null, kernels: Line[], models: Measured[] }} Build */

/** Numbers in a model's tables: a token takes one row of each. @typedef {{ vocabulary: number, positions: number }} Tables */

/**
 * What was measured several times: the mean of the medians, the best of all.
 *
 * @param {Line[][]} measurements
 * @returns {Line[]}
 */
export function together(measurements) {
  return (measurements[0] ?? []).map((line, i) => {
    const lines = measurements.map((lines) => lines[i] ?? line);
    const better = line.unit.endsWith("/s") ? Math.max : Math.min;
    const medians = lines.reduce((sum, { median }) => sum + median, 0);
    return { ...line, median: medians / lines.length, best: better(...lines.map(({ best }) => best)) };
  });
}

/**
 * The limits that bound a model, for each round: the mean of the best before it and the best after it.
 *
 * @param {[Line[], Line[]][]} rounds what was measured before and after each
 * @param {string} kernel
 * @param {string} precision
 */
export function besideRounds(rounds, kernel, precision) {
  const { read, peak } = bounds(rounds[0]?.[0] ?? [], kernel, precision);
  const beside = (/** @type {number} */ index) =>
    rounds.map(([before, after]) => ((before[index]?.best ?? NaN) + (after[index]?.best ?? NaN)) / 2);
  return { read: beside(read), ...(peak >= 0 && { peak: beside(peak) }) };
}

/**
 * The indices of the lines that bound a model: reading memory, and the peak of its kernel's instruction.
 *
 * @param {Line[]} kernels
 * @param {string} kernel
 * @param {string} precision
 */
function bounds(kernels, kernel, precision) {
  const read = kernels.findIndex(({ kernel, unit }) => kernel === "limit" && unit === "GB/s");
  const matmul = kernels.find((line) => line.kernel === kernel && line.operation.startsWith(`${precision} matmul`));
  return { read, peak: matmul?.limit ?? -1 };
}

/**
 * @param {Build} build
 * @param {Tables} tables
 */
export function show(build, tables) {
  const size = build.wasm ? `, wasm ${megabytes(build.wasm.bytes)}, gzipped ${megabytes(build.wasm.gzipped)}` : "";
  console.log(`\n${build.build}${size}`);
  const rows = build.models.map((model) => row(model, build.kernels, tables));
  print(["precision", "kernel", "load", "memory", "prefill", "", "decode", "of the limit", "late in the context"], rows);
  console.log();
  print(["kernel", "operation", "median", "best", "unit", "best of its limit"], build.kernels.map((line) => [
    line.kernel,
    line.operation,
    line.median.toFixed(3),
    line.best.toFixed(3),
    line.unit,
    line.limit === null ? "" : percent(line.best, build.kernels[line.limit]?.best ?? NaN),
  ]));
}

/**
 * "X % of Y GB/s" is the median of the rounds' shares beside the median of their limits; the share of what is late in the context is the median of the
 * rounds' too.
 *
 * @param {Measured} model
 * @param {Line[]} kernels
 * @param {Tables} tables
 */
function row({ precision, kernel, parameters, load, memory, prefill, decode, longDecode, beside }, kernels, tables) {
  const { read, peak } = bounds(kernels, kernel, precision);
  const reading = beside?.read ?? [kernels[read]?.best ?? NaN];
  const multiplying = beside?.peak ?? [kernels[peak]?.best ?? NaN];
  const paces = prefill.slice(0, 2).map((pace) => {
    const share = peak < 0 ? "" : `, ${shareOf(pace, multiplyAdds(parameters, tables, pace.tokens), multiplying)}`;
    return `${pace.tokens}: ${pace.tokensPerSecond.toFixed(0)} tokens/s${share}`;
  });
  const gigabytes = ((BYTES_PER_WEIGHT[precision] ?? NaN) * (parameters - tables.positions)) / 1e9;
  return [
    precision,
    kernel,
    `${(load.median / 1000).toFixed(2)} s`,
    megabytes(memory.wasm ?? memory.peak ?? memory.total),
    paces[0] ?? "",
    paces[1] ?? "",
    decode ? `${decode.tokensPerSecond.toFixed(1)} tokens/s` : "",
    decode ? `${shareOf(decode, gigabytes, reading)} of ${median(reading).toFixed(1)} GB/s` : "",
    longDecode && decode ? `${longDecode.tokensPerSecond.toFixed(1)} tokens/s, ${shareOf(longDecode, 1, paceOfRounds(decode))}` : "",
  ];
}

/**
 * What a pace reaches of the limit of its round, by the median of all rounds.
 *
 * @param {Pace} pace
 * @param {number} work of a token, in the unit of the limits
 * @param {number[]} limits of the rounds, or one for all
 */
function shareOf({ tokens, ms }, work, limits) {
  const limit = (/** @type {number} */ round) => (limits.length === 1 ? limits[0] : limits[round]) ?? NaN;
  return percent(median(ms.map((ms, round) => (1000 * tokens * work) / ms / limit(round))), 1);
}

/** @param {Pace} pace */
const paceOfRounds = ({ tokens, ms }) => ms.map((ms) => (1000 * tokens) / ms);

/**
 * Billions of multiply-adds in the matrix products of one token of a prompt; only its last token is multiplied with the
 * vocabulary.
 *
 * @param {number} parameters
 * @param {Tables} tables
 * @param {number} tokens
 */
function multiplyAdds(parameters, { vocabulary, positions }, tokens) {
  return (parameters - vocabulary - positions + vocabulary / tokens) / 1e9;
}

/**
 * @param {string[]} head
 * @param {string[][]} rows
 */
export function print(head, rows) {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? "").length)));
  for (const row of [head, ...rows]) {
    console.log(`  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ")}`.trimEnd());
  }
}

/** @param {number} bytes */
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e8 ? 2 : 0)} MB`;

/**
 * @param {number} reached
 * @param {number} limit
 */
export function percent(reached, limit) {
  return Number.isFinite(reached / limit) ? `${Math.round((100 * reached) / limit)} %` : "?";
}
