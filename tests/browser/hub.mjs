// A model hub on this machine: the listing, the redirect of large files to another host, ranges and refusals, as the
// public one documents them.

import { createHash, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { close, listen } from "./site.mjs";

/** @import { IncomingMessage, ServerResponse } from "node:http" */

/** Files at least this large are kept by the other host. */
const LARGE_BYTES = 10_000;

/** A page of the listing; the public hub's are longer. */
const ENTRIES_PER_PAGE = 3;

const COMMIT = "0123456789abcdef0123456789abcdef01234567";

const EXPOSED = "ETag, Link, Content-Range, X-Repo-Commit, X-Linked-Size, X-Linked-ETag, X-Error-Code, X-Error-Message";

/**
 * @typedef {object} Repository
 * @property {Map<string, Buffer>} files by path
 * @property {boolean} [gated]
 * @property {string} [cut] the path of a file whose transfer breaks off in the middle
 * @property {string} [slow] the path of a file that comes in a trickle
 * @property {{ path: string, until: Promise<unknown> }} [held] a file of which the first half comes, and then the rest
 */

/**
 * @typedef {object} Hub
 * @property {string} url without a slash at its end
 * @property {Map<string, Repository>} repositories by owner/name
 * @property {string[]} requests paths asked of either host, in order
 * @property {() => void} close
 */

/** @returns {Promise<Hub>} */
export async function imitateHub() {
  /** @type {Map<string, Repository>} */
  const repositories = new Map();
  /** @type {string[]} */
  const requests = [];
  let storage = "";

  const hub = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://localhost");
    requests.push(url.pathname);
    allow(request, response);
    const [, name, revision = ""] = /^\/api\/models\/([^/]+\/[^/]+)\/tree\/([^/]+)$/.exec(url.pathname) ?? [];
    if (name) return list(response, url, found(response, name, revision));
    const [, owner, at = "", path = ""] = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname) ?? [];
    if (owner) return resolve(response, owner, decodeURIComponent(path), found(response, owner, at));
    refuse(response, 404, "EntryNotFound");
  });

  const large = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://localhost");
    requests.push(url.pathname);
    allow(request, response);
    const [, name, path] = /^\/large\/([^/]+\/[^/]+)\/(.+)$/.exec(decodeURIComponent(url.pathname)) ?? [];
    const repository = repositories.get(name ?? "");
    const bytes = repository?.files.get(path ?? "");
    if (!repository || !bytes || !url.searchParams.has("signature")) return refuse(response, 403, "AccessDenied");
    if (repository.cut === path) return cut(response, bytes);
    if (repository.slow === path) return trickle(response, bytes);
    const { held } = repository;
    if (held && held.path === path) return hold(response, bytes, held.until);
    send(request, response, bytes);
  });

  /**
   * @param {ServerResponse} response
   * @param {string} name
   * @param {string} revision
   */
  function found(response, name, revision) {
    const repository = repositories.get(name);
    // The public hub does not tell an absent repository from a private one.
    if (!repository) return void refuse(response, 401, "RepoNotFound");
    if (repository.gated) return void refuse(response, 403, "GatedRepo");
    if (revision !== "main" && revision !== COMMIT) return void refuse(response, 404, "RevisionNotFound");
    return repository;
  }

  /**
   * @param {ServerResponse} response
   * @param {URL} url
   * @param {Repository | undefined} repository
   */
  function list(response, url, repository) {
    if (!repository) return;
    const all = [...repository.files].map(([path, bytes]) => entry(path, bytes));
    const from = Number(url.searchParams.get("cursor") ?? 0);
    const page = all.slice(from, from + ENTRIES_PER_PAGE);
    if (from + ENTRIES_PER_PAGE < all.length) {
      url.searchParams.set("cursor", String(from + ENTRIES_PER_PAGE));
      response.setHeader("Link", `<${hubUrl}${url.pathname}${url.search}>; rel="next"`);
    }
    response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(page));
  }

  /**
   * @param {ServerResponse} response
   * @param {string} name
   * @param {string} path
   * @param {Repository | undefined} repository
   */
  function resolve(response, name, path, repository) {
    if (!repository) return;
    const bytes = repository.files.get(path);
    if (!bytes) return refuse(response, 404, "EntryNotFound");
    response.setHeader("X-Repo-Commit", COMMIT);
    if (bytes.length < LARGE_BYTES) {
      response.setHeader("ETag", `"${gitSha1(bytes)}"`);
      response.writeHead(200, { "Content-Length": bytes.length }).end(bytes);
      return;
    }
    const location = `${storage}/large/${name}/${encodeURIComponent(path)}?signature=${randomUUID()}`;
    response.setHeader("X-Linked-Size", String(bytes.length));
    response.setHeader("X-Linked-ETag", `"${sha256(bytes)}"`);
    response.writeHead(302, { Location: location }).end();
  }

  storage = `http://127.0.0.1:${await listen(large)}`;
  const hubUrl = `http://127.0.0.1:${await listen(hub)}`;
  return {
    url: hubUrl,
    repositories,
    requests,
    close() {
      close(hub);
      close(large);
    },
  };
}

/**
 * @param {IncomingMessage} request
 * @param {ServerResponse} response
 */
function allow(request, response) {
  response.setHeader("Access-Control-Allow-Origin", request.headers.origin ?? "*");
  response.setHeader("Access-Control-Expose-Headers", EXPOSED);
}

/**
 * @param {ServerResponse} response
 * @param {number} status
 * @param {string} code
 */
function refuse(response, status, code) {
  response.setHeader("X-Error-Code", code);
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify({ error: code }));
}

/**
 * @param {IncomingMessage} request
 * @param {ServerResponse} response
 * @param {Buffer} bytes
 */
function send(request, response, bytes) {
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
  if (from === undefined) {
    response.writeHead(200, { "Content-Length": bytes.length, "Accept-Ranges": "bytes" }).end(bytes);
    return;
  }
  const part = bytes.subarray(Number(from), to ? Number(to) + 1 : undefined);
  response.setHeader("Content-Range", `bytes ${from}-${Number(from) + part.length - 1}/${bytes.length}`);
  response.writeHead(206, { "Content-Length": part.length }).end(part);
}

/**
 * @param {ServerResponse} response
 * @param {Buffer} bytes
 */
function cut(response, bytes) {
  response.writeHead(200, { "Content-Length": bytes.length });
  response.write(bytes.subarray(0, bytes.length >> 1), () => setTimeout(() => response.destroy(), 50));
}

/**
 * @param {ServerResponse} response
 * @param {Buffer} bytes
 */
function trickle(response, bytes) {
  response.writeHead(200, { "Content-Length": bytes.length });
  let sent = 0;
  const timer = setInterval(() => {
    const part = bytes.subarray(sent, (sent += 2048));
    if (part.length > 0) response.write(part);
    else clearInterval(timer), response.end();
  }, 100);
  response.on("close", () => clearInterval(timer));
}

/**
 * @param {ServerResponse} response
 * @param {Buffer} bytes
 * @param {Promise<unknown>} until
 */
function hold(response, bytes, until) {
  response.writeHead(200, { "Content-Length": bytes.length });
  response.write(bytes.subarray(0, bytes.length >> 1));
  void until.then(() => response.end(bytes.subarray(bytes.length >> 1)));
}

/**
 * @param {string} path
 * @param {Buffer} bytes
 */
function entry(path, bytes) {
  const common = { type: "file", path, size: bytes.length, oid: gitSha1(bytes) };
  return bytes.length < LARGE_BYTES ? common : { ...common, lfs: { oid: sha256(bytes), size: bytes.length } };
}

/** @param {Buffer} bytes */
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** @param {Buffer} bytes */
const gitSha1 = (bytes) => createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
