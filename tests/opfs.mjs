// The origin private file system and the locks of a browser, in memory: as much of them as fetching/storage.js uses.

import assert from "node:assert/strict";

/** @import { Platform } from "../www/fetching/storage.js" */

/** Calls that a browser may refuse. */
export const REFUSALS = /** @type {const} */ (["storage", "locks", "getDirectory", "keys", "request", "folder", "estimate", "file"]);

/**
 * @typedef {object} FakePlatform
 * @property {Map<string, Map<string, Blob[]>>} folders of downloads: files' parts by folder and name
 * @property {Set<string>} held names of locks
 * @property {Platform} platform
 */

/**
 * @param {object} [limits]
 * @param {number} [limits.quota] as the estimate says
 * @param {number} [limits.room] bytes until a write fails
 * @param {number} [limits.inUse] removals that fail, because a file is still open
 * @param {typeof REFUSALS[number]} [limits.refuses] the call that is refused: the reading of a property, or what it does
 * @returns {FakePlatform}
 */
export function fakePlatform({ quota = 1e12, room = Infinity, inUse = 0, refuses } = {}) {
  const refuse = (/** @type {string} */ call) => {
    if (call === refuses) throw new DOMException("the browser does not allow it", "SecurityError");
  };

  /** @type {FakePlatform["folders"]} */
  const folders = new Map();
  /** @type {Set<string>} */
  const held = new Set();

  /** @param {Blob[]} parts */
  const access = (parts) => ({
    /**
     * @param {Uint8Array<ArrayBuffer>} part
     * @param {{ at: number }} options
     */
    write(part, { at }) {
      assert.equal(at, parts.reduce((size, part) => size + part.size, 0), "parts come in order");
      if (at + part.length > room) throw new DOMException("no space left", "QuotaExceededError");
      parts.push(new Blob([part]));
      return part.length;
    },
    flush() {},
    close() {},
  });

  /** @param {Map<string, Blob[]>} files */
  const folderHandle = (files) => ({
    async getFileHandle(/** @type {string} */ name) {
      /** @type {Blob[]} */
      const parts = [];
      files.set(name, parts);
      return {
        async createSyncAccessHandle() {
          refuse("file");
          return access(parts);
        },
        getFile: async () => new Blob(parts),
      };
    },
    removeEntry: async (/** @type {string} */ name) => void files.delete(name),
  });

  const root = {
    async getDirectoryHandle(/** @type {string} */ name) {
      refuse("folder");
      const files = folders.get(name) ?? new Map();
      folders.set(name, files);
      return folderHandle(files);
    },
    async removeEntry(/** @type {string} */ name) {
      if (inUse-- > 0) throw new DOMException("a file is open", "NoModificationAllowedError");
      folders.delete(name);
    },
    async *keys() {
      refuse("keys");
      yield* [...folders.keys()];
    },
  };

  const locks = {
    /**
     * @param {string} name
     * @param {...any} rest options, if any, and what to do under the lock
     */
    async request(name, ...rest) {
      refuse("request");
      const { signal } = rest.length > 1 ? rest[0] : {};
      while (held.has(name)) {
        signal?.throwIfAborted();
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      held.add(name);
      try {
        return await rest.at(-1)();
      } finally {
        held.delete(name);
      }
    },
  };

  const storage = {
    async getDirectory() {
      refuse("getDirectory");
      return { getDirectoryHandle: async () => root };
    },
    async estimate() {
      refuse("estimate");
      return { quota, usage: 0 };
    },
  };
  const platform = {
    get storage() {
      refuse("storage");
      return storage;
    },
    get locks() {
      refuse("locks");
      return locks;
    },
  };
  return { folders, held, platform: /** @type {Platform} */ (/** @type {unknown} */ (platform)) };
}
