// The model hub: what a repository holds, and where its files are.

import { EngineError } from "../errors.js";
import { ask } from "./download.js";

/** A repository of a sane size is listed in a few pages; more than this is refused. */
const MOST_PAGES = 50;

/** @typedef {{ path: string, size: number | null }} RemoteFile `size` in bytes; null if the listing does not say it */

/** @param {string} path */
const encodePath = (path) => path.split("/").map(encodeURIComponent).join("/");

/**
 * @param {string} hub base URL without a trailing slash
 * @param {string} repository owner/name
 * @param {string} revision branch, tag or commit
 * @returns {Promise<RemoteFile[]>}
 * @throws {EngineError}
 */
export async function listRepository(hub, repository, revision) {
  /** @type {RemoteFile[]} */
  const files = [];
  let url = `${hub}/api/models/${encodePath(repository)}/tree/${encodeURIComponent(revision)}?recursive=true`;
  for (let page = 0; page < MOST_PAGES; page++) {
    const response = await ask(url, repository);
    const entries = await response.json().catch(() => null);
    if (!Array.isArray(entries)) {
      throw new EngineError("http-error", `${repository}: ${new URL(url).host} did not answer with a list of files`);
    }
    files.push(...entries.map(fileOf).filter((file) => file !== null));
    const next = nextPage(response, url);
    if (next === null) return files;
    url = next;
  }
  throw new EngineError("http-error", `${repository}: its list of files does not end`);
}

/**
 * @param {any} entry of the listing: a file, a folder, or whatever else a hub may answer
 * @returns {RemoteFile | null}
 */
function fileOf(entry) {
  if (entry?.type !== "file" || typeof entry.path !== "string") return null;
  const size = entry.lfs?.size ?? entry.size;
  return { path: entry.path, size: Number.isSafeInteger(size) && size >= 0 ? size : null };
}

/**
 * @param {string} hub
 * @param {string} repository
 * @param {string} revision
 * @param {string} path
 */
export function fileUrl(hub, repository, revision, path) {
  return `${hub}/${encodePath(repository)}/resolve/${encodeURIComponent(revision)}/${encodePath(path)}`;
}

/**
 * The `rel="next"` of a Link header, if it stays on the same host.
 *
 * @param {Response} response
 * @param {string} url of this page
 */
function nextPage(response, url) {
  const target = /<([^>]*)>\s*;[^,]*rel="?next"?/.exec(response.headers.get("Link") ?? "")?.[1];
  if (target === undefined) return null;
  try {
    const next = new URL(target, url);
    return next.origin === new URL(url).origin ? next.href : null;
  } catch {
    return null; // not a URL
  }
}
