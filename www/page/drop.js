// Files and folders dropped anywhere on the page.

/** @import { NamedBlob } from "../protocol.js" */

/** More files than this are not a checkpoint. */
const MOST_FILES = 1000;

/** @param {(files: NamedBlob[]) => void} onFiles */
export function acceptDrops(onFiles) {
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
  addEventListener("drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    mark(false);
    // The list of items is only readable now, before the first await.
    const entries = Array.from(event.dataTransfer?.items ?? [], (item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
    const files = (await Promise.all(entries.map((entry) => filesBelow(entry)))).flat();
    if (files.length > 0) onFiles(files.slice(0, MOST_FILES));
  });
}

/**
 * @param {FileSystemEntry} entry
 * @returns {Promise<NamedBlob[]>}
 */
async function filesBelow(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject));
    return [{ name: entry.fullPath.replace(/^\//, ""), blob: file }];
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  const files = [];
  // A directory is read in parts, until an empty one.
  while (files.length < MOST_FILES) {
    /** @type {FileSystemEntry[]} */
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) break;
    for (const child of part) files.push(...(await filesBelow(child)));
  }
  return files;
}
