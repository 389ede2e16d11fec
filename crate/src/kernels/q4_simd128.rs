//! 4-bit weights on wasm's fixed-width SIMD: nibbles become 16-bit integers, and meet inputs as [8-bit weights](super::q8) do.
//!
//! ```text
//! step (4 columns)    weights[group][half] → 4 vectors of 4 rows x 2 columns of i16, by masks and shifts
//!                       low nibbles:  lanes & 15         rows 0..4, columns 0 and 1
//!                                     lanes >> 8 & 15    rows 0..4, columns 2 and 3
//!                       high nibbles: lanes >> 4 & 15    rows 4..8, columns 0 and 1
//!                                     lanes >> 12        rows 4..8, columns 2 and 3
//!                     dots of each with one of two pairs of inputs
//! ```
//!
//! Nibbles are weights plus 8, so a block's dots start at -8 times the sum of its inputs.

use core::arch::wasm32::*;

use super::q4::ZERO_POINT;
use super::q8_simd128::{Paired, dot, load, scaled, scales, store};
use super::quantised::{Dots, Quantised, TILE, unrolled};
use super::{BLOCK, Entry, Q4Block};

/// Products with 4-bit weights on simd128.
pub(super) static KERNEL: Quantised<NibblePairs> = Quantised(NibblePairs);

/// Dots of pairs of nibbles with pairs of 16-bit integers.
#[derive(Clone, Copy, Debug)]
pub(super) struct NibblePairs;

/// Eight rows by four columns: `[rows 0..4, rows 4..8][columns 0..2, columns 2..4]`.
#[inline(always)]
fn nibbles(bytes: &[u8; 16]) -> [[v128; 2]; 2] {
    let lanes: v128 = bytemuck::must_cast(*bytes);
    let mask = i16x8_splat(15);
    [
        [v128_and(lanes, mask), v128_and(u16x8_shr(lanes, 8), mask)],
        [v128_and(u16x8_shr(lanes, 4), mask), u16x8_shr(lanes, 12)],
    ]
}

impl Dots<Q4Block> for NibblePairs {
    const NAME: &'static str = "simd128";
    const INSTRUCTION: &'static str = "i32x4.dot_i16x8_s";
    type Input<const M: usize> = Paired<M>;

    #[inline(always)]
    fn input<const M: usize>(self, scales: [f32; M], integers: &[[i32; BLOCK]; M]) -> Paired<M> {
        Paired::new(scales, integers)
    }

    #[inline(always)]
    fn row(self, panel: &[Q4Block], x: &[Paired<1>], sums: &mut Entry) {
        let (mut a, mut b, mut c, mut d) = (load(sums, 0), load(sums, 1), load(sums, 2), load(sums, 3));
        for (block, x) in panel.iter().zip(x) {
            let start = i32x4_splat(-ZERO_POINT * x.sums[0]);
            let (mut p, mut q, mut r, mut s) = (start, start, start, start);
            unrolled!(STEP in 0 1 2 3 4 5 6 7 {
                let halves = &block.weights[STEP];
                let (first, second) = (i32x4_splat(x.pairs[2 * STEP][0]), i32x4_splat(x.pairs[2 * STEP + 1][0]));
                let [low, high] = nibbles(&halves[0]);
                p = dot(dot(p, low[0], first), low[1], second);
                q = dot(dot(q, high[0], first), high[1], second);
                let [low, high] = nibbles(&halves[1]);
                r = dot(dot(r, low[0], first), low[1], second);
                s = dot(dot(s, high[0], first), high[1], second);
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
    fn tile(self, panel: &[Q4Block], x: &[Paired<TILE>], sums: &mut [Entry; TILE]) {
        half_tile::<0>(panel, x, sums);
        half_tile::<1>(panel, x, sums);
    }
}

/// [`Dots::tile`] for one half of the panel's rows: 8 sums in registers, four weights, an input.
#[inline(always)]
fn half_tile<const HALF: usize>(panel: &[Q4Block], x: &[Paired<TILE>], sums: &mut [Entry; TILE]) {
    for (block, x) in panel.iter().zip(x) {
        let start = |r: usize| i32x4_splat(-ZERO_POINT * x.sums[r]);
        let (mut a0, mut a1, mut a2, mut a3) = (start(0), start(1), start(2), start(3));
        let (mut b0, mut b1, mut b2, mut b3) = (a0, a1, a2, a3);
        for (halves, pairs) in block.weights.iter().zip(x.pairs.as_chunks::<2>().0) {
            let [low, high] = nibbles(&halves[HALF]);
            let pair = |r: usize, index: usize| i32x4_splat(pairs[index][r]);
            macro_rules! step {
                ($index:literal, $(($r:literal, $a:ident, $b:ident)),*) => {
                    $(($a, $b) = (
                        dot($a, low[$index], pair($r, $index)),
                        dot($b, high[$index], pair($r, $index)),
                    );)*
                };
            }
            step!(0, (0, a0, b0), (1, a1, b1), (2, a2, b2), (3, a3, b3));
            step!(1, (0, a0, b0), (1, a1, b1), (2, a2, b2), (3, a3, b3));
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
super::contract::kernel_contract!(q4, "simd128", &KERNEL);
