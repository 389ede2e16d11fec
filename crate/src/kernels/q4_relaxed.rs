//! 4-bit weights on relaxed SIMD: 16 products an instruction, by `i16x8.relaxed_dot_i8x16_i7x16_s`.
//!
//! Its second operand is exact within `0..=127`, and a nibble is; the first is an input of `-127..=127`. A lane gets two products, at most
//! `2 * 15 * 127`, and over the eight groups of a block at most 30,480 in magnitude: it fits 16 bits. So a block is summed up in 16-bit
//! lanes, two for each row, and widened only at its end.
//!
//! ```text
//! step (4 columns)    weights[group][half] & 15, >> 4 & 15  → 2 vectors of 4 rows x 4 columns of bytes
//!                     inputs[group]                         → 4 times the same 4 inputs    v128.load32_splat, or a shuffle for one row
//!                     dots += i16x8.relaxed_dot_i8x16_i7x16_s
//! end of a block      i32x4.extadd_pairwise_i16x8_s
//! ```
//!
//! That is for one row of inputs; before many, a panel's nibbles become bytes, once for all tiles.
//!
//! Nibbles are weights plus 8, so dots start at -8 times the sum of the inputs that their lane will see; that may wrap around on the
//! way, and does not at the end: a block of weights of `-8..=7` sums to at most `16 * 8 * 127` in a lane.

use core::arch::wasm32::*;

use super::blocks_simd128::{BlockDots, InVectors, Steps, products, spread, transposed, unrolled};
use super::q4::{ORDER, ZERO_POINT};
use super::quantise::Scale;
use super::quantised::{Quantised, Scales, TILE};
use super::{BLOCK, PANEL, Q4Block};

/// Products with 4-bit weights on relaxed SIMD.
pub(super) static KERNEL: Quantised<InVectors<NibbleQuads>> = products(NibbleQuads);

/// Dots of four nibbles with four bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct NibbleQuads;

/// A block with a byte for each weight, which is 0 to 15.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(super) struct Nibbles {
    scales: [Scale; PANEL],
    /// `[row / 8][k / 4][row / 4 % 2][4 (row % 4) + ORDER[k % 4]]`
    nibbles: [[[[u8; 16]; 2]; BLOCK / 4]; 2],
}

impl Nibbles {
    const ZERO: Self = Self { scales: [Scale(0); PANEL], nibbles: [[[[0; 16]; 2]; BLOCK / 4]; 2] };
}

impl Scales for Nibbles {
    fn scales(&self) -> &[Scale; PANEL] {
        &self.scales
    }
}

/// A block of inputs of `M` rows, four columns to an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quads<const M: usize> {
    /// Columns `4 i` to `4 i + 3` of each row as bytes, in the order of the weights.
    quads: [[i32; M]; BLOCK / 4],
    /// Where the two lanes of a row of weights start.
    starts: [i32; M],
}

/// `sum + Σ weights * inputs` of each lane's two columns.
#[inline(always)]
fn dot(sum: v128, weights: v128, inputs: v128) -> v128 {
    i16x8_add(sum, i16x8_relaxed_dot_i8x16_i7x16(inputs, weights))
}

/// Eight rows by four columns: rows 0..4, rows 4..8.
#[inline(always)]
fn nibbles(bytes: &[u8; 16]) -> [v128; 2] {
    let bytes: v128 = bytemuck::must_cast(*bytes);
    let mask = i8x16_splat(15);
    [v128_and(bytes, mask), v128_and(u16x8_shr(bytes, 4), mask)]
}

impl BlockDots<Q4Block> for NibbleQuads {
    const NAME: &'static str = "relaxed-simd";
    const INSTRUCTION: &'static str = "i16x8.relaxed_dot_i8x16_i7x16_s";
    const HALVES: [[usize; 2]; 2] = [[0, 1], [2, 3]];
    type Input<const M: usize> = Quads<M>;
    type Unpacked = Nibbles;

    #[inline(always)]
    fn unpacked<'a>(self, panel: &'a [Q4Block], scratch: &'a mut Vec<Nibbles>) -> &'a [Nibbles] {
        scratch.resize(panel.len(), Nibbles::ZERO);
        for (block, unpacked) in panel.iter().zip(scratch.iter_mut()) {
            unpacked.scales = block.scales;
            let [left, right] = &mut unpacked.nibbles;
            for ((halves, left), right) in block.weights.iter().zip(left).zip(right) {
                *left = bytemuck::must_cast(nibbles(&halves[0]));
                *right = bytemuck::must_cast(nibbles(&halves[1]));
            }
        }
        scratch
    }

    #[inline(always)]
    fn input<const M: usize>(self, integers: &[[i32; BLOCK]; M]) -> Quads<M> {
        const { assert!(matches!(ORDER, [0, 2, 1, 3]), "the order of both shuffles") };
        let starts = integers.each_ref().map(|row| {
            let quads = row.as_chunks::<4>().0.iter().map(|quad| bytemuck::must_cast(*quad));
            let sums = quads.fold(i32x4_splat(0), |sums, quad| i32x4_add(sums, quad));
            let [a, b, c, d]: [i32; 4] = bytemuck::must_cast(i32x4_shuffle::<0, 2, 1, 3>(sums, sums));
            ((-ZERO_POINT * (a + b)) & 0xffff) | ((-ZERO_POINT * (c + d)) << 16)
        });
        let rows: [[i32; BLOCK / 4]; M] = integers.each_ref().map(|row| {
            let quads: [v128; BLOCK / 16] = std::array::from_fn(|i| {
                let [a, b, c, d]: [v128; 4] = bytemuck::must_cast(row.as_chunks::<16>().0[i]);
                let bytes = i8x16_narrow_i16x8(i16x8_narrow_i32x4(a, b), i16x8_narrow_i32x4(c, d));
                i8x16_shuffle::<0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15>(bytes, bytes)
            });
            bytemuck::must_cast(quads)
        });
        Quads { quads: transposed(&rows), starts }
    }

    #[inline(always)]
    fn row(self, block: &Q4Block, x: &Quads<1>, steps: Steps) -> [v128; 4] {
        let start = i32x4_splat(x.starts[0]);
        let (mut p, mut q, mut r, mut s) = (start, start, start, start);
        unrolled!(PART in 0 1 2 3, apart by steps {
            let quads = spread(&x.quads.as_chunks().0[PART / 2]);
            let halves = &block.weights.as_chunks::<2>().0[PART];
            unrolled!(STEP in 0 1 {
                let quad = quads[PART % 2 * 2 + STEP];
                let [low, high] = nibbles(&halves[STEP][0]);
                p = dot(p, low, quad);
                q = dot(q, high, quad);
                let [low, high] = nibbles(&halves[STEP][1]);
                r = dot(r, low, quad);
                s = dot(s, high, quad);
            });
        });
        [p, q, r, s].map(|dots| i32x4_extadd_pairwise_i16x8(dots))
    }

    #[inline(always)]
    fn half<const HALF: usize>(self, block: &Nibbles, x: &Quads<TILE>, steps: Steps) -> [[v128; 2]; TILE] {
        let start = |r: usize| i32x4_splat(x.starts[r]);
        let (mut a0, mut b0, mut a1, mut b1) = (start(0), start(0), start(1), start(1));
        let (mut a2, mut b2, mut a3, mut b3) = (start(2), start(2), start(3), start(3));
        unrolled!(STEP in 0 1 2 3 4 5 6 7, apart by steps {
            let [left, right]: [v128; 2] = bytemuck::must_cast(block.nibbles[HALF][STEP]);
            let quad = |r: usize| i32x4_splat(x.quads[STEP][r]);
            (a0, b0) = (dot(a0, left, quad(0)), dot(b0, right, quad(0)));
            (a1, b1) = (dot(a1, left, quad(1)), dot(b1, right, quad(1)));
            (a2, b2) = (dot(a2, left, quad(2)), dot(b2, right, quad(2)));
            (a3, b3) = (dot(a3, left, quad(3)), dot(b3, right, quad(3)));
        });
        [[a0, b0], [a1, b1], [a2, b2], [a3, b3]].map(|row| row.map(|dots| i32x4_extadd_pairwise_i16x8(dots)))
    }
}

#[cfg(test)]
super::contract::kernel_contract!(q4, "relaxed-simd", &KERNEL);
