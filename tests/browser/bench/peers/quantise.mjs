// The block formats of llama.cpp, written as its reference quantisers write them: 32 weights share a scale.

const BLOCK = 32;

/**
 * `[rows, columns]` as `[columns, rows]`.
 *
 * @param {Float32Array} values
 * @param {number} rows
 * @param {number} columns
 */
export function transpose(values, rows, columns) {
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) out[column * rows + row] = values[row * columns + column] ?? 0;
  return out;
}

/**
 * Q8_0: a scale in f16, then 32 bytes.
 *
 * @param {Float32Array} values
 */
export function q8_0(values) {
  const out = Buffer.alloc((values.length / BLOCK) * (2 + BLOCK));
  for (let block = 0, at = 0; at < values.length; block++) {
    const largest = Math.abs(extreme(values, at));
    const scale = Math.fround(largest / 127);
    const inverse = scale ? Math.fround(1 / scale) : 0;
    const start = block * (2 + BLOCK);
    out.writeUInt16LE(half(scale), start);
    for (let i = 0; i < BLOCK; i++, at++) {
      const x = Math.fround((values[at] ?? 0) * inverse);
      out.writeInt8(Math.sign(x) * Math.round(Math.abs(x)), start + 2 + i);
    }
  }
  return out;
}

/**
 * Q4_0: a scale in f16, then 16 bytes; byte `i` holds weights `i` and `i + 16`, plus 8.
 *
 * @param {Float32Array} values
 */
export function q4_0(values) {
  const out = Buffer.alloc((values.length / BLOCK) * (2 + BLOCK / 2));
  for (let block = 0, at = 0; at < values.length; block++, at += BLOCK) {
    const start = block * (2 + BLOCK / 2);
    const { scale, quants } = fourBits(values, at);
    out.writeUInt16LE(half(scale), start);
    for (let i = 0; i < 16; i++) out[start + 2 + i] = (quants[i] ?? 0) | ((quants[i + 16] ?? 0) << 4);
  }
  return out;
}

/**
 * One block as `scale * (quant - 8)`.
 *
 * @param {Float32Array} values
 * @param {number} at where the block begins
 */
export function fourBits(values, at) {
  const scale = Math.fround(extreme(values, at) / -8);
  const inverse = scale ? Math.fround(1 / scale) : 0;
  for (let i = 0; i < BLOCK; i++) QUANTS[i] = Math.min(15, Math.trunc((values[at + i] ?? 0) * inverse + 8.5));
  return { scale, quants: QUANTS };
}

const QUANTS = new Uint8Array(BLOCK);

/**
 * The value of a block that is farthest from zero, with its sign.
 *
 * @param {Float32Array} values
 * @param {number} at
 */
function extreme(values, at) {
  let found = 0;
  for (let i = at; i < at + BLOCK; i++) if (Math.abs(values[i] ?? 0) > Math.abs(found)) found = values[i] ?? 0;
  return found;
}

const FLOAT = new Float32Array(1);
const BITS = new Uint32Array(FLOAT.buffer);

/**
 * The bits of the nearest f16 of a number whose f16 is a normal one, or zero.
 *
 * @param {number} value
 */
function half(value) {
  FLOAT[0] = value;
  const bits = BITS[0] ?? 0;
  const sign = (bits >>> 16) & 0x8000;
  const rest = bits & 0x7fffffff;
  if (rest === 0) return sign;
  const exponent = (rest >>> 23) - 112;
  if (exponent < 1 || exponent > 30) throw new Error(`${value} is no normal f16`);
  const rounded = (exponent << 10) + ((rest & 0x7fffff) >>> 13);
  const tail = rest & 0x1fff;
  return sign | (rounded + (tail > 0x1000 || (tail === 0x1000 && rounded & 1) ? 1 : 0));
}
