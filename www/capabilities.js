// What this browser's WebAssembly can do, asked of the browser itself with tiny modules, never of its name.

import { EngineError } from "./errors.js";

/** @import { BuildName } from "./protocol.js" */

/** The browser floor, in words: simd128 and module workers. */
export const FLOOR = "Chrome or Edge 96, Firefox 114, Safari 16.4";

/**
 * A module with one function `() -> v128` of the given body.
 *
 * @param {number[]} body instructions without locals and without `end`
 */
function moduleOf(body) {
  const code = [0, ...body, 0x0b]; // no locals; end
  return new Uint8Array([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00], // "\0asm", version 1
    ...[0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7b], // type section: () -> v128
    ...[0x03, 0x02, 0x01, 0x00], // function section: one function of that type
    ...[0x0a, code.length + 2, 0x01, code.length, ...code], // code section
  ]);
}

const ZERO = [0x41, 0x00, 0xfd, 0x11]; // i32.const 0; i32x4.splat

const PROBES = {
  simd128: moduleOf(ZERO),
  // f32x4.relaxed_madd of the f32 kernel, i16x8.relaxed_dot_i8x16_i7x16_s of a q4 kernel, and i32x4.relaxed_dot_i8x16_i7x16_add_s of the
  // q8 kernel and the other q4 kernel. The compiler may use any instruction of the proposal, and a browser that has these has them all.
  relaxedSimd: moduleOf([
    ...[...ZERO, ...ZERO, ...ZERO, 0xfd, 0x85, 0x02],
    ...[...ZERO, 0xfd, 0x92, 0x02],
    ...[...ZERO, ...ZERO, 0xfd, 0x93, 0x02],
  ]),
};

/**
 * @typedef {object} Capabilities
 * @property {boolean} workers
 * @property {boolean} simd128
 * @property {boolean} relaxedSimd
 */

/** @returns {Capabilities} */
export function detectCapabilities() {
  const validates = (/** @type {Uint8Array<ArrayBuffer>} */ probe) =>
    typeof WebAssembly === "object" && WebAssembly.validate(probe);
  return {
    workers: typeof Worker === "function",
    simd128: validates(PROBES.simd128),
    relaxedSimd: validates(PROBES.relaxedSimd),
  };
}

/**
 * The best build of pkg for a browser.
 *
 * @param {Capabilities} capabilities
 * @returns {BuildName}
 * @throws {EngineError} `unsupported-browser` below the floor
 */
export function chooseBuild(capabilities) {
  const missing = [
    capabilities.workers ? "" : "Web Workers",
    capabilities.simd128 ? "" : "WebAssembly SIMD",
  ].filter(Boolean);
  if (missing.length > 0) {
    throw new EngineError(
      "unsupported-browser",
      `This browser lacks ${missing.join(" and ")}, so no model can run here. Use ${FLOOR}, or newer.`,
    );
  }
  return capabilities.relaxedSimd ? "relaxed" : "simd128";
}
