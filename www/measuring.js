// How this device is measured, for the page and for the benchmark: inside the worker, by one call into the wasm.

/** @import { Pkg } from "./engine/surface.js" */
/** @import { MeasuredLine } from "./protocol.js" */

/** Steps of the clock in the shortest sample: its rounding then shifts a figure by 5 % at most. */
const STEPS_OF_A_SAMPLE = 20;

/** Steps that are watched to learn how long the shortest is. */
const STEPS_WATCHED = 10;

/**
 * The wasm takes samples of a millisecond or more, by the clock that it is handed. A browser's clock may step by a whole
 * millisecond (Firefox, Safari), so it is handed one that goes slower, and its figures are set right afterwards.
 *
 * @param {Pick<Pkg, "measure">} pkg
 * @param {{ rows: number, rounds: number }} size
 * @param {() => number} [now] in milliseconds
 * @returns {MeasuredLine[]}
 */
export function measure(pkg, { rows, rounds }, now = () => performance.now()) {
  const slowness = Math.max(1, STEPS_OF_A_SAMPLE * stepOf(now));
  const lines = pkg.measure(() => now() / slowness, rows, rounds);
  return lines.map((line) => {
    const factor = line.unit.endsWith("/s") ? 1 / slowness : slowness;
    return { ...line, median: line.median * factor, best: line.best * factor };
  });
}

/** @param {() => number} now */
function stepOf(now) {
  let shortest = Infinity;
  let last = now();
  for (let watched = 0; watched < STEPS_WATCHED; ) {
    const time = now();
    if (time <= last) continue;
    shortest = Math.min(shortest, time - last);
    last = time;
    watched++;
  }
  return shortest;
}
