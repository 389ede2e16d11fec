//! 4-bit weights by `i16x8.relaxed_dot_i8x16_i7x16_s`, the dot that every x86-64 processor has.
//!
//! A lane gets two products, at most `2 * 15 * 127`, and over the eight groups of a block at most 30,480 in magnitude: it fits 16 bits. So
//! a block is summed up in 16-bit lanes, two for each row, and widened only at its end. With their start, sums may wrap around on the way, and
//! do not at the end: a block of weights of `-8..=7` sums to at most `16 * 8 * 127` in a lane.
//!
//! The loops are [`q4_relaxed`](super::q4_relaxed)'s.

use core::arch::wasm32::*;

use super::blocks_simd128::{InVectors, products};
use super::q4_relaxed::{NibbleQuads, Sums};
use super::quantised::Quantised;

/// Products with 4-bit weights in sums of 16 bits.
pub(super) static KERNEL: Quantised<InVectors<NibbleQuads<Halves>>> = products(NibbleQuads::NEW);

/// Two sums of 16 bits for each row: of columns 0 and 2, and 1 and 3.
#[derive(Clone, Copy, Debug)]
pub(super) struct Halves;

impl Sums for Halves {
    const NAME: &'static str = "relaxed-i16";
    const INSTRUCTION: &'static str = "i16x8.relaxed_dot_i8x16_i7x16_s";

    /// It has, where sums saturate as those of x86-64's `pmaddubsw` do; elsewhere results do not tell.
    fn has_instruction() -> Option<bool> {
        let products = i16x8_relaxed_dot_i8x16_i7x16(i8x16_splat(127), u8x16_splat(255));
        (i16x8_extract_lane::<0>(products) == i16::MAX).then_some(true)
    }

    #[inline(always)]
    fn start(_: f32, [a, b, c, d]: [i32; 4]) -> i32 {
        (a + c) & 0xffff | (b + d) << 16
    }

    #[inline(always)]
    fn dot(sum: v128, weights: v128, inputs: v128) -> v128 {
        i16x8_add(sum, i16x8_relaxed_dot_i8x16_i7x16(inputs, weights))
    }

    #[inline(always)]
    fn finish(sum: v128, base: v128) -> v128 {
        i32x4_add(i32x4_extadd_pairwise_i16x8(sum), base)
    }
}

#[cfg(test)]
super::contract::kernel_contract!(q4, "relaxed-i16", &KERNEL);
