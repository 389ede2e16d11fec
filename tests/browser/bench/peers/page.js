// Runs the engines that are compared, each behind the same three calls, in one page. `peers` is what the driver calls.

import * as candle from "./candle.js";
import * as ort from "./ort.js";
import * as vitrine from "./vitrine.js";
import * as wllama from "./wllama.js";

const ENGINES = { vitrine, wllama, ort, candle };

/** What runs, by subject. */
const running = new Map();

globalThis.peers = {
  isolated: crossOriginIsolated,

  /**
   * Fetches the subject's files, then loads them; the time is that of the load alone. The result also says what the engine
   * tells of itself; null where it does not offer what was asked for.
   */
  async load(subject, { engine, files, ...settings }) {
    await running.get(subject)?.close();
    running.delete(subject);
    const blobs = [];
    for (const { name, path } of files) blobs.push({ name, blob: await (await fetch(path)).blob() });
    const start = performance.now();
    const loaded = await ENGINES[engine].load(blobs, settings);
    if (!loaded) return null;
    running.set(subject, loaded);
    return { ms: performance.now() - start, about: loaded.about };
  },

  async tokenize(subject, text) {
    return running.get(subject).tokenize(text);
  },

  /**
   * Continues a prompt greedily: `{ firstMs, restMs, written }`, where `written` is how many tokens came after the first.
   */
  async run(subject, prompt, maxNewTokens) {
    return running.get(subject).run(prompt, maxNewTokens);
  },

  /** The continuation to compare: `[{ text, id, logprob }]`, of which an engine may know only some. */
  async continuation(subject, prompt, maxNewTokens) {
    return running.get(subject).continuation(prompt, maxNewTokens);
  },

  /** Measures the machine and the kernels of this project's build, in a worker of its own. */
  measure: vitrine.measure,

  async close(subject) {
    await running.get(subject)?.close();
    running.delete(subject);
  },
};
