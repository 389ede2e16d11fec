// The figures of a benchmark beside the machine's limits, in a terminal.

import { BYTES_PER_WEIGHT } from "../../../www/page/shares.js";

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
 */

/** @typedef {{ build: string, wasm?: { bytes: number, gzipped: number } | null, kernels: Line[], models: Measured[] }} Build */

/** Numbers in a model's tables: a token takes one row of each. @typedef {{ vocabulary: number, positions: number }} Tables */

/**
 * What was measured before and after: the mean of the medians, the best of both.
 *
 * @param {Line[]} before
 * @param {Line[]} after
 * @returns {Line[]}
 */
export function bothOf(before, after) {
  return before.map((line, i) => {
    const again = after[i] ?? line;
    const best = line.unit.endsWith("/s") ? Math.max(line.best, again.best) : Math.min(line.best, again.best);
    return { ...line, median: (line.median + again.median) / 2, best };
  });
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
 * @param {Measured} model
 * @param {Line[]} kernels
 * @param {Tables} tables
 */
function row({ precision, kernel, parameters, load, memory, prefill, decode, longDecode }, kernels, tables) {
  const read = /** @type {Line} */ (kernels.find(({ kernel, unit }) => kernel === "limit" && unit === "GB/s"));
  const matmul = kernels.find((line) => line.kernel === kernel && line.operation.startsWith(`${precision} matmul`));
  const peak = kernels[matmul?.limit ?? -1];
  const paces = prefill.slice(0, 2).map(({ tokens, tokensPerSecond }) => {
    const share = peak ? `, ${percent(multiplyAdds(parameters, tables, tokens) * tokensPerSecond, peak.best)}` : "";
    return `${tokens}: ${tokensPerSecond.toFixed(0)} tokens/s${share}`;
  });
  const reads = ((BYTES_PER_WEIGHT[precision] ?? NaN) * (parameters - tables.positions) * (decode?.tokensPerSecond ?? NaN)) / 1e9;
  return [
    precision,
    kernel,
    `${(load.median / 1000).toFixed(2)} s`,
    megabytes(memory.wasm ?? memory.peak ?? memory.total),
    paces[0] ?? "",
    paces[1] ?? "",
    decode ? `${decode.tokensPerSecond.toFixed(1)} tokens/s` : "",
    `${percent(reads, read.best)} of ${read.best.toFixed(1)} GB/s`,
    longDecode && decode ? `${longDecode.tokensPerSecond.toFixed(1)} tokens/s, ${percent(longDecode.tokensPerSecond, decode.tokensPerSecond)}` : "",
  ];
}

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
