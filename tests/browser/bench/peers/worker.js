// Calls into a worker: `inWorker` for the page, `answer` for the worker.

export function inWorker(url) {
  const worker = new Worker(url, { type: "module" });
  const waiting = new Map();
  let count = 0;
  worker.onmessage = ({ data: { id, value, failed } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (failed === undefined) resolve(value);
    else reject(new Error(failed));
  };
  worker.onerror = ({ message }) => waiting.forEach(({ reject }) => reject(new Error(message || "the worker did not start")));
  return {
    call: (method, ...values) =>
      new Promise((resolve, reject) => {
        waiting.set(++count, { resolve, reject });
        worker.postMessage({ id: count, method, values });
      }),
    end: () => worker.terminate(),
  };
}

export function answer(methods) {
  self.onmessage = async ({ data: { id, method, values } }) => {
    try {
      self.postMessage({ id, value: await methods[method](...values) });
    } catch (error) {
      self.postMessage({ id, failed: String(error?.stack ?? error) });
    }
  };
}
