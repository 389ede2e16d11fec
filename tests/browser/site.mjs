// A plain web host: the assembled site under a sub-path, with no header that a static host would not send.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder that `cargo xtask site` makes. */
export const SITE = process.env.VITRINE_SITE ?? fileURLToPath(new URL("../../target/site", import.meta.url));

const PREFIX = "/some/sub/path/";

/** What the host serves beside the site, below the same path: the benchmark's own worker, and the models as the repository has them. */
const BESIDE = [
  { folder: fileURLToPath(new URL("./bench/", import.meta.url)), path: "bench/" },
  { folder: fileURLToPath(new URL("../../www/models/", import.meta.url)), path: "sources/" },
];

/** @type {Record<string, string>} */
const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/**
 * @typedef {object} Host
 * @property {string} url of the site's root, with the slash at its end
 * @property {string[]} missing paths that were asked for and not found
 * @property {() => void} close
 */

/** @returns {Promise<Host>} */
export async function hostSite() {
  /** @type {string[]} */
  const missing = [];
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const relative = pathname.startsWith(PREFIX) ? normalize(decodeURIComponent(pathname.slice(PREFIX.length))) : "..";
    const beside = BESIDE.find(({ path }) => relative.startsWith(path));
    const file = beside
      ? join(beside.folder, relative.slice(beside.path.length))
      : join(SITE, relative === "." ? "index.html" : relative);
    const found = relative.startsWith("..") ? null : await stat(file).catch(() => null);
    if (!found?.isFile()) {
      if (pathname !== "/favicon.ico") missing.push(pathname); // browsers ask for it of themselves
      response.writeHead(404, { "Content-Type": "text/plain" }).end("Not found\n");
      return;
    }
    response.writeHead(200, {
      "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
      "Content-Length": found.size,
    });
    createReadStream(file).pipe(response);
  });
  const port = await listen(server);
  return { url: `http://127.0.0.1:${port}${PREFIX}`, missing, close: () => close(server) };
}

/**
 * @param {import("node:http").Server} server
 * @returns {Promise<number>} the port
 */
export function listen(server) {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => resolve(/** @type {import("node:net").AddressInfo} */ (server.address()).port));
  });
}

/** @param {import("node:http").Server} server */
export function close(server) {
  server.close();
  server.closeAllConnections();
}
