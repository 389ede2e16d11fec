//! The kernels and the machine's limits, timed in the browser: to choose among kernels, for benchmarks, and for a page that measures a
//! device.

use super::JsResult;
use super::convert::{thrown, to_js};
use crate::generate::measure::measure_sampling;
use crate::kernels::calibrate::calibrate;
use crate::kernels::measure::{Settings, measure};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

/// Finds out, in at most 10 ms, which kernels are the fastest here; models that are loaded later use them. `now` returns milliseconds.
#[wasm_bindgen(js_name = calibrate)]
pub fn calibrate_kernels(now: &js_sys::Function) -> JsResult<()> {
    calibrate(&clock(now)?);
    Ok(())
}

/// Checks every kernel of this build, then times it beside the machine's limits, interleaved: `[{ kernel, operation,
/// median, best, unit, limit }]`, where `limit` is the index of the line that bounds this one. The last lines are of
/// the sampler. `now` returns milliseconds; `rows` are those of the large matrix, of 768 columns (161,280 are as many
/// weights as GPT-2 124M has, 0.5 GB).
#[wasm_bindgen(js_name = measure)]
pub fn measure_machine(now: &js_sys::Function, rows: usize, rounds: usize) -> JsResult<JsValue> {
    let clock = clock(now)?;
    let mut lines = measure(Settings { rows, rounds }, &clock).map_err(thrown)?;
    lines.extend(measure_sampling(rounds, &clock).map_err(thrown)?);
    let lines = lines.iter().map(|line| {
        json!({
            "kernel": line.kernel,
            "operation": line.operation,
            "median": line.median,
            "best": line.best,
            "unit": line.unit,
            "limit": line.limit,
        })
    });
    Ok(to_js(&lines.collect::<Value>()))
}

/// `now` as a clock, once it has told a time.
fn clock(now: &js_sys::Function) -> JsResult<impl Fn() -> f64> {
    let clock = || now.call0(&JsValue::NULL).ok().and_then(|time| time.as_f64()).unwrap_or(f64::NAN);
    if clock().is_nan() {
        return Err(thrown(crate::Error::Request(
            "`now`: expected a function that returns a number".to_owned(),
        )));
    }
    Ok(clock)
}
