// onnxruntime-web, in a worker, as it would be used beside a page.

import { inWorker } from "./worker.js";

export async function load([{ blob }], { threads, layers, heads, headSize }) {
  const { call, end } = inWorker(new URL("ort-worker.js", import.meta.url));
  const about = await call("load", blob, { threads, layers, heads, headSize });
  const generate = (prompt, maxNewTokens) => call("generate", prompt.ids, maxNewTokens);
  return {
    about,
    async run(prompt, maxNewTokens) {
      const { firstMs, restMs, tokens } = await generate(prompt, maxNewTokens);
      return { firstMs, restMs, written: tokens.length - 1 };
    },
    continuation: async (prompt, maxNewTokens) => (await generate(prompt, maxNewTokens)).tokens,
    close: end,
  };
}
