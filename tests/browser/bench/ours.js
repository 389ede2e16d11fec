// The engine as any page would use it, timed from outside. `bench` is what the driver calls.

import { Engine } from "../engine.js";

/** One engine for each subject, so that they take turns without loading again. */
const engines = new Map();

const WORDS = ["the", "old", "king", "went", "home", "and", "had"];

globalThis.bench = {
  /** Starts an engine; the result is its build. */
  async start(subject, build) {
    engines.get(subject)?.dispose();
    const engine = await Engine.start({ build });
    engines.set(subject, engine);
    return engine.build;
  },

  /** Measures the machine and a build's kernels, in a worker of its own. */
  async measure(build, options) {
    const engine = await Engine.start({ build });
    try {
      return await engine.measure(options);
    } finally {
      await engine.dispose();
    }
  },

  async dispose(subject) {
    await engines.get(subject).dispose();
    engines.delete(subject);
  },

  /** Loads the built-in model as the repository has it, and writes greedily; null if the engine does not offer the precision. */
  async storyteller(subject, precision, prompt, maxNewTokens) {
    const engine = engines.get(subject);
    try {
      await engine.load({ url: new URL("../sources/storyteller/", import.meta.url).href }, { precision });
    } catch (error) {
      if (error.code === "bad-request") return null;
      throw error;
    }
    const { text, tokens } = await engine.generate(prompt, { maxNewTokens, temperature: 0 }).result;
    return { text, ids: tokens.map(({ id }) => id) };
  },

  /** Loads the files that the page's input was given. */
  async load(subject, precision) {
    const engine = engines.get(subject);
    const start = performance.now();
    const model = await engine.load({ files: [...document.querySelector("input").files] }, { precision });
    return { ms: performance.now() - start, model };
  },

  /** A prompt of so many tokens; the next `turn` has another first word, so that nothing of the last cache can be used again. */
  async prompt(subject, tokens, turn) {
    const engine = engines.get(subject);
    const words = Array.from({ length: tokens }, (_, i) => WORDS[(turn + i + Math.floor(i / WORDS.length)) % WORDS.length]);
    for (; words.length > 0; words.pop()) {
      const found = (await engine.tokenize(words.join(" "))).length;
      if (found === tokens) return words.join(" ");
      if (found < tokens) throw new Error(`no prompt of ${tokens} tokens can be made of these words`);
    }
  },

  /** Continues the prompt; the times are those that the page sees. */
  async run(subject, prompt, maxNewTokens) {
    const engine = engines.get(subject);
    const start = performance.now();
    const run = engine.generate(prompt, { maxNewTokens, temperature: 0 });
    let first, last;
    for await (const _ of run) {
      last = performance.now();
      first ??= last;
    }
    const { tokens, prefill } = await run.result;
    return {
      promptTokens: prefill.tokens,
      firstMs: first - start,
      restMs: last - first,
      tokens: tokens.map(({ id, text, logprob }) => ({ id, text, logprob })),
      memory: engine.model.memory,
    };
  },
};
