// A worker beside the site's own: loads one build of the engine and measures its kernels and the machine's limits.

const build = new URL(import.meta.url).searchParams.get("build");
try {
  const engine = await import(new URL(`../pkg/${build}/vitrine.js`, import.meta.url).href);
  await engine.default();
  postMessage({ lines: engine.measure(() => performance.now(), 161280, 9) });
} catch (error) {
  postMessage({ failed: String(error) });
}
