//! `i32x4.relaxed_dot_i8x16_i7x16_add_s`, and what it makes of bytes beyond 127.
//!
//! Its first operand is signed. The second is exact within `0..=127`; a byte with its highest bit is `128..=255` on some processors
//! (x86-64) and negative on others (ARM, and x86-64 with AVX-VNNI-INT8). Where the instruction is emulated, sums of two products may saturate
//! at 16 bits, which they do not while the first operand stays within [`FIRST`]. So with such a first operand every byte is of use as the
//! second, once it is known [what zero is](zero_point).

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

/// Whether second operands are what [`zero_point`] says, with all of [`FIRST`]: on every processor known, but no specification
/// promises it.
pub(super) fn is_exact() -> bool {
    let zero_point = zero_point();
    FIRST.into_iter().all(|first| {
        (-127..=127).all(|weight: i32| {
            let byte = (weight + zero_point) as u8;
            product(first as i8, byte) == 4 * first * (weight + zero_point)
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
    fn second_operands_are_what_the_zero_point_says() {
        assert!(is_exact(), "127 by 255 is {}, 1 by 128 is {}", product(127, 255), product(1, 128));
    }
}
