//! The cost of choosing a token, measured for benchmarks with the caller's clock.

use super::{Sampler, Sampling};
use crate::error::Result;
use crate::kernels::measure::Measurement;
use crate::layers::{Kernels, Precision, tensor};

/// Tokens to choose among: GPT-2's vocabulary.
const VOCABULARY: usize = 50_257;

/// Choices in one sample: some milliseconds, since browsers coarsen their clocks.
const CHOICES: usize = 50;

/// A choice among 50,257 tokens by the usual rules, in microseconds; `now` gives milliseconds.
///
/// # Errors
/// Those of [`Sampler::sample`].
pub fn measure_sampling(rounds: usize, now: &dyn Fn() -> f64) -> Result<Vec<Measurement>> {
    // The shape of a trained model's logits: exponentially fewer tokens the likelier they are.
    let logit = |i: usize| -2.0 * (((i * 7919 + 13) % VOCABULARY + 1) as f32 / VOCABULARY as f32).ln() - 8.0;
    let logits = tensor((0..VOCABULARY).map(logit).collect(), (1, VOCABULARY))?;
    let sampled = Sampling { temperature: 0.8, ..Sampling::default() };
    let rules = [
        ("greedy", Sampling::greedy()),
        ("temperature", sampled.clone()),
        ("top-k 40, top-p 0.95", Sampling { top_k: Some(40), top_p: Some(0.95), ..sampled.clone() }),
        ("top-p 0.95", Sampling { top_p: Some(0.95), ..sampled }),
    ];
    let mut results = Vec::new();
    for (name, sampling) in rules {
        let mut sampler = Sampler::new(sampling, Kernels::preferred(Precision::default()));
        let mut samples = Vec::new();
        for _ in 0..rounds.max(1) {
            let start = now();
            for _ in 0..CHOICES {
                std::hint::black_box(sampler.sample(&logits)?);
            }
            samples.push((now() - start) * 1e3 / CHOICES as f64);
        }
        samples.sort_by(f64::total_cmp);
        results.push(Measurement {
            kernel: "sampler",
            operation: format!("{name} of {VOCABULARY}"),
            median: samples[samples.len() / 2],
            best: samples[0],
            unit: "µs",
            limit: None,
        });
    }
    Ok(results)
}
