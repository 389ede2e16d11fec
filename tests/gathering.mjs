// Gathering files in a test: what a source gives, and servers that live as long as one call.

import { createServer } from "node:http";
import { gather } from "../www/fetching/gather.js";
import { Downloads } from "../www/fetching/storage.js";
import { close, listen } from "./browser/site.mjs";

/** @import { RequestListener } from "node:http" */
/** @import { NamedBlob, WireSource } from "../www/protocol.js" */

/**
 * @param {WireSource} source
 * @param {{ hub?: string, site?: string, downloads?: Downloads, onConfig?: (config: NamedBlob) => void }} [given]
 */
export async function gathered(source, { hub = "", site = "", downloads = new Downloads({}), onConfig = () => {} } = {}) {
  /** @type {{ file: string, done: number, total: number }[]} */
  const progress = [];
  const files = await gather(source, { hub, site, downloads, onProgress: (news) => progress.push(news), onConfig });
  return { files, progress };
}

/** @param {NamedBlob[]} files */
export const texts = async (files) => Object.fromEntries(await Promise.all(files.map(async ({ name, blob }) => [name, await blob.text()])));

/** @param {Record<string, string | Buffer>} files */
export const contents = (files) => new Map(Object.entries(files).map(([path, content]) => [path, Buffer.from(content)]));

/**
 * A server for the length of one call.
 *
 * @param {RequestListener} answer
 * @param {(url: string) => Promise<void>} use
 */
export async function serving(answer, use) {
  const server = createServer(answer);
  const url = `http://127.0.0.1:${await listen(server)}/`;
  try {
    await use(url);
  } finally {
    close(server);
  }
}

/**
 * @param {Record<string, string>} files
 * @param {string[]} [asked] filled with the paths that were asked for
 * @param {number} [absent] the status of a file that is not there
 * @returns {RequestListener}
 */
export const folder = (files, asked = [], absent = 404) => (request, response) => {
  const path = decodeURIComponent((request.url ?? "/").slice(1));
  asked.push(path);
  const content = files[path];
  if (content === undefined) response.writeHead(absent).end();
  else response.writeHead(200, { "Content-Length": Buffer.byteLength(content) }).end(content);
};
