//! Softmax, layer normalisation and activations, written once for every instruction set.
//!
//! Rows are taken 16 elements at a time, four vectors; the rest of a row is padded with whatever changes nothing, and goes
//! through the same instructions. So the order of every sum depends on the length of the row alone.

use super::attention::WithIntegers;
use super::block::padded;
use super::{Activation, AttentionShape, Lanes, Page, VectorKernel, attention, math};

/// Elements taken at a time.
const BLOCK: usize = 16;

/// Vector operations on the instruction set `L`.
#[derive(Clone, Copy, Debug)]
pub struct VectorOperations<L>(pub(super) L);

impl<L: WithIntegers> VectorKernel for VectorOperations<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn softmax(&self, x: &mut [f32]) {
        let lanes = self.0;
        let inverse = lanes.splat(1.0 / exponentials(lanes, x));
        map(lanes, x, |v| lanes.mul(v, inverse));
    }

    fn log_sum_exp(&self, x: &[f32]) -> f32 {
        let lanes = self.0;
        let max = largest(lanes, x);
        if max == f32::NEG_INFINITY {
            return max;
        }
        let shift = lanes.splat(max);
        let sum = sum_of(lanes, x, f32::NEG_INFINITY, |v| math::exp(lanes, lanes.sub(v, shift)));
        max + sum.ln()
    }

    fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) {
        let (lanes, n) = (self.0, weight.len());
        assert!(
            bias.len() == n && x.len() == y.len(),
            "{n} weights, {} biases, {} to {}",
            bias.len(),
            x.len(),
            y.len()
        );
        assert!(x.len().is_multiple_of(n.max(1)), "{} is not a whole number of rows of {n}", x.len());
        for (x, y) in x.chunks_exact(n.max(1)).zip(y.chunks_exact_mut(n.max(1))) {
            let mean = sum_of(lanes, x, 0.0, |v| v) / n as f32;
            let shift = lanes.splat(mean);
            let variance = sum_of(lanes, x, mean, |v| {
                let centred = lanes.sub(v, shift);
                lanes.mul(centred, centred)
            }) / n as f32;
            let factor = lanes.splat(1.0 / (variance + eps).sqrt());
            let one = |x: &[f32; 4], weight: &[f32; 4], bias: &[f32; 4], y: &mut [f32; 4]| {
                let normal = lanes.mul(lanes.sub(lanes.load(x), shift), factor);
                lanes.store(lanes.multiply_add(normal, lanes.load(weight), lanes.load(bias)), y);
            };
            let ((x, x_rest), (weight, weight_rest)) = (x.as_chunks(), weight.as_chunks());
            let ((bias, bias_rest), (y, y_rest)) = (bias.as_chunks(), y.as_chunks_mut());
            for (((x, weight), bias), y) in x.iter().zip(weight).zip(bias).zip(y) {
                one(x, weight, bias, y);
            }
            if !x_rest.is_empty() {
                let mut last = [0.0; 4];
                one(&padded(x_rest, 0.0), &padded(weight_rest, 0.0), &padded(bias_rest, 0.0), &mut last);
                y_rest.copy_from_slice(&last[..y_rest.len()]);
            }
        }
    }

    fn activation(&self, activation: Activation, x: &mut [f32]) {
        let lanes = self.0;
        match activation {
            Activation::GeluTanh => map(lanes, x, |v| math::gelu_tanh(lanes, v)),
            Activation::GeluErf => map(lanes, x, |v| math::gelu_erf(lanes, v)),
            Activation::Relu => map(lanes, x, |v| math::relu(lanes, v)),
            Activation::Silu => map(lanes, x, |v| math::silu(lanes, v)),
            Activation::Tanh => map(lanes, x, |v| math::tanh(lanes, v)),
        }
    }

    fn attention(
        &self,
        shape: &AttentionShape,
        q: &[f32],
        pages: &[Page],
        out: &mut [f32],
        scratch: &mut Vec<f32>,
    ) {
        attention::attention(self.0, shape, q, pages, out, scratch);
    }
}

/// Replaces `x` by `exp(x - max x)` and returns the sum of that, which lies between 1 and the length of `x`.
#[inline(never)] // it is long, and called from many places
pub(super) fn exponentials<L: Lanes>(lanes: L, x: &mut [f32]) -> f32 {
    let shift = lanes.splat(largest(lanes, x));
    let mut sums = [lanes.splat(0.0); 4];
    let (blocks, rest) = x.as_chunks_mut::<BLOCK>();
    let mut one = |block: &mut [f32; BLOCK]| {
        for (v, sum) in block.as_chunks_mut().0.iter_mut().zip(&mut sums) {
            let e = math::exp(lanes, lanes.sub(lanes.load(v), shift));
            *sum = lanes.add(*sum, e);
            lanes.store(e, v);
        }
    };
    blocks.iter_mut().for_each(&mut one);
    if !rest.is_empty() {
        let mut last = padded(rest, f32::NEG_INFINITY);
        one(&mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
    total(lanes, sums)
}

/// The largest element; minus infinity for none; anything if one is NaN.
#[inline(always)]
fn largest<L: Lanes>(lanes: L, x: &[f32]) -> f32 {
    let mut max = [lanes.splat(f32::NEG_INFINITY); 4];
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    let mut one = |block: &[f32; BLOCK]| {
        for (v, max) in block.as_chunks().0.iter().zip(&mut max) {
            *max = lanes.max(*max, lanes.load(v));
        }
    };
    blocks.iter().for_each(&mut one);
    if !rest.is_empty() {
        one(&padded(rest, f32::NEG_INFINITY));
    }
    let [a, b, c, d] = max;
    lanes.largest(lanes.max(lanes.max(a, b), lanes.max(c, d)))
}

/// `Σ f(x)`, where `padding` is a value that `f` makes zero.
#[inline(always)]
fn sum_of<L: Lanes>(lanes: L, x: &[f32], padding: f32, f: impl Fn(L::V) -> L::V) -> f32 {
    let mut sums = [lanes.splat(0.0); 4];
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    let mut one = |block: &[f32; BLOCK]| {
        for (v, sum) in block.as_chunks().0.iter().zip(&mut sums) {
            *sum = lanes.add(*sum, f(lanes.load(v)));
        }
    };
    blocks.iter().for_each(&mut one);
    if !rest.is_empty() {
        one(&padded(rest, padding));
    }
    total(lanes, sums)
}

/// The sum of all lanes of four vectors.
#[inline(always)]
fn total<L: Lanes>(lanes: L, [a, b, c, d]: [L::V; 4]) -> f32 {
    lanes.sum(lanes.add(lanes.add(a, b), lanes.add(c, d)))
}

/// Applies `f` to all elements. Taking whole blocks lets the constants of `f`, which wasm names anew at every use and
/// browsers do not hoist, serve four vectors.
#[inline(always)]
fn map<L: Lanes>(lanes: L, x: &mut [f32], f: impl Fn(L::V) -> L::V) {
    let (blocks, rest) = x.as_chunks_mut::<BLOCK>();
    let one = |block: &mut [f32; BLOCK]| {
        for v in block.as_chunks_mut().0 {
            lanes.store(f(lanes.load(v)), v);
        }
    };
    blocks.iter_mut().for_each(one);
    if !rest.is_empty() {
        let mut last = padded(rest, 0.0);
        one(&mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}
