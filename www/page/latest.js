// Of the things that were asked for one after another, the last one is done.

/** Each call of `run` takes the place of those before it, whatever they are at. */
export class Latest {
  /** Calls are counted: what they ask for does not tell them apart, for the same thing may be asked for twice. */
  #calls = 0;
  #controller = new AbortController();
  /** @type {Promise<unknown>} */
  #settled = Promise.resolve();

  /** Aborts what goes on. */
  abort() {
    this.#controller.abort();
  }

  /**
   * Aborts what goes on, waits for its end, then does `task`, unless another call came meanwhile.
   *
   * @param {(signal: AbortSignal) => Promise<void>} task
   * @returns {Promise<boolean>} whether this is still the last call; if not, the next one goes on from here
   */
  async run(task) {
    const call = ++this.#calls;
    this.abort();
    await this.#settled;
    if (call !== this.#calls) return false;
    this.#controller = new AbortController();
    const done = task(this.#controller.signal);
    this.#settled = done.catch(() => {});
    await done;
    return call === this.#calls;
  }
}
