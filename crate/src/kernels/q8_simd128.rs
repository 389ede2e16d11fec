//! 8-bit weights on wasm's fixed-width SIMD: bytes are widened to 16 bits and multiplied in pairs by `i32x4.dot_i16x8_s`.
//!
//! ```text
//! step (2 columns)    weights[pair][quad] → 4 rows x 2 columns of i16    i16x8.load8x8_s
//!                     inputs[pair]        → 4 times the same 2 inputs    v128.load32_splat
//!                     dots[quad] += i32x4.dot_i16x8_s of both
//! ```
//!
//! A block is 16 steps; then the four vectors of dots become floats and join the sums. No sum crosses lanes.

use core::arch::wasm32::*;

use super::quantise::Scale;
use super::quantised::{Dots, Quantised, TILE, unrolled};
use super::simd128::Simd128;
use super::{BLOCK, Entry, Lanes, PANEL, Q8Block};

/// Products with 8-bit weights on simd128.
pub(super) static KERNEL: Quantised<Pairs> = Quantised(Pairs);

/// Dots of pairs of 16-bit integers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairs;

/// A block of inputs of `M` rows, two columns to an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paired<const M: usize> {
    pub(super) scales: [f32; M],
    /// Columns `2 i` and `2 i + 1` of each row, in the low and high half.
    pub(super) pairs: [[i32; M]; BLOCK / 2],
    /// The sum of all columns of each row.
    pub(super) sums: [i32; M],
}

impl<const M: usize> Paired<M> {
    #[inline(always)]
    pub(super) fn new(scales: [f32; M], integers: &[[i32; BLOCK]; M]) -> Self {
        let mut pairs = [[0; M]; BLOCK / 2];
        for (r, integers) in integers.iter().enumerate() {
            for (pair, [low, high]) in pairs.iter_mut().zip(integers.as_chunks::<2>().0) {
                pair[r] = (low & 0xffff) | (high << 16);
            }
        }
        Self { scales, pairs, sums: std::array::from_fn(|r| integers[r].iter().sum()) }
    }
}

/// Eight bytes as 16-bit integers.
#[inline(always)]
fn widened(bytes: &[i8; 8]) -> v128 {
    i16x8_extend_low_i8x16(i64x2(bytemuck::must_cast(*bytes), 0))
}

/// `sum + Σ weights * inputs` of each lane's pair.
#[inline(always)]
pub(super) fn dot(sum: v128, weights: v128, inputs: v128) -> v128 {
    i32x4_add(sum, i32x4_dot_i16x8(weights, inputs))
}

/// The scales of four neighbouring rows: see [`Scale::to_f32`].
#[inline(always)]
pub(super) fn scales(scales: &[Scale; PANEL], quad: usize) -> v128 {
    let eight: v128 = bytemuck::must_cast(scales.as_chunks::<8>().0[quad / 2].map(|scale| scale.0));
    let is_low = quad.is_multiple_of(2);
    let four = if is_low { i32x4_extend_low_i16x8(eight) } else { i32x4_extend_high_i16x8(eight) };
    let shifted = v128_and(i32x4_shl(four, Scale::SHIFT), i32x4_splat(Scale::MASK));
    i32x4_add(shifted, i32x4_splat(Scale::BIAS))
}

/// `sum + f32(dots) * (weights' scales * inputs' scale)`.
#[inline(always)]
pub(super) fn scaled(sum: v128, dots: v128, weights: v128, inputs: v128) -> v128 {
    f32x4_add(sum, f32x4_mul(f32x4_convert_i32x4(dots), f32x4_mul(weights, inputs)))
}

/// One vector of an entry.
#[inline(always)]
pub(super) fn load(entry: &Entry, quad: usize) -> v128 {
    Simd128.load(&entry.as_chunks().0[quad])
}

#[inline(always)]
pub(super) fn store(sum: v128, entry: &mut Entry, quad: usize) {
    Simd128.store(sum, &mut entry.as_chunks_mut().0[quad]);
}

impl Dots<Q8Block> for Pairs {
    const NAME: &'static str = "simd128";
    const INSTRUCTION: &'static str = "i32x4.dot_i16x8_s";
    type Input<const M: usize> = Paired<M>;

    #[inline(always)]
    fn input<const M: usize>(self, scales: [f32; M], integers: &[[i32; BLOCK]; M]) -> Paired<M> {
        Paired::new(scales, integers)
    }

    #[inline(always)]
    fn row(self, panel: &[Q8Block], x: &[Paired<1>], sums: &mut Entry) {
        let (mut a, mut b, mut c, mut d) = (load(sums, 0), load(sums, 1), load(sums, 2), load(sums, 3));
        for (block, x) in panel.iter().zip(x) {
            let zero = i32x4_splat(0);
            let (mut p, mut q, mut r, mut s) = (zero, zero, zero, zero);
            unrolled!(STEP in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 {
                let (quads, pair) = (&block.weights[STEP], i32x4_splat(x.pairs[STEP][0]));
                p = dot(p, widened(&quads[0]), pair);
                q = dot(q, widened(&quads[1]), pair);
                r = dot(r, widened(&quads[2]), pair);
                s = dot(s, widened(&quads[3]), pair);
            });
            let scale = f32x4_splat(x.scales[0]);
            a = scaled(a, p, scales(&block.scales, 0), scale);
            b = scaled(b, q, scales(&block.scales, 1), scale);
            c = scaled(c, r, scales(&block.scales, 2), scale);
            d = scaled(d, s, scales(&block.scales, 3), scale);
        }
        store(a, sums, 0);
        store(b, sums, 1);
        store(c, sums, 2);
        store(d, sums, 3);
    }

    #[inline(always)]
    fn tile(self, panel: &[Q8Block], x: &[Paired<TILE>], sums: &mut [Entry; TILE]) {
        half_tile::<0>(panel, x, sums);
        half_tile::<1>(panel, x, sums);
    }
}

/// [`Dots::tile`] for one half of the panel's rows: 8 sums in registers, two weights, an input.
#[inline(always)]
fn half_tile<const HALF: usize>(panel: &[Q8Block], x: &[Paired<TILE>], sums: &mut [Entry; TILE]) {
    for (block, x) in panel.iter().zip(x) {
        let zero = i32x4_splat(0);
        let (mut a0, mut b0, mut a1, mut b1) = (zero, zero, zero, zero);
        let (mut a2, mut b2, mut a3, mut b3) = (zero, zero, zero, zero);
        for (quads, pairs) in block.weights.iter().zip(&x.pairs) {
            let (left, right) = (widened(&quads[2 * HALF]), widened(&quads[2 * HALF + 1]));
            let pair = |r: usize| i32x4_splat(pairs[r]);
            (a0, b0) = (dot(a0, left, pair(0)), dot(b0, right, pair(0)));
            (a1, b1) = (dot(a1, left, pair(1)), dot(b1, right, pair(1)));
            (a2, b2) = (dot(a2, left, pair(2)), dot(b2, right, pair(2)));
            (a3, b3) = (dot(a3, left, pair(3)), dot(b3, right, pair(3)));
        }
        let (left, right) = (scales(&block.scales, 2 * HALF), scales(&block.scales, 2 * HALF + 1));
        let dots = [(a0, b0), (a1, b1), (a2, b2), (a3, b3)];
        for ((sums, scale), (a, b)) in sums.iter_mut().zip(x.scales).zip(dots) {
            let scale = f32x4_splat(scale);
            store(scaled(load(sums, 2 * HALF), a, left, scale), sums, 2 * HALF);
            store(scaled(load(sums, 2 * HALF + 1), b, right, scale), sums, 2 * HALF + 1);
        }
    }
}

#[cfg(test)]
super::contract::kernel_contract!(q8, "simd128", &KERNEL);
