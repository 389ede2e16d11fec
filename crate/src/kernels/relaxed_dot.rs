//! `i32x4.relaxed_dot_i8x16_i7x16_add_s`, and what it makes of bytes beyond 127.
//!
//! Its first operand is signed. The second is exact within `0..=127`; a byte with its highest bit is `128..=255` on some processors
//! (x86-64) and negative on others (ARM, and x86-64 with AVX-VNNI-INT8): see [`zero_point`]. With first operands within [`FIRST`] every
//! byte is exact.
//!
//! Where the processor has no such instruction, browsers make three or four of it, which add two products in 16 bits: on x86-64 that
//! saturates beyond `FIRST`, and on ARM `-128 * -128` twice wraps around. So results tell [whether it is one](is_one_instruction), which no
//! clock tells well in a few milliseconds.

use core::arch::wasm32::*;
use core::ops::RangeInclusive;

pub(super) const INSTRUCTION: &str = "i32x4.relaxed_dot_i8x16_i7x16_add_s";

/// First operands whose products with any byte are exact: `2 * 64 * 255 < 2^15`.
pub(super) const FIRST: RangeInclusive<i32> = -64..=63;

/// `sum + Σ bytes * inputs` of each lane's four.
#[inline(always)]
pub(super) fn dot(sum: v128, bytes: v128, inputs: v128) -> v128 {
    i32x4_relaxed_dot_i8x16_i7x16_add(inputs, bytes, sum)
}

/// What stands for zero in a second operand that holds all of `-127..=127`: 128 where bytes are unsigned, and 0 where they are signed.
#[inline(always)]
pub(super) fn zero_point() -> i32 {
    if product(1, 128) > 0 { 128 } else { 0 }
}

/// Whether the processor has this instruction: all products are what [`zero_point`] says, beyond what kernels need.
pub(super) fn is_one_instruction() -> bool {
    is_exact_with([-128, -127, -65, -64, -1, 1, 63, 64, 126, 127])
}

/// Whether products of these first operands with all bytes are exact.
fn is_exact_with(first: impl IntoIterator<Item = i32>) -> bool {
    let zero_point = zero_point();
    first.into_iter().all(|first| {
        (-128..=127).all(|weight: i32| {
            let second = weight + zero_point;
            product(first as i8, second as u8) == 4 * first * second
        })
    })
}

/// Four times the product of both.
fn product(first: i8, second: u8) -> i32 {
    i32x4_extract_lane::<0>(dot(i32x4_splat(0), u8x16_splat(second), i8x16_splat(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[wasm_bindgen_test::wasm_bindgen_test]
    fn with_small_first_operands_every_byte_is_exact() {
        assert!(is_exact_with(FIRST), "63 by 255 is {}, 1 by 128 is {}", product(63, 255), product(1, 128));
    }

    #[wasm_bindgen_test::wasm_bindgen_test]
    fn one_instruction_saturates_nowhere() {
        let extremes = [127, -128].map(|extreme| {
            let second = extreme + zero_point();
            product(extreme as i8, second as u8) == 4 * extreme * second
        });
        assert_eq!(is_one_instruction(), extremes == [true; 2], "{extremes:?}");
    }
}
