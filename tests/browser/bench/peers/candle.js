// candle's matrix products alone, over the model's own matrices: no attention, no norms, no sampling, no tokenizer, so less
// than a whole engine does.

import { inWorker } from "./worker.js";

export async function load([{ blob }], { precision, newTokens }) {
  const { call, end } = inWorker(new URL("candle-worker.js", import.meta.url));
  const about = await call("load", blob, precision);
  return {
    about,
    async run(prompt, maxNewTokens) {
      return call("run", prompt.ids.length, maxNewTokens);
    },
    continuation: async () => [],
    close: end,
  };
}
