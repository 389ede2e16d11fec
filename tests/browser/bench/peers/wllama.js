// wllama: llama.cpp in wasm, from the published package.

import { Wllama } from "/npm/@wllama/wllama/esm/index.js";

export async function load([{ blob }], { threads }) {
  const wllama = new Wllama({ default: "/npm/@wllama/wllama/esm/wasm/wllama.wasm" }, { suppressNativeLog: true });
  await wllama.loadModel([blob], { n_threads: threads, n_ctx: 512, n_batch: 512, n_gpu_layers: 0, n_parallel: 1 });
  const options = (prompt, maxNewTokens) => ({
    prompt: prompt.text,
    max_tokens: maxNewTokens,
    temperature: 0,
    ignore_eos: true,
    cache_prompt: false,
  });
  return {
    about: {
      llama: Wllama.getLibllamaVersion(),
      multithread: wllama.isMultithread(),
      threads: wllama.getNumThreads(),
      context: wllama.getLoadedContextInfo().n_ctx,
    },
    async run(prompt, maxNewTokens) {
      const start = performance.now();
      let first, last, chunks = 0, timings;
      await wllama.createCompletion({
        ...options(prompt, maxNewTokens),
        stream: true,
        onData(chunk) {
          timings = chunk.timings ?? timings;
          if (!chunk.choices?.[0] || chunk.choices[0].finish_reason) return;
          last = performance.now();
          first ??= last;
          chunks++;
        },
      });
      return { firstMs: first - start, restMs: last - first, written: chunks - 1, timings };
    },
    async continuation(prompt, maxNewTokens) {
      const { choices, usage } = await wllama.createCompletion({ ...options(prompt, maxNewTokens), logprobs: 1 });
      const { text, logprobs } = choices[0];
      if (usage.prompt_tokens !== prompt.ids.length) throw new Error(`it read ${usage.prompt_tokens} tokens of ${prompt.ids.length}`);
      if (logprobs?.content) return logprobs.content.map(({ id, token, logprob }) => ({ id, text: token, logprob }));
      if (logprobs?.tokens) return logprobs.tokens.map((token, i) => ({ text: token, logprob: logprobs.token_logprobs[i] }));
      return [{ text }];
    },
    close: () => wllama.exit(),
  };
}
