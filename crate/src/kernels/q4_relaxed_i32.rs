//! 4-bit weights by `i32x4.relaxed_dot_i8x16_i7x16_add_s`: multiplication and addition are one instruction where the processor has it
//! (AVX-VNNI, ARM's dot product), and three elsewhere.
//!
//! The loops are [`q4_relaxed`](super::q4_relaxed)'s.

use core::arch::wasm32::v128;

use super::blocks_simd128::{InVectors, products};
use super::q4_relaxed::{NibbleQuads, Sums};
use super::quantised::Quantised;
use super::relaxed_dot;
use super::wide_tiles::{WIDE, WideTiles};

/// Products with 4-bit weights in sums of 32 bits.
///
/// What wide tiles leave over comes in tiles of six rows, for the reason of `q8_relaxed`: in assembly, on an Intel Xeon of 2023, a block of
/// four takes 40 cycles and one of six 54, all of which their multiplications need.
pub(super) static KERNEL: Quantised<InVectors<NibbleQuads<Whole>, WideTiles>, 6, WIDE> =
    products(NibbleQuads::NEW);

/// A sum of 32 bits for each row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole;

impl Sums for Whole {
    const NAME: &'static str = "relaxed-i32";
    const INSTRUCTION: &'static str = relaxed_dot::INSTRUCTION;

    fn has_instruction() -> Option<bool> {
        Some(relaxed_dot::is_one_instruction())
    }

    #[inline(always)]
    fn start(base: f32, sums: [i32; 4]) -> i32 {
        (base.to_bits() as i32).wrapping_add(sums.iter().sum())
    }

    #[inline(always)]
    fn dot(sum: v128, weights: v128, inputs: v128) -> v128 {
        relaxed_dot::dot(sum, weights, inputs)
    }

    #[inline(always)]
    fn finish(sum: v128, _: v128) -> v128 {
        sum
    }
}

#[cfg(test)]
super::contract::kernel_contract!(q4, "relaxed-i32", &KERNEL);
