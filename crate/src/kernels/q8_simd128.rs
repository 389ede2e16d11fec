//! 8-bit weights on wasm's fixed-width SIMD: bytes are widened to 16 bits and multiplied in pairs by `i32x4.dot_i16x8_s`.
//!
//! ```text
//! step (2 columns)    integers[pair][quad] → 4 rows x 2 columns of i16    v128.load8x8_s
//!                     inputs[pair]         → 4 times the same 2 inputs    v128.load32_splat
//!                     dots[quad] += i32x4.dot_i16x8_s of both
//! ```

use core::arch::wasm32::*;

use super::BLOCK;
use super::blocks_simd128::{BlockDots, InVectors, products, unrolled};
use super::q8::Integers;
use super::quantised::{Quantised, TILE};

/// Products with 8-bit weights on simd128.
pub(super) static KERNEL: Quantised<InVectors<Pairs>> = products(Pairs);
/// Its loops alone.
pub(super) const DOTS: InVectors<Pairs> = products(Pairs).0;

/// Dots of pairs of 16-bit integers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairs;

/// A block of inputs of `M` rows, two columns to an entry: columns `2 i` and `2 i + 1` of each row, in the low and high half.
pub(super) type Paired<const M: usize> = [[i32; M]; BLOCK / 2];

#[inline(always)]
pub(super) fn paired<const M: usize>(integers: &[[i32; BLOCK]; M]) -> Paired<M> {
    let mut pairs = [[0; M]; BLOCK / 2];
    for (r, integers) in integers.iter().enumerate() {
        for (pairs, integers) in pairs.as_chunks_mut::<4>().0.iter_mut().zip(integers.as_chunks::<8>().0) {
            let [low, high]: [v128; 2] = bytemuck::must_cast(*integers);
            let four: [i32; 4] = bytemuck::must_cast(i16x8_narrow_i32x4(low, high));
            pairs.iter_mut().zip(four).for_each(|(pair, of_row)| pair[r] = of_row);
        }
    }
    pairs
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

impl<B: AsRef<Integers>> BlockDots<B> for Pairs {
    const NAME: &'static str = "simd128";
    const INSTRUCTION: &'static str = "i32x4.dot_i16x8_s";
    const HALVES: [[usize; 2]; 2] = [[0, 1], [2, 3]];
    type Input<const M: usize> = Paired<M>;

    #[inline(always)]
    fn input<const M: usize>(self, integers: &[[i32; BLOCK]; M]) -> Paired<M> {
        paired(integers)
    }

    #[inline(always)]
    fn row(self, block: &B, x: &Paired<1>) -> [v128; 4] {
        let Integers(integers) = block.as_ref();
        let zero = i32x4_splat(0);
        let (mut p, mut q, mut r, mut s) = (zero, zero, zero, zero);
        unrolled!(STEP in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 {
            let (quads, pair) = (&integers[STEP], i32x4_splat(x[STEP][0]));
            p = dot(p, widened(&quads[0]), pair);
            q = dot(q, widened(&quads[1]), pair);
            r = dot(r, widened(&quads[2]), pair);
            s = dot(s, widened(&quads[3]), pair);
        });
        [p, q, r, s]
    }

    #[inline(always)]
    fn half<const HALF: usize>(self, block: &B, x: &Paired<TILE>) -> [[v128; 2]; TILE] {
        let Integers(integers) = block.as_ref();
        let zero = i32x4_splat(0);
        let (mut a0, mut b0, mut a1, mut b1) = (zero, zero, zero, zero);
        let (mut a2, mut b2, mut a3, mut b3) = (zero, zero, zero, zero);
        for (quads, pairs) in integers.iter().zip(x) {
            let (left, right) = (widened(&quads[2 * HALF]), widened(&quads[2 * HALF + 1]));
            let pair = |r: usize| i32x4_splat(pairs[r]);
            (a0, b0) = (dot(a0, left, pair(0)), dot(b0, right, pair(0)));
            (a1, b1) = (dot(a1, left, pair(1)), dot(b1, right, pair(1)));
            (a2, b2) = (dot(a2, left, pair(2)), dot(b2, right, pair(2)));
            (a3, b3) = (dot(a3, left, pair(3)), dot(b3, right, pair(3)));
        }
        [[a0, b0], [a1, b1], [a2, b2], [a3, b3]]
    }
}

#[cfg(test)]
super::contract::kernel_contract!(q8, "simd128", &KERNEL);
