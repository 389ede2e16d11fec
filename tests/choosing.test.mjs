// Which of many files are those of a model.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { chooseFiles, shardsOf } from "../www/fetching/choose.js";
import { gathered, texts } from "./gathering.mjs";

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
