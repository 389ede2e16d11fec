//! 4-bit weights on relaxed SIMD: 16 products an instruction, by `i16x8.relaxed_dot_i8x16_i7x16_s`.
//!
//! Its second operand is exact within `0..=127`, and a nibble is; the first is an input of `-127..=127`. A lane gets two products, at most
//! `2 * 15 * 127`, and over the eight groups of a block at most 30,480 in magnitude: it fits 16 bits. So a block is summed up in 16-bit
//! lanes, two for each row, and widened only at its end.
//!
//! ```text
//! step (4 columns)    weights[group][half] & 15, >> 4 & 15  → 2 vectors of 4 rows x 4 columns of bytes
//!                     inputs[group]                         → 4 times the same 4 inputs    v128.load32_splat
//!                     dots += i16x8.relaxed_dot_i8x16_i7x16_s
//! end of a block      i32x4.extadd_pairwise_i16x8_s
//! ```
//!
//! Nibbles are weights plus 8, so dots start at -8 times the sum of the inputs that their lane will see; that may wrap around on the
//! way, and does not at the end: a block of weights of `-8..=7` sums to at most `16 * 8 * 127` in a lane.

use core::arch::wasm32::*;

use super::q4::{ORDER, ZERO_POINT};
use super::q8_simd128::{load, scaled, scales, store};
use super::quantised::{Dots, Quantised, TILE, unrolled};
use super::{BLOCK, Entry, Q4Block};

/// Products with 4-bit weights on relaxed SIMD.
pub(super) static KERNEL: Quantised<NibbleQuads> = Quantised(NibbleQuads);

/// Dots of four nibbles with four bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct NibbleQuads;

/// A block of inputs of `M` rows, four columns to an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quads<const M: usize> {
    scales: [f32; M],
    /// Columns `4 i` to `4 i + 3` of each row as bytes, in the order of the weights.
    quads: [[i32; M]; BLOCK / 4],
    /// Where the two lanes of a row of weights start.
    starts: [i32; M],
}

impl<const M: usize> Quads<M> {
    #[inline(always)]
    fn new(scales: [f32; M], integers: &[[i32; BLOCK]; M]) -> Self {
        let (mut quads, mut starts) = ([[0; M]; BLOCK / 4], [0; M]);
        for (r, integers) in integers.iter().enumerate() {
            let (mut low, mut high) = (0, 0);
            for (quad, integers) in quads.iter_mut().zip(integers.as_chunks::<4>().0) {
                let mut bytes = [0; 4];
                for (integer, place) in integers.iter().zip(ORDER) {
                    bytes[place] = *integer;
                }
                quad[r] = i32::from_le_bytes(bytes.map(|byte| byte as u8));
                low += bytes[0] + bytes[1];
                high += bytes[2] + bytes[3];
            }
            starts[r] = ((-ZERO_POINT * low) & 0xffff) | ((-ZERO_POINT * high) << 16);
        }
        Self { scales, quads, starts }
    }
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

impl Dots<Q4Block> for NibbleQuads {
    const NAME: &'static str = "relaxed-simd";
    const INSTRUCTION: &'static str = "i16x8.relaxed_dot_i8x16_i7x16_s";
    type Input<const M: usize> = Quads<M>;

    #[inline(always)]
    fn input<const M: usize>(self, scales: [f32; M], integers: &[[i32; BLOCK]; M]) -> Quads<M> {
        Quads::new(scales, integers)
    }

    #[inline(always)]
    fn row(self, panel: &[Q4Block], x: &[Quads<1>], sums: &mut Entry) {
        let (mut a, mut b, mut c, mut d) = (load(sums, 0), load(sums, 1), load(sums, 2), load(sums, 3));
        for (block, x) in panel.iter().zip(x) {
            let start = i32x4_splat(x.starts[0]);
            let (mut p, mut q, mut r, mut s) = (start, start, start, start);
            unrolled!(STEP in 0 1 2 3 4 5 6 7 {
                let (halves, quad) = (&block.weights[STEP], i32x4_splat(x.quads[STEP][0]));
                let [low, high] = nibbles(&halves[0]);
                p = dot(p, low, quad);
                q = dot(q, high, quad);
                let [low, high] = nibbles(&halves[1]);
                r = dot(r, low, quad);
                s = dot(s, high, quad);
            });
            let scale = f32x4_splat(x.scales[0]);
            a = scaled(a, i32x4_extadd_pairwise_i16x8(p), scales(&block.scales, 0), scale);
            b = scaled(b, i32x4_extadd_pairwise_i16x8(q), scales(&block.scales, 1), scale);
            c = scaled(c, i32x4_extadd_pairwise_i16x8(r), scales(&block.scales, 2), scale);
            d = scaled(d, i32x4_extadd_pairwise_i16x8(s), scales(&block.scales, 3), scale);
        }
        store(a, sums, 0);
        store(b, sums, 1);
        store(c, sums, 2);
        store(d, sums, 3);
    }

    #[inline(always)]
    fn tile(self, panel: &[Q4Block], x: &[Quads<TILE>], sums: &mut [Entry; TILE]) {
        half_tile::<0>(panel, x, sums);
        half_tile::<1>(panel, x, sums);
    }
}

/// [`Dots::tile`] for one half of the panel's rows: 8 sums in registers, two weights, an input, the mask.
#[inline(always)]
fn half_tile<const HALF: usize>(panel: &[Q4Block], x: &[Quads<TILE>], sums: &mut [Entry; TILE]) {
    for (block, x) in panel.iter().zip(x) {
        let start = |r: usize| i32x4_splat(x.starts[r]);
        let (mut a0, mut a1, mut a2, mut a3) = (start(0), start(1), start(2), start(3));
        let (mut b0, mut b1, mut b2, mut b3) = (a0, a1, a2, a3);
        for (halves, quads) in block.weights.iter().zip(&x.quads) {
            let [low, high] = nibbles(&halves[HALF]);
            let quad = |r: usize| i32x4_splat(quads[r]);
            (a0, b0) = (dot(a0, low, quad(0)), dot(b0, high, quad(0)));
            (a1, b1) = (dot(a1, low, quad(1)), dot(b1, high, quad(1)));
            (a2, b2) = (dot(a2, low, quad(2)), dot(b2, high, quad(2)));
            (a3, b3) = (dot(a3, low, quad(3)), dot(b3, high, quad(3)));
        }
        let (left, right) = (scales(&block.scales, 2 * HALF), scales(&block.scales, 2 * HALF + 1));
        let dots = [(a0, b0), (a1, b1), (a2, b2), (a3, b3)];
        for ((sums, scale), (a, b)) in sums.iter_mut().zip(x.scales).zip(dots) {
            let scale = f32x4_splat(scale);
            let (a, b) = (i32x4_extadd_pairwise_i16x8(a), i32x4_extadd_pairwise_i16x8(b));
            store(scaled(load(sums, 2 * HALF), a, left, scale), sums, 2 * HALF);
            store(scaled(load(sums, 2 * HALF + 1), b, right, scale), sums, 2 * HALF + 1);
        }
    }
}

#[cfg(test)]
super::contract::kernel_contract!(q4, "relaxed-simd", &KERNEL);
