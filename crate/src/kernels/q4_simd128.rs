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
//! Nibbles are weights plus 8, so a block's dots start at the base of its inputs, less 8 times their sum. That is for one row of inputs; before many, a
//! panel becomes one of [`Q8Block`]s, once for all tiles, which then are those of `q8_simd128`.

use core::arch::wasm32::*;

use super::blocks_simd128::{BlockDots, InVectors, Steps, products, spread, unrolled};
use super::q4::ZERO_POINT;
use super::q8;
use super::q8_simd128::{Pairs, Words, dot};
use super::quantised::Quantised;
use super::{BLOCK, Block, Q4Block, Q8Block};

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

/// Writes the same weights in bytes: low rows as nibbles plus 120, high ones as nibbles minus 8.
#[inline(always)]
fn widen(block: &Q4Block, bytes: &mut Q8Block) {
    bytes.scales = block.scales;
    let zero_points = i16x8_splat((q8::ZERO_POINT - ZERO_POINT) as i16 | (-ZERO_POINT as i16) << 8);
    for (halves, pairs) in block.weights.iter().zip(bytes.integers.0.as_chunks_mut::<2>().0) {
        for half in 0..halves.len() {
            let [low, high] = nibbles(&halves[half]);
            for (pair, (low, high)) in pairs.iter_mut().zip(low.into_iter().zip(high)) {
                pair[half] = bytemuck::must_cast(i8x16_add(v128_or(low, i16x8_shl(high, 8)), zero_points));
            }
        }
    }
}

impl BlockDots<Q4Block> for NibblePairs {
    const NAME: &'static str = "simd128";
    const INSTRUCTION: &'static str = "i32x4.dot_i16x8_s";
    const HALVES: [[usize; 2]; 2] = <Pairs as BlockDots<Q8Block>>::HALVES;
    type Input<const M: usize> = Words<M>;
    type Unpacked = Q8Block;

    #[inline(always)]
    fn input<const M: usize>(self, bases: [f32; M], integers: &[[i32; BLOCK]; M]) -> Words<M> {
        Words::pairs(bases, integers, if M == 1 { ZERO_POINT } else { q8::ZERO_POINT })
    }

    #[inline(always)]
    fn unpacked<'a>(self, panel: &'a [Q4Block], scratch: &'a mut Vec<Q8Block>) -> &'a [Q8Block] {
        scratch.resize(panel.len(), Q8Block::ZERO);
        panel.iter().zip(scratch.iter_mut()).for_each(|(block, bytes)| widen(block, bytes));
        scratch
    }

    #[inline(always)]
    fn row(self, block: &Q4Block, x: &Words<1>, _: v128, steps: Steps) -> [v128; 4] {
        let start = i32x4_splat(x.starts[0]);
        let (mut p, mut q, mut r, mut s) = (start, start, start, start);
        unrolled!(PART in 0 1 2 3, apart by steps {
            let pairs = spread(&x.words.as_chunks().0[PART]);
            let halves = &block.weights.as_chunks::<2>().0[PART];
            unrolled!(STEP in 0 1 {
                let (first, second) = (pairs[2 * STEP], pairs[2 * STEP + 1]);
                let [low, high] = nibbles(&halves[STEP][0]);
                p = dot(dot(p, low[0], first), low[1], second);
                q = dot(dot(q, high[0], first), high[1], second);
                let [low, high] = nibbles(&halves[STEP][1]);
                r = dot(dot(r, low[0], first), low[1], second);
                s = dot(dot(s, high[0], first), high[1], second);
            });
        });
        [p, q, r, s]
    }

    #[inline(always)]
    fn half<const HALF: usize, const M: usize>(
        self,
        block: &Q8Block,
        x: &Words<M>,
        bases: &[f32; M],
        steps: Steps,
    ) -> [[v128; 2]; M] {
        BlockDots::<Q8Block>::half::<HALF, M>(Pairs, block, x, bases, steps)
    }
}

#[cfg(test)]
super::contract::kernel_contract!(q4, "simd128", &KERNEL);
