// This project's engine, as any page would use it.

import { Engine } from "/site/engine.js";

export async function measure(build, options) {
  const engine = await Engine.start({ build });
  try {
    return await engine.measure(options);
  } finally {
    await engine.dispose();
  }
}

export async function load(files, { precision }) {
  const engine = await Engine.start();
  try {
    await engine.load({ files }, { precision });
  } catch (error) {
    await engine.dispose();
    if (error.code === "bad-request") return null;
    throw error;
  }
  const { build, kernel, memory, parameters } = engine.model;
  const generate = (prompt, maxNewTokens) => engine.generate(prompt.text, { maxNewTokens, temperature: 0 });
  return {
    about: { build, kernel, parameters, memory: memory.wasm },
    tokenize: async (text) => (await engine.tokenize(text)).map(({ id }) => id),
    async run(prompt, maxNewTokens) {
      const start = performance.now();
      let first, last, count = 0;
      for await (const _ of generate(prompt, maxNewTokens)) {
        last = performance.now();
        first ??= last;
        count++;
      }
      return { firstMs: first - start, restMs: last - first, written: count - 1 };
    },
    continuation: async (prompt, maxNewTokens) => (await generate(prompt, maxNewTokens).result).tokens,
    close: () => engine.dispose(),
  };
}
