//! The kernels and the machine's limits, timed in the browser: for benchmarks, and for a page that measures a device.

use super::JsResult;
use super::convert::{thrown, to_js};
use crate::Sampling;
use crate::generate::Sampler;
use crate::kernels::measure::{Settings, measure};
use crate::layers::Kernels;
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

/// Checks every kernel of this build, then times it beside the machine's limits, interleaved: `[{ kernel, operation,
/// median, best, unit, limit }]`, where `limit` is the index of the line that bounds this one. The last lines are of
/// the sampler. `now` returns milliseconds; `rows` are those of the large matrix, of 768 columns (161,280 are as many
/// weights as GPT-2 124M has, 0.5 GB).
#[wasm_bindgen(js_name = measure)]
pub fn measure_machine(now: &js_sys::Function, rows: usize, rounds: usize) -> JsResult<JsValue> {
    let clock = || now.call0(&JsValue::NULL).ok().and_then(|time| time.as_f64()).unwrap_or(f64::NAN);
    if clock().is_nan() {
        return Err(thrown(crate::Error::Request(
            "`now`: expected a function that returns a number".to_owned(),
        )));
    }
    let kernels = measure(Settings { rows, rounds }, &clock).map_err(thrown)?;
    let mut lines: Vec<Value> = kernels
        .iter()
        .map(|line| {
            json!({
                "kernel": line.kernel,
                "operation": line.operation,
                "median": line.median,
                "best": line.best,
                "unit": line.unit,
                "limit": line.limit,
            })
        })
        .collect();
    lines.extend(measure_sampling(&clock, rounds)?);
    Ok(to_js(&Value::Array(lines)))
}

/// A choice among GPT-2's 50,257 tokens by the usual rules, in microseconds.
fn measure_sampling(clock: &dyn Fn() -> f64, rounds: usize) -> JsResult<Vec<Value>> {
    const VOCABULARY: usize = 50_257;
    /// Choices in one sample: some milliseconds, since browsers coarsen their clocks.
    const CHOICES: usize = 50;
    // The shape of a trained model's logits: exponentially fewer tokens the likelier they are.
    let logit = |i: usize| -2.0 * (((i * 7919 + 13) % VOCABULARY + 1) as f32 / VOCABULARY as f32).ln() - 8.0;
    let logits: Vec<f32> = (0..VOCABULARY).map(logit).collect();
    let logits =
        Tensor::from_vec(logits, (1, VOCABULARY), &Device::Cpu).map_err(|error| thrown(error.into()))?;
    let sampled = Sampling { temperature: 0.8, ..Sampling::default() };
    let rules = [
        ("greedy", Sampling::greedy()),
        ("temperature", sampled.clone()),
        ("top-k 40, top-p 0.95", Sampling { top_k: Some(40), top_p: Some(0.95), ..sampled.clone() }),
        ("top-p 0.95", Sampling { top_p: Some(0.95), ..sampled }),
    ];
    let mut lines = Vec::new();
    for (name, sampling) in rules {
        let mut sampler = Sampler::new(sampling, Kernels::preferred());
        let mut samples = Vec::new();
        for _ in 0..rounds.max(1) {
            let start = clock();
            for _ in 0..CHOICES {
                std::hint::black_box(sampler.sample(&logits).map_err(thrown)?);
            }
            samples.push((clock() - start) * 1e3 / CHOICES as f64);
        }
        samples.sort_by(f64::total_cmp);
        lines.push(json!({
            "kernel": "sampler",
            "operation": format!("{name} of {VOCABULARY}"),
            "median": samples[samples.len() / 2],
            "best": samples[0],
            "unit": "µs",
            "limit": null,
        }));
    }
    Ok(lines)
}
