// The page: its controls, and what they ask of the engine. It knows the DOM, and no message.

import { Engine, isFailure } from "./engine.js";
import { Device } from "./page/device.js";
import { acceptDrops } from "./page/drop.js";
import { element } from "./page/elements.js";
import { Meters, showModel } from "./page/figures.js";
import { Latest } from "./page/latest.js";
import { Output } from "./page/output.js";
import { readParameters } from "./page/parameters.js";
import { FILES, Picker } from "./page/picker.js";
import { readSampling, showSeed } from "./page/sampling.js";
import { say, sayFailure, showProgress } from "./page/status.js";

/** @import { Run } from "./engine/run.js" */
/** @import { Choice } from "./page/picker.js" */
/** @import { GenerationResult, NamedBlob, Precision } from "./protocol.js" */

const prompt = element("prompt", HTMLTextAreaElement);
const precision = element("precision", HTMLSelectElement);
const compose = element("compose", HTMLFormElement);
const generateButton = element("generate", HTMLButtonElement);
const stopButton = element("stop", HTMLButtonElement);

const output = new Output();
const picker = new Picker((choice) => void load(choice));

/** @type {Engine} */
let engine;
/** What is loaded. @type {Choice | null} */
let exhibit = null;
/** What is being loaded. @type {Choice | null} */
let wanted = null;
const loads = new Latest();
/** @type {Run | null} */
let run = null;
/** Settles when the page is done with the last run. @type {Promise<void>} */
let written = Promise.resolve();
/** @type {Device} */
let device;

/** Brings the controls in line with the engine. */
function refresh() {
  if (engine.model === null) exhibit = null;
  picker.show(wanted ?? exhibit);
  showModel(engine.model, engine.build);
  device.refresh();
  const focused = document.activeElement;
  stopButton.disabled = run === null;
  generateButton.disabled = run !== null || device.measuring || engine.model === null;
  // A button that is disabled under the keyboard hands its focus to the other one.
  if (focused === generateButton && generateButton.disabled && run) stopButton.focus();
  if (focused === stopButton && stopButton.disabled && !generateButton.disabled) generateButton.focus();
}

/**
 * Loads a choice, in place of a load and of a run that are under way.
 *
 * @param {Choice} choice
 */
async function load(choice) {
  wanted = choice;
  const isLast = await loads.run((signal) => loadNow(choice, signal));
  if (!isLast) return;
  wanted = null;
  showProgress(null);
  refresh();
}

/**
 * @param {Choice} choice
 * @param {AbortSignal} signal
 */
async function loadNow(choice, signal) {
  stop();
  await Promise.all([written, device.cancel()]);
  say(`Loading ${choice.name}…`);
  showProgress({ stage: "download", done: 0, total: 0 });
  refresh();
  try {
    await engine.load(choice.source, {
      precision: /** @type {Precision} */ (precision.value),
      onProgress: showProgress,
      signal,
    });
    exhibit = choice;
    say(`${choice.name} is ready.`);
  } catch (error) {
    picker.refuse(choice);
    if (wanted !== choice) return; // what takes its place speaks for itself
    const stays = engine.model && exhibit ? `${exhibit.name} is still loaded.` : "";
    if (isFailure(error) && error.code === "cancelled") say(`Loading was cancelled. ${stays}`);
    else sayFailure(error, stays);
  }
}

/** Asks the run to stop, if there is one. */
function stop() {
  void run?.cancel().catch(() => {}); // whoever awaits its result hears of it
}

async function generate() {
  let sampling;
  try {
    sampling = readSampling();
  } catch (error) {
    sayFailure(error);
    return;
  }
  const text = prompt.value;
  const meters = new Meters();
  say("Reading the prompt…");
  run = engine.generate(text, {
    ...sampling,
    onProgress: ({ done, total }) => {
      if (done < total) say(`Reading the prompt: ${done} of ${total} tokens…`);
    },
  });
  refresh();
  /** @type {GenerationResult | undefined} */
  let result;
  try {
    const { seed, promptTokens } = await run.started;
    output.begin(text); // only now: a request that is refused leaves the text of the last one
    showSeed(seed);
    meters.prompt(promptTokens);
    for await (const token of run) {
      say("Writing…");
      output.append(token.text);
      meters.tick();
    }
    result = await run.result;
    meters.end(result);
    say(ending(result));
  } catch (error) {
    sayFailure(error, engine.model ? "" : "Choose a model to load it again.");
  }
  output.end(result?.text);
  run = null;
  refresh();
}

/** Timings beside something else that runs would be worth nothing. */
function hindrance() {
  if (run) return "A text is being written, which would be measured too: stop it, or wait for its end.";
  return wanted ? "A model is being loaded, which would be measured too: wait until it is there." : "";
}

/** @param {GenerationResult} result */
function ending({ reason, tokens }) {
  switch (reason) {
    case "stop":
      return "The text has come to its end.";
    case "length":
      return `${tokens.length} new tokens were written, as many as asked for.`;
    case "context":
      return "The model’s context is full: it cannot see further.";
    case "cancelled":
      return `Stopped after ${tokens.length} tokens.`;
  }
}

/** @param {readonly (File | NamedBlob)[]} files */
function openFiles(files) {
  const first = files[0];
  if (!first) return;
  const path = first instanceof File ? first.webkitRelativePath : first.name;
  const folder = path.includes("/") ? path.slice(0, path.indexOf("/")) : "Opened files";
  void load({ id: FILES, name: folder, source: { files } });
}

function listen() {
  compose.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!generateButton.disabled) written = generate();
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) compose.requestSubmit(generateButton);
  });
  stopButton.addEventListener("click", stop);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
  });
  // What is loaded is loaded again, in another form.
  precision.addEventListener("change", () => {
    const choice = wanted ?? exhibit;
    if (choice) void load(choice);
  });
  element("cancel-loading", HTMLButtonElement).addEventListener("click", () => loads.abort());
  for (const id of ["open-files", "open-folder"]) {
    const input = element(id, HTMLInputElement);
    input.addEventListener("change", () => {
      const files = Array.from(input.files ?? []);
      input.value = ""; // so that the same files can be opened again
      openFiles(files);
    });
  }
  acceptDrops(openFiles, sayFailure);
}

try {
  say("Starting the engine…");
  const parameters = readParameters(location.search);
  if (parameters.precision) precision.value = parameters.precision;
  engine = await Engine.start(parameters);
  // For the console: `await vitrine.engine.tokenize("text")`.
  Object.assign(globalThis, { vitrine: { engine } });
  device = new Device({ measure: (signal) => engine.measure({ signal }), hindrance, onChange: refresh });
  listen();
  await load(picker.first);
} catch (error) {
  sayFailure(error);
}
