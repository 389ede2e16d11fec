// Figures as people read them, in one place so that the page speaks with one voice.

const UNITS = ["B", "kB", "MB", "GB"];

/** @param {number} bytes */
export function formatBytes(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value.toFixed(unit === 0 || value >= 99.95 ? 0 : 1)} ${UNITS[unit]}`;
}

/** @param {number} count */
export function formatCount(count) {
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)} billion`;
  if (count >= 1e6) return `${(count / 1e6).toFixed(1)} million`;
  return count.toLocaleString("en");
}

/** @param {number} ms */
export function formatDuration(ms) {
  if (!Number.isFinite(ms)) return "–";
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** @param {number} part of 1 */
export function formatShare(part) {
  return Number.isFinite(part) ? `${Math.round(100 * part)} %` : "–";
}

/** @param {number} tokensPerSecond */
export function formatSpeed(tokensPerSecond) {
  if (!(tokensPerSecond > 0)) return "–";
  return `${tokensPerSecond.toFixed(tokensPerSecond < 100 ? 1 : 0)} tokens/s`;
}
