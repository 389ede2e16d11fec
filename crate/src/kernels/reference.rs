//! What the kernels mean: plain loops over unpacked matrices, summed in `f64`.
//!
//! For the contract and for benchmarks, which check before they time; no model runs on it.

use super::{Activation, AttentionShape};

/// `y = x Wᵀ`: `w` is `[n, k]`, `x` is `[m, k]`, the result `[m, n]`; `m` and `n` as given.
pub fn matmul(w: &[f32], n: usize, m: usize, k: usize, x: &[f32]) -> Vec<f64> {
    let dot = |row: usize, output: usize| -> f64 {
        (0..k).map(|i| f64::from(x[row * k + i]) * f64::from(w[output * k + i])).sum()
    };
    (0..m)
        .flat_map(|row| (0..n).map(move |output| (row, output)))
        .map(|(row, output)| dot(row, output))
        .collect()
}

/// `exp(x - max x) / sum`.
pub fn softmax(x: &[f32]) -> Vec<f64> {
    softmax_f64(x.iter().map(|x| f64::from(*x)).collect())
}

fn softmax_f64(mut x: Vec<f64>) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f64 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
    x
}

/// One row: `(x - mean) / sqrt(variance + eps) * weight + bias`.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
    let factor = 1.0 / (variance + f64::from(eps)).sqrt();
    let parameters = weight.iter().zip(bias).map(|(w, b)| (f64::from(*w), f64::from(*b)));
    x.iter().zip(parameters).map(|(x, (w, b))| (f64::from(*x) - mean) * factor * w + b).collect()
}

/// One element of an activation.
pub fn activation(activation: Activation, x: f32) -> f64 {
    let x = f64::from(x);
    match activation {
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            x / (1.0 + (-2.0 * u).exp()) // 0.5 x (1 + tanh u), without the cancellation
        }
        Activation::GeluErf => 0.5 * x * erfc(-x / std::f64::consts::SQRT_2),
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
    }
}

/// `1 - erf(x)`: the Taylor series near zero, the continued fraction in the tails.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 1.0 - std::f64::consts::FRAC_2_SQRT_PI * sum;
    }
    let fraction = (1..200).rev().fold(x, |tail, n| x + f64::from(n) / 2.0 / tail);
    (-x * x).exp() / fraction / std::f64::consts::PI.sqrt()
}

/// Causal attention over unpacked caches: `keys` and `values` are `[past + queries, heads * head_dim]`.
pub fn attention(shape: &AttentionShape, q: &[f32], keys: &[f32], values: &[f32]) -> Vec<f64> {
    let AttentionShape { heads, head_dim, queries, past, scale, query_stride } = *shape;
    let hidden = heads * head_dim;
    let mut out = vec![0.0; queries * hidden];
    for query in 0..queries {
        for head in 0..heads {
            let offset = head * head_dim;
            let q = &q[query * query_stride + offset..][..head_dim];
            let score = |position: usize| {
                let key = &keys[position * hidden + offset..][..head_dim];
                f64::from(scale) * q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
            };
            let weights = softmax_f64((0..=past + query).map(score).collect());
            for (position, weight) in weights.iter().enumerate() {
                for d in 0..head_dim {
                    out[query * hidden + offset + d] +=
                        weight * f64::from(values[position * hidden + offset + d]);
                }
            }
        }
    }
    out
}
