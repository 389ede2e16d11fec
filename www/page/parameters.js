// What the page's address may set, for tests and for comparing builds.

/** @import { BuildName, Precision } from "../protocol.js" */

const LOOPBACK = ["127.0.0.1", "localhost"];

/**
 * `?hub=http://127.0.0.1:PORT`: another hub, on this machine only, so that no link can send a visitor to a hub of its choice.
 * `?build=simd128` or `relaxed`: that build of the engine instead of the best one.
 * `?precision=f32`, `q8` or `q4`: what the page starts with.
 *
 * @param {string} search
 * @returns {{ hub?: string, build?: BuildName, precision?: Precision }}
 */
export function readParameters(search) {
  const parameters = new URLSearchParams(search);
  const hub = parameters.get("hub");
  const build = parameters.get("build");
  const precision = parameters.get("precision");
  return {
    ...(hub !== null && isLoopback(hub) && { hub }),
    ...((build === "simd128" || build === "relaxed") && { build }),
    ...((precision === "f32" || precision === "q8" || precision === "q4") && { precision }),
  };
}

/** @param {string} address */
function isLoopback(address) {
  try {
    const { protocol, hostname } = new URL(address);
    return protocol === "http:" && LOOPBACK.includes(hostname);
  } catch {
    return false;
  }
}
