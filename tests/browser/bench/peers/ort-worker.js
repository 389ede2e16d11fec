// The loop that onnxruntime leaves to its user: greedy, with the cache handed back at every step.

import * as ort from "/npm/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { answer } from "./worker.js";

let session, model;

answer({
  async load(blob, { threads, ...shape }) {
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = "/npm/onnxruntime-web/dist/";
    model = shape;
    session = await ort.InferenceSession.create(await blob.arrayBuffer(), { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
    return { version: ort.env.versions.web, threads: ort.env.wasm.numThreads };
  },

  async generate(ids, maxNewTokens) {
    const start = performance.now();
    const tokens = [];
    let cache = Array.from({ length: 2 * model.layers }, () => new ort.Tensor("float32", new Float32Array(0), [1, model.heads, 0, model.headSize]));
    let first, last, read = 0;
    for (let next = ids; tokens.length < maxNewTokens; next = [tokens.at(-1).id]) {
      const { logits, present } = await step(next, cache, read);
      cache = present;
      read += next.length;
      tokens.push(greedy(logits));
      last = performance.now();
      first ??= last;
    }
    // The sum over the vocabulary is for the comparison, and takes no part in the times.
    for (const token of tokens) token.logprob = token.logprob();
    return { firstMs: first - start, restMs: last - first, tokens };
  },
});

async function step(ids, cache, past) {
  const count = ids.length;
  const mask = new Float32Array(count * (past + count));
  for (let i = 0; i < count; i++) mask.fill(-1e9, i * (past + count) + past + i + 1, (i + 1) * (past + count));
  const feeds = {
    ids: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, count]),
    positions: new ort.Tensor("int64", BigInt64Array.from(ids, (_, i) => BigInt(past + i)), [1, count]),
    mask: new ort.Tensor("float32", mask, [1, 1, count, past + count]),
  };
  cache.forEach((tensor, i) => (feeds[`past_${i}`] = tensor));
  const results = await session.run(feeds);
  return { logits: results.logits.data, present: cache.map((_, i) => results[`present_${i}`]) };
}

function greedy(logits) {
  let id = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[id]) id = i;
  const logprob = () => {
    let sum = 0;
    for (const logit of logits) sum += Math.exp(logit - logits[id]);
    return -Math.log(sum);
  };
  return { id, logprob };
}
