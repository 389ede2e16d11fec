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

use super::blocks_simd128::{BlockDots, InVectors, products, rolled, spread, unrolled};
use super::q4::ZERO_POINT;
use super::q8_simd128::{Paired, dot};
use super::quantised::{Quantised, TILE};
use super::{BLOCK, Q4Block};

/// Products with 4-bit weights on simd128.
pub(super) static KERNEL: Quantised<InVectors<NibblePairs>> = products(NibblePairs);

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

impl BlockDots<Q4Block> for NibblePairs {
    const NAME: &'static str = "simd128";
    const INSTRUCTION: &'static str = "i32x4.dot_i16x8_s";
    const HALVES: [[usize; 2]; 2] = [[0, 2], [1, 3]];
    type Input<const M: usize> = Paired<M>;

    #[inline(always)]
    fn input<const M: usize>(self, integers: &[[i32; BLOCK]; M]) -> Paired<M> {
        Paired::new(integers, ZERO_POINT)
    }

    #[inline(always)]
    fn row(self, block: &Q4Block, x: &Paired<1>) -> [v128; 4] {
        let start = i32x4_splat(x.starts[0]);
        let (mut p, mut q, mut r, mut s) = (start, start, start, start);
        for (halves, pairs) in rolled(block.weights.as_chunks::<2>().0).iter().zip(x.pairs.as_chunks::<4>().0)
        {
            let pairs = spread(*pairs);
            unrolled!(STEP in 0 1 {
                let (first, second) = (pairs[2 * STEP], pairs[2 * STEP + 1]);
                let [low, high] = nibbles(&halves[STEP][0]);
                p = dot(dot(p, low[0], first), low[1], second);
                q = dot(dot(q, high[0], first), high[1], second);
                let [low, high] = nibbles(&halves[STEP][1]);
                r = dot(dot(r, low[0], first), low[1], second);
                s = dot(dot(s, high[0], first), high[1], second);
            });
        }
        [p, q, r, s]
    }

    // A half is the rows that are low nibbles, or high ones: two vectors of weights then come from two loads, and one load's do not wait
    // for each other in registers.
    #[inline(always)]
    fn half<const HIGH: usize>(self, block: &Q4Block, x: &Paired<TILE>) -> [[v128; 2]; TILE] {
        let start = |r: usize| i32x4_splat(x.starts[r]);
        let (mut a0, mut b0, mut a1, mut b1) = (start(0), start(0), start(1), start(1));
        let (mut a2, mut b2, mut a3, mut b3) = (start(2), start(2), start(3), start(3));
        for (halves, pairs) in block.weights.iter().zip(x.pairs.as_chunks::<2>().0) {
            let (left, right) = (nibbles(&halves[0])[HIGH], nibbles(&halves[1])[HIGH]);
            let pair = |r: usize, index: usize| i32x4_splat(pairs[index][r]);
            macro_rules! step {
                ($index:literal, $(($r:literal, $a:ident, $b:ident)),*) => {
                    $(($a, $b) = (
                        dot($a, left[$index], pair($r, $index)),
                        dot($b, right[$index], pair($r, $index)),
                    );)*
                };
            }
            step!(0, (0, a0, b0), (1, a1, b1), (2, a2, b2), (3, a3, b3));
            step!(1, (0, a0, b0), (1, a1, b1), (2, a2, b2), (3, a3, b3));
        }
        [[a0, b0], [a1, b1], [a2, b2], [a3, b3]]
    }
}

#[cfg(test)]
super::contract::kernel_contract!(q4, "simd128", &KERNEL);
