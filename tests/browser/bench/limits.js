// A worker beside the site's own: loads one build of the engine and measures the machine's limits with it.

const build = new URL(import.meta.url).searchParams.get("build");
try {
  const engine = await import(new URL(`../pkg/${build}/vitrine.js`, import.meta.url).href);
  await engine.default();
  postMessage(engine.measureLimits(() => performance.now()));
} catch (error) {
  postMessage({ failed: String(error) });
}
