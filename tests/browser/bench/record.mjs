// What every record of a benchmark says beside its figures: when, on what, of which commit, and how busy the machine was.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { rounded } from "../../../www/page/shares.js";
import { local } from "../suite.mjs";

/** @import { WebDriver } from "selenium-webdriver" */

/** How much is measured of a machine: a matrix of as many weights as GPT-2 124M has, 0.5 GB in f32. */
export const WHOLE_MACHINE = { rows: 161_280, rounds: 9 };

/** The fields that every record begins with. `load` is the load average: above 0.5 at the start, others were at work. */
export function preamble() {
  return { date: new Date().toISOString(), commit: commit(), machine: machine(), load: { start: loadavg(), end: loadavg() } };
}

/** The commit that was measured, marked where files other than records differ from it; null outside a checkout. */
function commit() {
  const git = (/** @type {string[]} */ ...words) => execFileSync("git", words, { encoding: "utf8", cwd: local("") }).trim();
  try {
    const changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!crate/benches/record");
    return git("rev-parse", "--short=12", "HEAD") + (changed ? "-dirty" : "");
  } catch {
    return null;
  }
}

function machine() {
  const [cpu] = cpus();
  return { processor: cpu?.model.trim() ?? "unknown", ...family(), cores: cpus().length, memory: totalmem() };
}

/** Processors of a cloud hide their names, but not their family and model, where Linux tells them. */
function family() {
  const text = existsSync("/proc/cpuinfo") ? readFileSync("/proc/cpuinfo", "utf8") : "";
  const found = /^cpu family\s*: (\d+)\nmodel\s*: (\d+)$/m.exec(text);
  return found ? { family: Number(found[1]), model: Number(found[2]) } : {};
}

/** @param {WebDriver} driver */
export async function browserName(driver) {
  const capabilities = await driver.getCapabilities();
  return `${capabilities.getBrowserName()} ${capabilities.getBrowserVersion()}`;
}

/**
 * Where a record goes by default: `crate/benches/record/<machine>/<date>-<what>.json`.
 *
 * @param {{ date: string, machine: { processor: string, cores: number } }} record
 * @param {string} what
 * @param {string} [name] of the machine, if its processor's does not do
 */
export function recordFile({ date, machine }, what, name) {
  const slug = machine.processor
    .replace(/\((R|TM)\)|\bCPU\b|\bProcessor\b|\d+-Core|@.*$/gi, " ")
    .trim()
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-");
  return join(local("crate/benches/record"), name ?? `${slug}-${machine.cores}-cores`, `${date.slice(0, 10)}-${what}.json`);
}

/**
 * @param {string} file
 * @param {{ load: { end: number[] } }} record
 */
export function write(file, record) {
  record.load.end = loadavg();
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(record, rounded, 1)}\n`);
  console.log(`\nRecorded in ${file}`);
}

/** @param {readonly number[]} values */
export function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;
}
