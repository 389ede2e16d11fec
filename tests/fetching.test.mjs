// From sources to files, against servers on this machine: a hub, a plain folder, and every refusal.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { imitateHub } from "./browser/hub.mjs";
import { contents, folder, gathered, serving, texts } from "./gathering.mjs";

/** @import { RequestListener } from "node:http" */
/** @import { NamedBlob } from "../www/protocol.js" */

describe("the hub", () => {
  /** @type {Awaited<ReturnType<typeof imitateHub>>} */
  let hub;
  before(async () => void (hub = await imitateHub()));
  after(() => hub.close());
  const repository = (/** @type {string} */ name, revision = "main") => gathered({ kind: "hub", repository: name, revision }, { hub: hub.url });

  test("lists the repository over its pages, and fetches what is needed, with progress", async () => {
    const weights = "w".repeat(50_000);
    const files = contents({
      ".gitattributes": "x",
      "README.md": "x",
      "config.json": "{}",
      "merges.txt": "m",
      "onnx/model.safetensors": "o",
      "pytorch_model.bin": weights,
      "tf_model.h5": "t",
      "vocab.json": "v",
    });
    hub.repositories.set("a/opt", { files });
    const { files: got, progress } = await repository("a/opt");
    assert.deepEqual(await texts(got), { "config.json": "{}", "vocab.json": "v", "merges.txt": "m", "pytorch_model.bin": weights });
    assert.ok(progress.every(({ total }) => total === 50_004)); // known from the listing
    assert.deepEqual(progress.at(-1), { file: "pytorch_model.bin", done: 50_004, total: 50_004 });
    assert.ok(!hub.requests.some((path) => path.includes("tf_model")));
  });

  test("a config that is refused ends it before the weights are asked for", async () => {
    hub.repositories.set("a/bert", { files: contents({ "config.json": "{}", "model.safetensors": "w", "tokenizer.json": "{}" }) });
    hub.requests.length = 0;
    const onConfig = (/** @type {NamedBlob} */ { name }) => {
      throw new Error(`${name} refused`);
    };
    const source = /** @type {const} */ ({ kind: "hub", repository: "a/bert", revision: "main" });
    await assert.rejects(gathered(source, { hub: hub.url, onConfig }), /config\.json refused/);
    assert.ok(hub.requests.some((path) => path.endsWith("config.json")));
    assert.ok(!hub.requests.some((path) => path.endsWith("model.safetensors")));
  });

  test("shards come in their index's order", async () => {
    const index = JSON.stringify({ weight_map: { a: "s-00002-of-00002.safetensors", b: "s-00001-of-00002.safetensors" } });
    const files = contents({
      "config.json": "{}",
      "model.safetensors.index.json": index,
      "s-00001-of-00002.safetensors": "one",
      "s-00002-of-00002.safetensors": "two",
      "tokenizer.json": "{}",
    });
    hub.repositories.set("a/shards", { files });
    const { files: got } = await repository("a/shards");
    assert.deepEqual(got.map(({ name }) => name), ["config.json", "tokenizer.json", "s-00001-of-00002.safetensors", "s-00002-of-00002.safetensors"]);
  });

  test("an absent repository, an absent revision and a gated one are told apart", async () => {
    hub.repositories.set("a/gated", { files: contents({}), gated: true });
    hub.repositories.set("a/empty", { files: contents({ "README.md": "" }) });
    await assert.rejects(repository("a/none"), { code: "unauthorized", message: /a\/none: it does not exist, or is private/ });
    await assert.rejects(repository("a/empty", "v9"), { code: "not-found" });
    await assert.rejects(repository("a/gated"), { code: "forbidden", message: /conditions/ });
    await assert.rejects(repository("a/empty"), { code: "missing-file", message: /the files of a\/empty.*README\.md/ });
  });

  test("a connection that breaks off is a network error that says how far it came", async () => {
    const files = contents({ "config.json": "{}", "tokenizer.json": "{}", "model.safetensors": "w".repeat(40_000) });
    hub.repositories.set("a/cut", { files, cut: "model.safetensors" });
    await assert.rejects(repository("a/cut"), { code: "network-error", message: /model\.safetensors: the connection was lost after \d+ of 40000 bytes/ });
  });

  test("a hub that does not answer, or not with a list", async () => {
    const from = (/** @type {string} */ hub) => gathered({ kind: "hub", repository: "a/b", revision: "main" }, { hub });
    await assert.rejects(from("http://127.0.0.1:1"), { code: "network-error", message: /127\.0\.0\.1:1/ });
    await serving((_, response) => void response.end("<html>"), async (url) => {
      await assert.rejects(from(url.slice(0, -1)), { code: "http-error", message: /list of files/ });
    });
  });

  test("a list may hold entries that make no sense", async () => {
    const odd = [null, 3, "config.json", [], {}, { type: "file" }, { type: "file", path: 3 }, { type: "directory", path: "onnx" }];
    const sizes = { "config.json": "2", "tokenizer.json": -2, "model.safetensors": null };
    const files = Object.entries(sizes).map(([path, size]) => ({ type: "file", path, size, lfs: null }));
    await serving((request, response) => {
      const list = request.url?.startsWith("/api/");
      response.writeHead(200, list ? { Link: '<http://[>; rel="next"' } : {}).end(list ? JSON.stringify([...odd, ...files]) : "{}");
    }, async (url) => {
      const source = /** @type {const} */ ({ kind: "hub", repository: "a/b", revision: "main" });
      const { files: got } = await gathered(source, { hub: url.slice(0, -1) });
      assert.deepEqual(got.map(({ name }) => name), Object.keys(sizes));
    });
  });

  test("a list does not lead to another host", async () => {
    await serving((_, response) => {
      response.writeHead(200, { Link: '<http://localhost:1/next>; rel="next"' }).end('[{"type":"file","path":"config.json","size":2}]');
    }, async (url) => {
      const source = /** @type {const} */ ({ kind: "hub", repository: "a/b", revision: "main" });
      await assert.rejects(gathered(source, { hub: url.slice(0, -1) }), { code: "missing-file" });
    });
  });
});

describe("a plain folder", () => {
  test("is asked for the files by name", async () => {
    const files = { "config.json": "{}", "merges.txt": "m", "pytorch_model.bin": "p", "vocab.json": "v" };
    // A bucket that strangers may not list forbids what it does not have.
    for (const absent of [404, 403]) {
      await serving(folder(files, [], absent), async (url) => {
        assert.deepEqual(await texts((await gathered({ kind: "url", url })).files), files);
      });
    }
  });

  test("shards, by the index", async () => {
    const files = { "config.json": "{}", "tokenizer.json": "{}", "model.safetensors.index.json": '{"weight_map":{"a":"s1.safetensors"}}', "s1.safetensors": "s" };
    await serving(folder(files), async (url) => {
      const { files: got } = await gathered({ kind: "url", url });
      assert.deepEqual(got.map(({ name }) => name), ["config.json", "tokenizer.json", "s1.safetensors"]);
    });
  });

  test("without config.json, or without weights, is not found, by name", async () => {
    /** @type {string[]} */
    const asked = [];
    await serving(folder({}, asked), async (url) => {
      await assert.rejects(gathered({ kind: "url", url }), { code: "not-found", message: /config\.json/ });
    });
    assert.deepEqual(asked, ["config.json"]);
    await serving(folder({ "config.json": "{}", "tokenizer.json": "{}" }), async (url) => {
      await assert.rejects(gathered({ kind: "url", url }), { code: "not-found", message: /model\.safetensors/ });
    });
  });

  test("the built-in model asks for its three files alone", async () => {
    /** @type {string[]} */
    const asked = [];
    const files = { "config.json": "{}", "tokenizer.json": "{}", "model.safetensors": "w" };
    const below = Object.fromEntries(Object.entries(files).map(([name, text]) => [`sub/models/storyteller/${name}`, text]));
    await serving(folder(below, asked), async (url) => {
      const { files: got } = await gathered({ kind: "builtin", name: "storyteller" }, { site: `${url}sub/` });
      assert.deepEqual(await texts(got), files);
    });
    assert.equal(asked.length, 3);
  });

  for (const [status, code, message, headers] of /** @type {const} */ ([
    [401, "unauthorized", /private/, {}],
    [403, "forbidden", /not allowed/, {}],
    [404, "not-found", /does not exist/, { "X-Error-Message": "gone for good" }],
    [429, "rate-limited", /in 30 s/, { "Retry-After": "30" }],
    [500, "http-error", /server failed/, {}],
    [418, "http-error", /refused/, {}],
  ])) {
    test(`${status} is ${code}`, async () => {
      await serving((_, response) => void response.writeHead(status, headers).end("no"), async (url) => {
        await assert.rejects(gathered({ kind: "url", url }), (/** @type {any} */ error) => {
          assert.equal(error.code, code);
          assert.match(error.message, message);
          assert.match(error.message, new RegExp(`config\\.json.*${status} from 127\\.0\\.0\\.1`));
          if ("X-Error-Message" in headers) assert.match(error.message, /gone for good/);
          return true;
        });
      });
    });
  }
});

describe("a size that was announced", () => {
  const FILES = ["config.json", "tokenizer.json", "model.safetensors"];

  /**
   * A hub that lists each of FILES with one size, and sends what `send` sends.
   *
   * @param {number} size
   * @param {(response: import("node:http").ServerResponse) => void} send
   * @returns {RequestListener}
   */
  const listing = (size, send) => (request, response) => {
    if (!request.url?.startsWith("/api/")) return send(response);
    response.end(JSON.stringify(FILES.map((path) => ({ type: "file", path, size }))));
  };

  /** @param {string} url */
  const fromHub = (url) => gathered({ kind: "hub", repository: "a/b", revision: "main" }, { hub: url.slice(0, -1) });

  test("must come, not less", async () => {
    await serving(listing(9, (response) => response.end("12345")), async (url) => {
      await assert.rejects(fromHub(url), { code: "short-download", message: /config\.json: 5 bytes came, but 9 were announced/ });
    });
  });

  test("is the most that is read, however much more there is", { timeout: 10_000 }, async () => {
    let sent = 0;
    const endless = (/** @type {import("node:http").ServerResponse} */ response) => {
      const part = Buffer.alloc(64 * 1024);
      const more = () => {
        if (response.destroyed) return;
        sent += part.length;
        response.write(part) ? setImmediate(more) : response.once("drain", more);
      };
      more();
    };
    await serving(listing(100_000, endless), async (url) => {
      const message = /config\.json: more than 100000 bytes came, but 100000 were announced/;
      await assert.rejects(fromHub(url), { code: "short-download", message });
    });
    assert.ok(sent < 50e6, `${sent} bytes were sent`);
  });

  test("a config of gigabytes is refused before it is asked for", async () => {
    await serving(listing(5e9, (response) => void response.destroy()), async (url) => {
      await assert.rejects(fromHub(url), { code: "bad-file", message: /config\.json: it has more than 67 MB/ });
    });
  });

  test("may have been that of compressed bytes, where another origin does not show that it compressed them", async (t) => {
    const compressible = "w".repeat(50_000);
    const tiny = "{}"; // has more bytes when it is compressed
    const sent = (/** @type {string} */ path) => (path.endsWith("safetensors") ? compressible : tiny);
    const { fetch } = globalThis;
    t.after(() => void (globalThis.fetch = fetch));
    globalThis.fetch = async (...request) => hidden(await fetch(...request));
    /** @type {RequestListener} */
    const compressing = (request, response) => {
      const path = request.url?.split("/").at(-1) ?? "";
      if (request.url?.startsWith("/api/")) {
        response.end(JSON.stringify(FILES.map((path) => ({ type: "file", path, size: sent(path).length }))));
        return;
      }
      if (!FILES.includes(path)) return void response.writeHead(404).end();
      const body = gzipSync(sent(path));
      response.writeHead(200, { "Content-Encoding": "gzip", "Content-Length": body.length }).end(body);
    };
    await serving(compressing, async (url) => {
      for (const { files } of [await fromHub(url), await gathered({ kind: "url", url })]) {
        assert.deepEqual(await texts(files), Object.fromEntries(FILES.map((path) => [path, sent(path)])));
      }
    });
  });
});

/**
 * An answer as a page sees it that asked another origin: of its headers, those that the Fetch standard lists as safe.
 *
 * @param {Response} response
 */
function hidden(response) {
  const headers = new Headers([...response.headers].filter(([name]) => name === "content-length"));
  const shown = { ok: response.ok, status: response.status, url: response.url, body: response.body, type: "cors", headers };
  return /** @type {Response} */ (/** @type {unknown} */ ({ ...shown, json: () => response.json() }));
}
