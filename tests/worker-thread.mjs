// Runs worker.js in a thread of Node: the few names of a browser's worker that it uses, and files in place of a server.

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parentPort, workerData } from "node:worker_threads";

Object.assign(globalThis, {
  self: {
    postMessage: (/** @type {unknown} */ message) => parentPort?.postMessage(message),
    addEventListener(/** @type {string} */ type, /** @type {(event: { data: unknown }) => void} */ listener) {
      parentPort?.on(type, (data) => listener({ data }));
    },
  },
  // Node takes up to a thousand messages of one port before it looks at the next; a browser takes them as they came.
  MessageChannel: class {
    port1 = { onmessage() {} };
    port2 = { postMessage: () => setImmediate(() => this.port1.onmessage()) };
  },
  fetch: async (/** @type {URL} */ url) => new Response(await readFile(fileURLToPath(url))),
});

await import(workerData.url);
