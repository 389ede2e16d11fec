// As much of protobuf's encoding as an ONNX file needs. Long fields are kept as they are, and joined when they are written.

export class Message {
  /** @type {Uint8Array[]} */
  parts = [];
  length = 0;

  /** @param {Uint8Array} bytes */
  #push(bytes) {
    this.parts.push(bytes);
    this.length += bytes.length;
  }

  /**
   * @param {number} field
   * @param {number} value
   */
  int(field, value) {
    this.#push(Buffer.from([...varint(field * 8), ...varint(value)]));
    return this;
  }

  /**
   * @param {number} field
   * @param {number} value
   */
  float(field, value) {
    const bytes = Buffer.alloc(4);
    bytes.writeFloatLE(value);
    this.#push(Buffer.concat([Buffer.from(varint(field * 8 + 5)), bytes]));
    return this;
  }

  /**
   * @param {number} field
   * @param {Uint8Array | string | Message} value
   */
  bytes(field, value) {
    const content = typeof value === "string" ? Buffer.from(value) : value;
    this.#push(Buffer.from([...varint(field * 8 + 2), ...varint(content.length)]));
    for (const part of content instanceof Message ? content.parts : [content]) this.#push(part);
    return this;
  }

  /**
   * @param {number} field
   * @param {(Uint8Array | string | Message)[]} values
   */
  each(field, values) {
    for (const value of values) this.bytes(field, value);
    return this;
  }
}

/** @param {number} value a whole number below 2^53, or a small negative one */
function varint(value) {
  const bytes = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    const low = Number(rest & 127n);
    rest >>= 7n;
    bytes.push(rest ? low | 128 : low);
  } while (rest);
  return bytes;
}
