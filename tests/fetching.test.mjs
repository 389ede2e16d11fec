// From sources to files, against servers on this machine: a hub, a plain folder, and every refusal.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { chooseFiles, shardsOf } from "../www/fetching/choose.js";
import { gather } from "../www/fetching/gather.js";
import { Downloads, sweepDownloads } from "../www/fetching/storage.js";
import { readParameters } from "../www/page/parameters.js";
import { imitateHub } from "./browser/hub.mjs";
import { close, listen } from "./browser/site.mjs";
import { fakePlatform, REFUSALS } from "./opfs.mjs";

/** @import { RequestListener } from "node:http" */
/** @import { NamedBlob, WireSource } from "../www/protocol.js" */

/** Larger than what is kept in memory. */
const LARGE = 17 * 1024 * 1024;

/**
 * @param {WireSource} source
 * @param {{ hub?: string, site?: string, downloads?: Downloads, onConfig?: (config: NamedBlob) => void }} [given]
 */
async function gathered(source, { hub = "", site = "", downloads = new Downloads({}), onConfig = () => {} } = {}) {
  /** @type {{ file: string, done: number, total: number }[]} */
  const progress = [];
  const files = await gather(source, { hub, site, downloads, onProgress: (news) => progress.push(news), onConfig });
  return { files, progress };
}

/** @param {NamedBlob[]} files */
const texts = async (files) => Object.fromEntries(await Promise.all(files.map(async ({ name, blob }) => [name, await blob.text()])));

/** @param {Record<string, string | Buffer>} files */
const contents = (files) => new Map(Object.entries(files).map(([path, content]) => [path, Buffer.from(content)]));

/**
 * A server for the length of one call.
 *
 * @param {RequestListener} answer
 * @param {(url: string) => Promise<void>} use
 */
async function serving(answer, use) {
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
const folder = (files, asked = [], absent = 404) => (request, response) => {
  const path = decodeURIComponent((request.url ?? "/").slice(1));
  asked.push(path);
  const content = files[path];
  if (content === undefined) response.writeHead(absent).end();
  else response.writeHead(200, { "Content-Length": Buffer.byteLength(content) }).end(content);
};

describe("which files are needed", () => {
  const choose = (/** @type {string[]} */ ...paths) => chooseFiles(paths, "the files given");

  test("safetensors before pickles, tokenizer.json before vocab.json, and nothing else", () => {
    const all = ["README.md", "config.json", "merges.txt", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "tokenizer.json", "vocab.json"];
    assert.deepEqual(choose(...all), { small: ["config.json", "tokenizer.json"], weights: ["model.safetensors"], index: null });
    assert.deepEqual(choose("config.json", "merges.txt", "pytorch_model.bin", "vocab.json"), {
      small: ["config.json", "vocab.json", "merges.txt"],
      weights: ["pytorch_model.bin"],
      index: null,
    });
  });

  test("the folder of the shallowest config.json, and no conversions below it", () => {
    const chosen = choose("m/onnx/config.json", "m/onnx/model.safetensors", "m/tokenizer.json", "m/config.json", "m/model.safetensors");
    assert.deepEqual(chosen, { small: ["m/config.json", "m/tokenizer.json"], weights: ["m/model.safetensors"], index: null });
  });

  test("shards by their index, or by their names", () => {
    const small = ["config.json", "tokenizer.json"];
    const shards = ["x-00001-of-00002.safetensors", "x-00002-of-00002.safetensors"];
    assert.equal(choose(...small, ...shards, "model.safetensors.index.json").index, "model.safetensors.index.json");
    assert.deepEqual(choose(...small, ...shards).weights, shards);
    assert.deepEqual(choose(...small, "mine.safetensors").weights, ["mine.safetensors"]);
  });

  // The same cases as in crate/src/files.rs, which chooses for programs without a page.
  test("one set of weights, where a folder holds them several times", () => {
    const weights = (/** @type {string[]} */ ...paths) => choose("config.json", "tokenizer.json", ...paths).weights;
    const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    assert.deepEqual(weights("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"), ["model.safetensors"]);
    assert.deepEqual(weights("pytorch_model.bin", "flax.safetensors"), ["pytorch_model.bin"]);
    assert.deepEqual(weights(...shards, "pytorch_model.bin"), shards);
    assert.deepEqual(weights(...shards, "model.safetensors"), ["model.safetensors"]);
    assert.deepEqual(weights(...shards, "model.fp16-00001-of-00001.safetensors"), shards);
    assert.deepEqual(weights("tiny-00001-of-00001.bin", "training_args.bin"), ["tiny-00001-of-00001.bin"]);
    assert.deepEqual(weights("my model.bin", "optimizer.bin"), ["my model.bin"]);
  });

  test("what is missing is named, with what there is", () => {
    const missing = (/** @type {string[]} */ paths, /** @type {RegExp} */ message) =>
      assert.throws(() => choose(...paths), { code: "missing-file", message });
    missing(["notes.txt"], /config\.json is not among the files given, which are notes\.txt/);
    missing(["config.json", "vocab.json"], /merges\.txt/);
    missing(["config.json", "tokenizer.json", "tf_model.h5"], /no weights.*tf_model\.h5/);
    missing(["config.json", "tokenizer.json", "a.safetensors", "b.safetensors"], /a\.safetensors and b\.safetensors/);
    missing(["config.json", "tokenizer.json", "x-00002-of-00003.bin", "x-00003-of-00003.bin"], /of 3 shards, 2 are among the files given: x-00002/);
    missing(["config.json", "tokenizer.json", "a-00001-of-00001.bin", "b-00001-of-00001.bin"], /different sets/);
    missing(["config.json", "tokenizer.json", "model-00001-of-00002.safetensors"], /of 2 shards, 1/);
    missing([], /none/);
  });

  test("an index may name files beside it, and nothing else", () => {
    assert.deepEqual(shardsOf('{"weight_map":{"a":"s2.bin","b":"s1.bin","c":"s2.bin"}}', "m/i.json"), ["m/s1.bin", "m/s2.bin"]);
    for (const text of ["{", "[]", '{"weight_map":{}}', '{"weight_map":{"a":"../s"}}', '{"weight_map":{"a":1}}', '{"weight_map":{"a":"https://x/s"}}']) {
      assert.throws(() => shardsOf(text, "i.json"), { code: "bad-file", message: /^i\.json: / }, text);
    }
  });
});

describe("local files", () => {
  const file = (/** @type {string} */ name, text = name) => ({ name, blob: new Blob([text]) });

  test("are named by their last part", async () => {
    const files = ["m/config.json", "m/tokenizer.json", "m/model.safetensors", "m/README.md"].map((name) => file(name));
    assert.deepEqual(await texts((await gathered({ kind: "files", files })).files), {
      "config.json": "m/config.json",
      "tokenizer.json": "m/tokenizer.json",
      "model.safetensors": "m/model.safetensors",
    });
  });

  test("an index whose shard is not there names it", async () => {
    const index = file("pytorch_model.bin.index.json", '{"weight_map":{"a":"p-1.bin","b":"p-2.bin"}}');
    const files = [file("config.json"), file("tokenizer.json"), file("p-1.bin"), index];
    await assert.rejects(gathered({ kind: "files", files }), { code: "missing-file", message: /p-2\.bin/ });
    const { files: chosen } = await gathered({ kind: "files", files: [...files, file("p-2.bin")] });
    assert.deepEqual(chosen.map(({ name }) => name), ["config.json", "tokenizer.json", "p-1.bin", "p-2.bin"]);
  });
});

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

describe("storage", () => {
  const weights = Buffer.alloc(LARGE, 7);
  const large = () => folder(/** @type {any} */ ({ "config.json": "{}", "tokenizer.json": "{}", "model.safetensors": weights }));

  test("a large file lies in the file system until it is released, a small one in memory", async () => {
    const { folders, held, platform } = fakePlatform();
    const downloads = new Downloads(platform);
    await serving(large(), async (url) => {
      const { files } = await gathered({ kind: "url", url }, { downloads });
      const blob = files.find(({ name }) => name === "model.safetensors")?.blob;
      assert.deepEqual(Buffer.from(await /** @type {Blob} */ (blob).arrayBuffer()), weights);
    });
    assert.deepEqual([...folders.values()].map((files) => [...files.keys()]), [["model.safetensors"]]);
    assert.equal(held.size, 1);
    await downloads.release();
    await new Promise((resolve) => setTimeout(resolve, 1));
    assert.equal(folders.size, 0);
    assert.equal(held.size, 0);
  });

  test("without a file system, a large file lies in memory", async () => {
    await serving(large(), async (url) => {
      const { files } = await gathered({ kind: "url", url });
      assert.equal(files.at(-1)?.blob.size, LARGE);
    });
  });

  test("a disk that is known to be too small is refused before the download, one that fills up when it does", async () => {
    for (const limits of [{ quota: 1e6 }, { room: 5e6 }]) {
      const { folders, platform } = fakePlatform(limits);
      const downloads = new Downloads(platform);
      await serving(large(), async (url) => {
        const message = limits.quota ? /model\.safetensors has 17\.8 MB.*1\.0 MB more/ : /could not be stored after [\d.]+ MB/;
        await assert.rejects(gathered({ kind: "url", url }, { downloads }), { code: "disk-full", message });
      });
      assert.ok([...folders.values()].every((files) => files.size === 0));
      await downloads.release();
      assert.equal(folders.size, 0);
    }
  });

  test("a browser that refuses the file system or its locks keeps a large file in memory, and leaves nothing behind", async () => {
    for (const refuses of REFUSALS) {
      const { folders, held, platform } = fakePlatform({ refuses });
      const downloads = new Downloads(platform);
      await sweepDownloads(platform, 10);
      await serving(large(), async (url) => {
        const { files } = await gathered({ kind: "url", url }, { downloads });
        assert.equal(files.at(-1)?.blob.size, LARGE, refuses);
      });
      await downloads.release();
      await new Promise((resolve) => setTimeout(resolve, 1));
      assert.equal(held.size, 0, refuses);
      assert.ok([...folders.values()].every((files) => files.size === 0), refuses);
    }
  });

  test("what an ended load left behind is swept away, and what a living one holds is not", async () => {
    const { folders, held, platform } = fakePlatform();
    const alive = new Downloads(platform);
    await alive.sink("a.bin", LARGE);
    const [name] = folders.keys();
    folders.set("left behind", new Map([["b.bin", []]]));
    await sweepDownloads(platform, 10);
    assert.deepEqual([...folders.keys()], [name]);
    held.clear(); // its worker was ended
    await sweepDownloads(platform, 10);
    assert.equal(folders.size, 0);
  });
});

test("a file that is still open is removed when it is not", async () => {
  const { folders, platform } = fakePlatform({ inUse: 2 });
  folders.set("left behind", new Map());
  await sweepDownloads(platform);
  assert.equal(folders.size, 0);
});

test("the page's address may name a hub on this machine only", () => {
  assert.deepEqual(readParameters("?hub=http://127.0.0.1:8000&build=simd128"), { hub: "http://127.0.0.1:8000", build: "simd128" });
  assert.deepEqual(readParameters("?hub=http://localhost:8000"), { hub: "http://localhost:8000" });
  for (const hub of ["https://example.org", "http://127.0.0.1.example.org", "//127.0.0.1", "http://127.0.0.1@example.org", "javascript:alert(1)"]) {
    assert.deepEqual(readParameters(`?hub=${encodeURIComponent(hub)}&build=fastest`), {}, hub);
  }
});
