// Reads the matrices of model.safetensors, has candle quantise them, checks one product, then multiplies.

import init, { Matrices } from "/candle/candle_matmuls.js";
import { answer } from "./worker.js";

let matrices;

answer({
  async load(blob, precision) {
    await init();
    const length = Number(new DataView(await blob.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
    const header = JSON.parse(await blob.slice(8, 8 + length).text());
    matrices = new Matrices(precision);
    let worst = 0;
    for (const [name, { shape, data_offsets }] of Object.entries(header)) {
      const isTable = name === "wte.weight";
      if (!isTable && !/\.c_\w+\.weight$/.test(name)) continue;
      const [from, to] = data_offsets.map((offset) => 8 + length + offset);
      const values = new Float32Array(await blob.slice(from, to).arrayBuffer());
      // A Conv1D is [in, out]; the table multiplies as [out, in], the last token of a prompt only.
      const [rows, columns] = shape;
      const error = matrices.add(values, rows, columns, isTable);
      worst = Math.max(worst, error);
    }
    return { worstRelativeError: worst };
  },

  run(promptTokens, maxNewTokens) {
    const start = performance.now();
    matrices.multiply(promptTokens);
    const first = performance.now();
    for (let i = 1; i < maxNewTokens; i++) matrices.multiply(1);
    return { firstMs: first - start, restMs: performance.now() - first, written: maxNewTokens - 1 };
  },
});
