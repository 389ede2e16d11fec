//! Values to and from JavaScript.

use crate::error::Error;
use crate::{GenerateOptions, ModelBytes, Precision, Sampling, SpecialTokens};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

/// The `Error` that a failed call throws.
pub(super) fn thrown(error: Error) -> JsValue {
    let thrown = js_sys::Error::new(&error.to_string());
    // Setting a property of a fresh object cannot fail.
    let _ = js_sys::Reflect::set(&thrown, &"code".into(), &error.code().into());
    thrown.into()
}

/// A plain object of `value`. Types that derive `Serialize` make one faster than `json!`: each of their fields' names is made a string of
/// JavaScript's once.
pub(super) fn to_js(value: &impl Serialize) -> JsValue {
    let serializer = serde_wasm_bindgen::Serializer::json_compatible();
    value.serialize(&serializer).expect("numbers, strings, lists and objects are JavaScript values")
}

/// The precision called `name`.
pub(super) fn precision_of(name: &str) -> Result<Precision, JsValue> {
    Precision::from_name(name).ok_or_else(|| {
        let known = Precision::ALL.map(Precision::name).join(", ");
        thrown(Error::Request(format!("precision: expected one of {known}, found `{name}`")))
    })
}

/// Bytes by what holds them.
pub(super) fn bytes(bytes: &ModelBytes) -> Value {
    json!({
        "weights": bytes.weights,
        "cache": bytes.cache,
        "scratch": bytes.scratch,
        "tokenizer": bytes.tokenizer,
        "total": bytes.total(),
    })
}

/// The options of `generate` as a page gives them: every number may be absent, and may be anything.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    max_new_tokens: Option<f64>,
    temperature: Option<f64>,
    top_k: Option<f64>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    stop: Vec<String>,
    seed: Option<f64>,
    special_tokens: bool,
}

/// Reads the options of `generate`.
pub(super) fn options(options: JsValue) -> Result<GenerateOptions, JsValue> {
    let options: Options = if options.is_undefined() || options.is_null() {
        Options::default()
    } else {
        serde_wasm_bindgen::from_value(options)
            .map_err(|error| thrown(Error::Request(format!("options: {error}"))))?
    };
    let defaults = GenerateOptions::default();
    let sampling = defaults.sampling;
    let single = |value: Option<f64>| value.map(|value| value as f32);
    Ok(GenerateOptions {
        max_new_tokens: whole("max new tokens", options.max_new_tokens)?
            .map_or(defaults.max_new_tokens, saturated),
        sampling: Sampling {
            temperature: single(options.temperature).unwrap_or(sampling.temperature),
            // In the JavaScript API 0 keeps every token, as an absent top-k does.
            top_k: whole("top-k", options.top_k)?.filter(|&k| k > 0).map(saturated),
            top_p: single(options.top_p),
            min_p: single(options.min_p),
            repetition_penalty: single(options.repetition_penalty).unwrap_or(sampling.repetition_penalty),
            seed: whole("seed", options.seed)?.unwrap_or_else(fresh_seed),
        },
        stop: options.stop,
        special_tokens: if options.special_tokens {
            SpecialTokens::Recognised
        } else {
            SpecialTokens::AsText
        },
    })
}

/// `count`, or as many as this machine can count.
fn saturated(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// A seed that was not used before, short enough to be read out.
fn fresh_seed() -> u64 {
    (js_sys::Math::random() * f64::from(1u32 << 31)) as u64
}

/// `value` as a whole number that JavaScript holds exactly.
fn whole(name: &str, value: Option<f64>) -> Result<Option<u64>, JsValue> {
    const LARGEST: f64 = 9_007_199_254_740_991.0;
    match value {
        None => Ok(None),
        Some(value) if value.fract() == 0.0 && (0.0..=LARGEST).contains(&value) => Ok(Some(value as u64)),
        Some(value) => Err(thrown(Error::Request(format!(
            "{name}: expected a whole number from 0 to {LARGEST}, found {value}"
        )))),
    }
}
