// Files and folders dropped anywhere on the page.

import { EngineError, messageOf } from "../errors.js";

/** @import { NamedBlob } from "../protocol.js" */

/** More files than this are no checkpoint; no more are looked for. */
const MOST_FILES = 1000;

/**
 * @param {(files: NamedBlob[]) => void} onFiles
 * @param {(error: unknown) => void} onFailure what was dropped cannot be read, or holds no files
 */
export function acceptDrops(onFiles, onFailure) {
  const carriesFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files") ?? false;
  const mark = (/** @type {boolean} */ over) => document.body.classList.toggle("dropping", over);
  addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    mark(true);
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) mark(false);
  });
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    mark(false);
    filesOf(event.dataTransfer?.items ?? []).then(onFiles, onFailure);
  });
}

/**
 * @param {Iterable<DataTransferItem>} items only readable before the first turn of the event loop
 * @returns {Promise<NamedBlob[]>}
 * @throws {EngineError} `missing-file`, `read-failed`
 */
export async function filesOf(items) {
  // A file's entry is of no use: that of a script's file is null, or leads nowhere.
  const dropped = Array.from(items, (item) => {
    const entry = item.webkitGetAsEntry();
    return entry?.isDirectory ? entry : item.getAsFile();
  }).filter((one) => one !== null);
  /** @type {NamedBlob[]} */
  const files = [];
  try {
    for (const one of dropped) {
      if (one instanceof File) files.push({ name: one.name, blob: one });
      else await collect(one, files);
    }
  } catch (error) {
    throw new EngineError("read-failed", `what was dropped cannot be read: ${messageOf(error)}`, error);
  }
  if (files.length === 0) throw new EngineError("missing-file", "what was dropped holds no files");
  return files;
}

/**
 * @param {FileSystemEntry} entry
 * @param {NamedBlob[]} files to which those of the entry are added
 */
async function collect(entry, files) {
  if (files.length >= MOST_FILES) return;
  if (entry.isFile) {
    const blob = await new Promise((resolve, reject) => /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject));
    files.push({ name: entry.fullPath.replace(/^\//, ""), blob });
    return;
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  // A directory is read in parts, until an empty one.
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0 || files.length >= MOST_FILES) return;
    for (const child of part) await collect(child, files);
  }
}
