//! 8-bit weights on wasm's fixed-width SIMD: pairs of bytes are multiplied as the 16-bit integers that they are, by
//! `i32x4.dot_i16x8_s`, and once more without their high byte: see [`q8`](super::q8).
//!
//! ```text
//! step (2 columns)    integers[pair][half]     → 8 rows x 2 columns, in 16-bit lanes
//!                     inputs[pair]             → 4 times the same 2 inputs
//!                     both += i32x4.dot_i16x8_s of lanes and inputs
//!                     low  += i32x4.dot_i16x8_s of lanes & 255 and inputs
//! end of a block      rows 0..4: low, rows 4..8: ((both - low) >> 8) + base
//! ```

use core::arch::wasm32::*;

use super::BLOCK;
use super::blocks_simd128::{BlockDots, InVectors, Steps, products, spread, transposed, unrolled};
use super::q8::{Integers, ZERO_POINT};
use super::quantised::{Quantised, Scales};

/// Products with 8-bit weights on simd128.
pub(super) static KERNEL: Quantised<InVectors<Pairs>> = products(Pairs);
/// Its loops alone.
pub(super) const DOTS: InVectors<Pairs> = InVectors::new(Pairs);

/// Dots of pairs of 16-bit integers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairs;

/// A block of inputs of `M` rows for weights with a zero point.
#[derive(Clone, Copy)]
pub(super) struct Words<const M: usize> {
    /// Columns `2 i` and `2 i + 1` of each row, in the low and high half.
    pub(super) words: [[i32; M]; BLOCK / 2],
    /// Where the dots of each row start.
    pub(super) starts: [i32; M],
}

impl<const M: usize> Words<M> {
    #[inline(always)]
    pub(super) fn pairs(bases: [f32; M], integers: &[[i32; BLOCK]; M], zero_point: i32) -> Self {
        let rows: [[i32; BLOCK / 2]; M] = integers.each_ref().map(|row| {
            let pairs: [v128; BLOCK / 8] = std::array::from_fn(|i| {
                let [low, high]: [v128; 2] = bytemuck::must_cast(row.as_chunks::<8>().0[i]);
                i16x8_narrow_i32x4(low, high)
            });
            bytemuck::must_cast(pairs)
        });
        Self { words: transposed(&rows), starts: starts(bases, integers, zero_point) }
    }
}

/// Where the dots of each row of inputs start: at its base, less what the zero point adds to them.
#[inline(always)]
pub(super) fn starts<const M: usize>(
    bases: [f32; M],
    integers: &[[i32; BLOCK]; M],
    zero_point: i32,
) -> [i32; M] {
    std::array::from_fn(|r| {
        (bases[r].to_bits() as i32).wrapping_sub(zero_point * integers[r].iter().sum::<i32>())
    })
}

/// `sum + Σ weights * inputs` of each lane's pair.
#[inline(always)]
pub(super) fn dot(sum: v128, weights: v128, inputs: v128) -> v128 {
    i32x4_add(sum, i32x4_dot_i16x8(weights, inputs))
}

/// The low bytes of 16-bit lanes.
#[inline(always)]
fn low(lanes: v128) -> v128 {
    v128_and(lanes, i16x8_splat(255))
}

/// The dots of high rows, added to the bits of `base`.
#[inline(always)]
fn high(both: v128, low: v128, base: v128) -> v128 {
    i32x4_add(i32x4_shr(i32x4_sub(both, low), 8), base)
}

impl<B: AsRef<Integers> + Scales + Copy> BlockDots<B> for Pairs {
    const NAME: &'static str = "simd128";
    const INSTRUCTION: &'static str = "i32x4.dot_i16x8_s";
    const HALVES: [[usize; 2]; 2] = [[0, 1], [2, 3]];
    type Input<const M: usize> = Words<M>;
    type Unpacked = B;

    #[inline(always)]
    fn unpacked<'a>(self, panel: &'a [B], _: &'a mut Vec<B>) -> &'a [B] {
        panel
    }

    #[inline(always)]
    fn input<const M: usize>(self, bases: [f32; M], integers: &[[i32; BLOCK]; M]) -> Words<M> {
        Words::pairs(bases, integers, ZERO_POINT)
    }

    #[inline(always)]
    fn row(self, block: &B, x: &Words<1>, base: v128, steps: Steps) -> [v128; 4] {
        let Integers(integers) = block.as_ref();
        let start = i32x4_splat(x.starts[0]);
        let (mut a, mut p, mut b, mut q) = (start, start, start, start);
        unrolled!(PART in 0 1 2 3 4 5 6 7, apart by steps {
            let pairs = spread(&x.words.as_chunks().0[PART / 2]);
            let integers = &integers.as_chunks::<2>().0[PART];
            unrolled!(STEP in 0 1 {
                let pair = pairs[PART % 2 * 2 + STEP];
                let [left, right]: [v128; 2] = bytemuck::must_cast(integers[STEP]);
                a = dot(a, left, pair);
                p = dot(p, low(left), pair);
                b = dot(b, right, pair);
                q = dot(q, low(right), pair);
            });
        });
        [p, high(a, p, base), q, high(b, q, base)]
    }

    #[inline(always)]
    fn half<const HALF: usize, const M: usize>(
        self,
        block: &B,
        x: &Words<M>,
        bases: &[f32; M],
        steps: Steps,
    ) -> [[v128; 2]; M] {
        let Integers(integers) = block.as_ref();
        let mut sums = x.starts.map(|start| [i32x4_splat(start); 2]);
        unrolled!(STEP in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15, apart by steps {
            let lanes: v128 = bytemuck::must_cast(integers[STEP][HALF]);
            let bytes = low(lanes);
            for ([a, p], pair) in sums.iter_mut().zip(x.words[STEP]) {
                let pair = i32x4_splat(pair);
                (*a, *p) = (dot(*a, lanes, pair), dot(*p, bytes, pair));
            }
        });
        std::array::from_fn(|r| {
            let [a, p] = sums[r];
            [p, high(a, p, f32x4_splat(bases[r]))]
        })
    }
}

#[cfg(test)]
super::contract::kernel_contract!(q8, "simd128", &KERNEL);
