// Where downloaded bytes rest until the model is loaded: large files in the origin private file system, small ones in Blobs.
//
// Every load has a folder of its own, under a lock that lasts as long as its worker. A folder without a lock was left
// behind by a worker that was ended, or by a closed tab, and is swept away.
//
// A browser may refuse the file system or the locks (a private window, blocked site data). Large files then rest in Blobs
// too: whatever memory and temporary files the browser grants them is the limit, and nothing can be left behind.

import { EngineError, messageOf } from "../errors.js";

const ROOT = "vitrine-downloads";

/** Files at least this large go to disk, if there is one to be had. */
const LARGE_BYTES = 16 * 1024 * 1024;

/** A Blob in the making is put together in parts of this size, so that the script's heap stays small. */
const PART_BYTES = 4 * 1024 * 1024;

/**
 * What is needed of `navigator`; tests hand in their own.
 *
 * @typedef {{ storage?: StorageManager, locks?: LockManager }} Platform
 */

/**
 * Where the bytes of one file go, in order.
 *
 * @typedef {object} Sink
 * @property {(bytes: Uint8Array<ArrayBuffer>) => void} write throws an EngineError `disk-full`
 * @property {() => Promise<Blob>} finish
 * @property {() => Promise<void>} discard
 */

/**
 * What workers alone have, and TypeScript's DOM types therefore lack.
 *
 * @typedef {{
 *   write(bytes: Uint8Array, options: { at: number }): number, truncate(size: number): void, flush(): void, close(): void,
 * }} SyncAccessHandle
 * @typedef {FileSystemFileHandle & { createSyncAccessHandle(): Promise<SyncAccessHandle> }} WorkerFileHandle
 */

/** @returns {Platform} */
const thisPlatform = () => globalThis.navigator ?? {};

/** The downloads of one load. */
export class Downloads {
  #platform;
  /** @type {Promise<FileSystemDirectoryHandle | null> | null} */
  #folder = null;
  #name = "";
  #unlock = () => {};

  /** @param {Platform} [platform] */
  constructor(platform = thisPlatform()) {
    this.#platform = platform;
  }

  /**
   * @param {string} file its name, for messages
   * @param {number | null} size in bytes; null if nobody knows it yet
   * @returns {Promise<Sink>}
   * @throws {EngineError} `disk-full` if the size is known not to fit
   */
  async sink(file, size) {
    if (size !== null && size < LARGE_BYTES) return memorySink();
    this.#folder ??= this.#openFolder();
    const folder = await this.#folder;
    if (!folder) return memorySink();
    await this.#refuseIfFull(file, size);
    return (await fileSink(folder, file)) ?? memorySink();
  }

  /** Gives the space back. Blobs of large files cannot be read afterwards. */
  async release() {
    const folder = await this.#folder;
    this.#folder = null;
    if (folder) {
      const root = await openRoot(this.#platform);
      await root?.removeEntry(this.#name, { recursive: true }).catch(() => {}); // swept later
    }
    this.#unlock();
  }

  /** Null where there is no such file system, or none to be had: a private window, an insecure origin, Chrome before 102. */
  async #openFolder() {
    const handles = globalThis.FileSystemFileHandle?.prototype;
    if (handles && !("createSyncAccessHandle" in handles)) return null;
    const root = await openRoot(this.#platform);
    if (!root) return null;
    try {
      this.#name = crypto.randomUUID();
      await this.#lock();
      return await root.getDirectoryHandle(this.#name, { create: true });
    } catch {
      this.#unlock(); // a folder without a lock would be swept away while it is in use
      return null;
    }
  }

  #lock() {
    return new Promise((locked, failed) => {
      const held = new Promise((unlock) => (this.#unlock = () => unlock(undefined)));
      const whileLocked = () => {
        locked(undefined);
        return held;
      };
      this.#platform.locks?.request(lockOf(this.#name), whileLocked).catch(failed);
    });
  }

  /**
   * @param {string} file
   * @param {number | null} size
   */
  async #refuseIfFull(file, size) {
    // Where nobody says how much there is, the disk says it when it is full.
    const { quota, usage } = (await this.#platform.storage?.estimate().catch(() => null)) ?? {};
    if (size === null || quota === undefined || usage === undefined || size <= quota - usage) return;
    const free = Math.max(0, quota - usage);
    throw diskFull(`${file} has ${megabytes(size)}, and this browser lets the site store ${megabytes(free)} more`);
  }
}

/**
 * Removes what ended loads left behind. Never rejects: what cannot be removed now is left to the next sweep.
 *
 * @param {Platform} [platform]
 * @param {number} [patienceMs] how long to wait for a worker that is just being ended
 */
export async function sweepDownloads(platform = thisPlatform(), patienceMs = 5000) {
  const root = await openRoot(platform);
  if (!root) return;
  /** @type {string[]} */
  const names = [];
  try {
    for await (const name of root.keys()) names.push(name);
  } catch {
    return;
  }
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), patienceMs);
  const giveUp = patience.signal;
  await Promise.allSettled(
    names.map((name) => platform.locks?.request(lockOf(name), { signal: giveUp }, () => remove(root, name, giveUp))),
  );
  clearTimeout(timer);
}

/**
 * A worker's lock may be free a moment before its open file is.
 *
 * @param {FileSystemDirectoryHandle} root
 * @param {string} name
 * @param {AbortSignal} giveUp
 */
async function remove(root, name, giveUp) {
  while (!giveUp.aborted) {
    try {
      return await root.removeEntry(name, { recursive: true });
    } catch (error) {
      if (error instanceof DOMException && error.name === "NotFoundError") return;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

/** @param {string} name */
const lockOf = (name) => `${ROOT}/${name}`;

/** @param {Platform} platform */
async function openRoot(platform) {
  try {
    const { storage, locks } = platform;
    if (!locks || !storage?.getDirectory) return null;
    return await (await storage.getDirectory()).getDirectoryHandle(ROOT, { create: true });
  } catch {
    return null; // private windows of some browsers refuse
  }
}

/** @returns {Sink} */
function memorySink() {
  /** @type {Blob[]} */
  const parts = [];
  /** @type {Uint8Array<ArrayBuffer>[]} */
  let chunks = [];
  let pending = 0;
  const flush = () => {
    parts.push(new Blob(chunks));
    chunks = [];
    pending = 0;
  };
  return {
    write(bytes) {
      chunks.push(bytes);
      pending += bytes.length;
      if (pending >= PART_BYTES) flush();
    },
    async finish() {
      flush();
      return new Blob(parts);
    },
    async discard() {
      parts.length = chunks.length = 0;
    },
  };
}

/**
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} file
 * @returns {Promise<Sink | null>} null where the browser opens no file, for another reason than that the disk is full
 */
async function fileSink(folder, file) {
  const name = file.replaceAll("/", "_");
  let offset = 0;
  const refused = (/** @type {unknown} */ error) =>
    diskFull(`${file} could not be stored after ${megabytes(offset)}: ${messageOf(error)}`, error);
  let handle;
  /** @type {SyncAccessHandle} */
  let access;
  try {
    handle = /** @type {WorkerFileHandle} */ (await folder.getFileHandle(name, { create: true }));
    access = await handle.createSyncAccessHandle();
  } catch (error) {
    if (error instanceof DOMException && error.name === "QuotaExceededError") throw refused(error);
    return null;
  }
  return {
    write(bytes) {
      try {
        const written = access.write(bytes, { at: offset });
        offset += written;
        if (written < bytes.length) throw new Error("the disk took only a part of it");
      } catch (error) {
        throw refused(error);
      }
    },
    async finish() {
      try {
        // Promises before Chrome 108.
        await access.flush();
        await access.close();
        return await handle.getFile();
      } catch (error) {
        throw refused(error);
      }
    },
    async discard() {
      access.close();
      await folder.removeEntry(name).catch(() => {}); // swept later
    },
  };
}

/**
 * @param {string} what
 * @param {unknown} [cause]
 */
function diskFull(what, cause) {
  return new EngineError(
    "disk-full",
    `there is no room for the download: ${what}. Free some space, or download the files yourself and open them.`,
    cause,
  );
}

/** @param {number} bytes */
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
