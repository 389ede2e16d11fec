//! The machine's limits, timed: what a benchmark, or a page that measures a device, divides its figures by.

use super::{JsResult, convert::to_js};
use crate::Error;
use crate::kernels::{Entry, PANEL, limits};
use serde_json::json;
use wasm_bindgen::prelude::*;

/// More than any cache holds.
const READ_BYTES: usize = 128 << 20;

/// A measurement goes on for this long; its best run counts.
const DURATION_MS: f64 = 300.0;

/// Iterations of a peak between two looks at the clock: about a millisecond.
const PEAK_ITERATIONS: u32 = 50_000;

/// `{ readBytesPerSecond, peaks: [{ instruction, multiplyAddsPerSecond }] }` of one thread. `now` returns milliseconds.
/// Takes about two seconds and 128 MiB.
#[wasm_bindgen(js_name = measureLimits)]
pub fn measure_limits(now: &js_sys::Function) -> JsResult<JsValue> {
    let mut data: Vec<Entry> = Vec::new();
    let length = READ_BYTES / size_of::<Entry>();
    data.try_reserve_exact(length)
        .map_err(|_| super::convert::thrown(Error::Memory(format!("measuring needs {READ_BYTES} bytes"))))?;
    data.resize(length, [1.0; PANEL]);
    let read = best_rate(now, || limits::read(&data))?;
    drop(data);
    let peaks = limits::peaks().iter().map(|peak| {
        let rate = best_rate(now, || peak.run(PEAK_ITERATIONS))?;
        Ok(json!({ "instruction": peak.instruction, "multiplyAddsPerSecond": rate }))
    });
    let peaks = peaks.collect::<JsResult<Vec<_>>>()?;
    Ok(to_js(&json!({ "readBytesPerSecond": read, "peaks": peaks })))
}

/// Work per second in the best of the runs that fit into the duration. A run is repeated until the clock, which browsers
/// coarsen, has moved by 10 ms.
fn best_rate(now: &js_sys::Function, mut work: impl FnMut() -> u64) -> JsResult<f64> {
    let clock =
        || now.call0(&JsValue::NULL)?.as_f64().ok_or_else(|| JsValue::from_str("`now` returns a number"));
    let (start, mut best) = (clock()?, 0.0_f64);
    loop {
        let (from, mut done) = (clock()?, 0);
        let elapsed = loop {
            done += work();
            let elapsed = clock()? - from;
            if elapsed >= 10.0 {
                break elapsed;
            }
        };
        best = best.max(done as f64 * 1000.0 / elapsed);
        if clock()? - start >= DURATION_MS {
            return Ok(best);
        }
    }
}
