//! The JavaScript surface of the crate, and the only room that names a `JsValue`.
//!
//! It runs in a dedicated worker: every call blocks, and headers are read synchronously. A load goes step by step, so that the
//! browser can read while weights are packed, and so does generation, so that the worker can look for a cancel between two
//! steps. Every failure is thrown as an `Error` with a `code` (see [`crate::Error::code`]). What the objects below hold is typed in `www/protocol.js`.

#![allow(unreachable_pub, reason = "what is public here is exported to JavaScript, not to Rust")]

mod blob;
mod blocks;
mod convert;
mod crash;
mod measure;

use crate::checkpoint::Awaited;
use crate::generate::{Run, Scoring};
use crate::{Files, Precision, Ticket};
use blob::BlobSource;
use blocks::Blocks;
use convert::{precision_of, thrown, to_js};
use serde::Serialize;
use serde_json::json;
use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use wasm_bindgen::prelude::*;

/// The instruction set that this build was made for.
const BUILD_NAME: &str = if cfg!(target_feature = "relaxed-simd") { "relaxed" } else { "simd128" };

type JsResult<T> = Result<T, JsValue>;
type SharedSession = Rc<RefCell<crate::Session>>;

/// Runs once, when the module is instantiated.
#[wasm_bindgen(start)]
fn start() {
    crash::keep_panic_text();
}

/// `{ id, version, name, kernel }` of this build: the id that the site was assembled with, the crate's version, the
/// instruction set and the kernel that it prefers.
#[wasm_bindgen(js_name = build)]
pub fn build() -> JsValue {
    to_js(&json!({
        "id": option_env!("VITRINE_BUILD_ID").unwrap_or("dev"),
        "version": env!("CARGO_PKG_VERSION"),
        "name": BUILD_NAME,
        "kernel": crate::layers::Kernels::preferred(Precision::default()).name(Precision::default()),
    }))
}

/// What the model of a `config.json` would take, told from its text alone; throws what `Candidate` would throw.
#[wasm_bindgen]
pub fn estimate(config: &str, precision: &str) -> JsResult<JsValue> {
    let plan = crate::estimate(config, precision_of(precision)?).map_err(thrown)?;
    Ok(to_js(&json!({ "parameters": plan.parameters, "bytes": convert::bytes(&plan.bytes) })))
}

/// A checkpoint whose config, tokenizer and headers have been read.
#[wasm_bindgen]
pub struct Candidate {
    inner: crate::Candidate,
    blocks: Rc<Blocks>,
}

#[wasm_bindgen]
impl Candidate {
    /// Opens `files`, an array of `{ name, blob }`.
    #[wasm_bindgen(constructor)]
    pub fn new(files: js_sys::Array) -> JsResult<Candidate> {
        let (sources, blocks) = BlobSource::open(&files)?;
        let files = Files::new(sources.into_iter().map(|source| Box::new(source) as _).collect());
        Ok(Self { inner: crate::Candidate::open(files).map_err(thrown)?, blocks })
    }

    /// Checks every tensor and the memory; returns what loading would take.
    pub fn plan(&self, precision: &str) -> JsResult<JsValue> {
        let plan = self.inner.plan(precision_of(precision)?).map_err(thrown)?;
        let shape = self.inner.shape();
        Ok(to_js(&json!({
            "architecture": self.inner.architecture(),
            "parameters": plan.parameters,
            "layers": shape.layers,
            "context": shape.context,
            "vocabulary": shape.vocabulary,
            "precision": plan.precision.name(),
            "bytes": convert::bytes(&plan.bytes),
            "available": plan.available,
        })))
    }

    /// Starts to read and pack the weights. `on_progress(done, total)` is told bytes of the weight files.
    pub fn load(self, precision: &str, on_progress: js_sys::Function) -> JsResult<Loading> {
        let precision = precision_of(precision)?;
        let load = async move {
            let mut progress = |done: u64, total: u64| {
                // A listener that throws must not end the load.
                let _ = on_progress.call2(&JsValue::NULL, &(done as f64).into(), &(total as f64).into());
            };
            self.inner.load_when_ready(precision, &mut progress).await
        };
        Ok(Loading { load: Box::pin(load), blocks: self.blocks })
    }
}

/// A load in progress.
#[wasm_bindgen]
pub struct Loading {
    load: Awaited<'static, crate::Result<crate::Session>>,
    blocks: Rc<Blocks>,
}

#[wasm_bindgen]
impl Loading {
    /// Packs what has been read: an object whose only key is `session`, the end, or `reading`, a promise to wait for before the next
    /// step. That step, and not the promise, tells what could not be read. None may follow the session or an error.
    pub fn step(&mut self) -> JsResult<JsValue> {
        // Nobody is woken: the worker steps again by itself.
        let mut context = Context::from_waker(Waker::noop());
        let (key, value) = match self.load.as_mut().poll(&mut context) {
            Poll::Ready(session) => {
                let inner = Rc::new(RefCell::new(session.map_err(thrown)?));
                ("session", Session { inner }.into())
            }
            Poll::Pending => ("reading", self.blocks.awaited().into()),
        };
        let step = js_sys::Object::new();
        js_sys::Reflect::set(&step, &key.into(), &value)?;
        Ok(step.into())
    }
}

/// A loaded model.
#[wasm_bindgen]
pub struct Session {
    inner: SharedSession,
}

#[wasm_bindgen]
impl Session {
    /// What is loaded, and the memory that it takes now.
    pub fn info(&self) -> JsValue {
        let info = self.inner.borrow().info();
        let mut memory = convert::bytes(&info.bytes);
        memory["wasm"] = crash::wasm_memory_bytes().into();
        to_js(&json!({
            "architecture": info.architecture,
            "parameters": info.parameters,
            "layers": info.shape.layers,
            "context": info.shape.context,
            "vocabulary": info.shape.vocabulary,
            "precision": info.precision.name(),
            "bytes": info.bytes.total(),
            "memory": memory,
            "kernel": info.kernel,
            "build": BUILD_NAME,
            "ignored": info.ignored,
        }))
    }

    /// The tokens of `text`: `[{ id, text }]`.
    pub fn tokenize(&self, text: &str) -> JsResult<JsValue> {
        Ok(to_js(&self.inner.borrow_mut().tokenize(text).map_err(thrown)?))
    }

    /// Starts to continue `prompt`; an earlier generation or score of this session ends with it.
    pub fn generate(&self, prompt: &str, options: JsValue) -> JsResult<Generation> {
        let options = convert::options(options)?;
        let seed = options.sampling.seed;
        let run = self.inner.borrow_mut().start(prompt, &options).map_err(thrown)?;
        Ok(Generation { session: Rc::clone(&self.inner), run, seed: seed as f64 })
    }

    /// Starts to score `text`.
    pub fn score(&self, text: &str) -> JsResult<ScoreRun> {
        let scoring = self.inner.borrow_mut().start_score(text).map_err(thrown)?;
        Ok(ScoreRun { session: Rc::clone(&self.inner), scoring })
    }
}

/// A continuation in progress.
#[wasm_bindgen]
pub struct Generation {
    session: SharedSession,
    run: Ticket<Run>,
    seed: f64,
}

#[wasm_bindgen]
impl Generation {
    /// The seed in use.
    #[wasm_bindgen(getter)]
    pub fn seed(&self) -> f64 {
        self.seed
    }

    /// Tokens of the prompt, those that the family adds included.
    #[wasm_bindgen(getter, js_name = promptTokens)]
    pub fn prompt_tokens(&self) -> usize {
        self.run.prompt_tokens()
    }

    /// Tokens of the prompt that the last run had read already.
    #[wasm_bindgen(getter, js_name = reusedTokens)]
    pub fn reused_tokens(&self) -> usize {
        self.run.reused_tokens()
    }

    /// Reads a chunk of the prompt, or writes a token, or ends: an object whose only key is `prefill`, `token` or `end`.
    pub fn step(&mut self) -> JsResult<JsValue> {
        Ok(to_js(&self.session.borrow_mut().step(&mut self.run).map_err(thrown)?))
    }

    /// Ends early: `{ reason: "cancelled", text }`, with the text that was held back.
    pub fn finish(&mut self) -> JsResult<JsValue> {
        let text = self.session.borrow_mut().finish(&mut self.run).map_err(thrown)?;
        Ok(to_js(&json!({ "reason": "cancelled", "text": text })))
    }
}

/// What one step of a [`ScoreRun`] did.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum ScoreStep {
    Progress { done: usize, total: usize },
    End(crate::Score),
}

/// A score in progress.
#[wasm_bindgen(js_name = Scoring)]
pub struct ScoreRun {
    session: SharedSession,
    scoring: Ticket<Scoring>,
}

#[wasm_bindgen(js_class = Scoring)]
impl ScoreRun {
    /// Reads a chunk of the text, or ends: an object whose only key is `progress` or `end`.
    pub fn step(&mut self) -> JsResult<JsValue> {
        let mut session = self.session.borrow_mut();
        let (done, total) = session.step_score(&mut self.scoring).map_err(thrown)?;
        if done < total {
            return Ok(to_js(&ScoreStep::Progress { done, total }));
        }
        let score = session.finish_score(&self.scoring).map_err(thrown)?;
        Ok(to_js(&ScoreStep::End(score)))
    }
}
