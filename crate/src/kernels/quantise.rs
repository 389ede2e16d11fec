//! From `f32` to integers with a scale, for weights and for the inputs that meet them.
//!
//! Every operation is one that IEEE 754 rounds in one way only, so all builds and browsers get the same integers.

use bytemuck::{Pod, Zeroable};

use super::{BLOCK, PANEL, block::Tile};

/// A scale of 16 bits: a bfloat16, the upper half of an `f32`.
///
/// Its 8 bits of precision cost nothing: weights are rounded with the scale that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Scale(pub(super) u16);

impl Scale {
    /// 1.
    pub(super) const ONE: Self = Self(0x3f80);

    /// 2⁻⁶⁴: its product with the scale of inputs is no subnormal `f32`, on which processors are slow.
    const SMALLEST: u32 = 0x1f80;
    /// The last one before infinity.
    const LARGEST: u32 = 0x7f7f;

    /// The scale closest to `value` among magnitudes from 2⁻⁶⁴ on; of what is no number, some scale.
    pub fn nearest(value: f32) -> Self {
        let magnitude = (value.abs().to_bits() + 0x8000) >> 16;
        let sign = (value.to_bits() >> 31) << 15;
        Self((magnitude.clamp(Self::SMALLEST, Self::LARGEST) | sign) as u16)
    }

    /// The value of this scale.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// The largest magnitude of an `i8` in use: -128 is not, so that signs are symmetric.
pub(super) const LEVELS_I8: i32 = 127;

/// 1.5 * 2²³. The last bit of a float around it is worth 1, and of one around `BASE * worth`, where the worth is a power of two, that worth.
/// So an integer of less than 2²² in magnitude that is added to the bits of such a *base* is added to its value, times its worth; and what
/// is added to the value is rounded to an integer in the bits, to the nearest, ties to even.
pub(super) const BASE: f32 = 12_582_912.0;

/// `integer` times the worth of `base`.
#[inline(always)]
pub(super) fn worth(integer: i32, base: f32) -> f32 {
    f32::from_bits(base.to_bits().wrapping_add_signed(integer)) - base
}

/// `value`, rounded to the nearest integer, ties to even, for magnitudes below 2²². Anything else gives some integer.
#[inline(always)]
pub(super) fn round(value: f32) -> i32 {
    (value + BASE).to_bits().wrapping_sub(BASE.to_bits()) as i32
}

/// `value`, rounded to one of the integers `-levels..=levels`.
#[inline(always)]
pub(super) fn integer(value: f32, levels: i32) -> i32 {
    round(value).clamp(-levels, levels)
}

/// The bits of `|value|`: ordered as magnitudes are, infinity above all numbers and NaN above infinity.
#[inline(always)]
pub(super) fn magnitude(value: f32) -> i32 {
    (value.to_bits() & 0x7fff_ffff) as i32
}

/// The [`magnitude`] of the largest of `x`.
#[inline(always)]
fn largest(x: &[f32]) -> i32 {
    x.iter().fold(0, |largest, value| magnitude(*value).max(largest))
}

/// The value of the largest magnitude of each row of a tile, with its sign.
pub(super) fn extremes(tile: &Tile) -> [f32; PANEL] {
    let mut extremes = [0.0; PANEL];
    for column in tile {
        for (extreme, value) in extremes.iter_mut().zip(column) {
            *extreme = if magnitude(*value) > magnitude(*extreme) { *value } else { *extreme };
        }
    }
    extremes
}

/// Writes [`BLOCK`] inputs of a matrix product as integers of `-levels..=levels`, and returns their base: see [`BASE`]. They are of half the
/// levels where more would add up to more than [`LARGEST_SUM`]. The base is not a number where an input is not, or is 2¹⁰⁰ or more.
///
/// `levels` is one less than a power of two.
#[inline(always)]
pub(super) fn quantise_inputs(x: &[f32; BLOCK], levels: i32, integers: &mut [i32; BLOCK]) -> f32 {
    const EXPONENT: i32 = 0x7f80_0000;
    const SMALLEST: i32 = 0x2680_0000; // 2⁻⁵⁰: one integer times the smallest scale of weights is no subnormal
    const LARGEST: i32 = 0x7180_0000; // 2¹⁰⁰: the base is no infinity
    let largest = largest(x);
    if largest >= LARGEST {
        integers.fill(0);
        return f32::NAN;
    }
    let bits = (levels + 1).ilog2() as i32;
    // The power of two that becomes `(levels + 1) / 2`: the one below the largest, or the next where the largest would become `levels + 1`.
    let power = (largest.max(SMALLEST) + (1 << (23 - bits))) & EXPONENT;
    let mut base = f32::from_bits((power + ((24 - bits) << 23) + (1 << 22)) as u32); // 1.5 * 2^(24 - bits) of it
    let sum = round_all(x, base, integers);
    let may_be_too_large = levels * BLOCK as i32 > LARGEST_SUM; // a constant: of 8 bits nothing is summed up
    if may_be_too_large && sum > LARGEST_SUM {
        base *= 2.0;
        round_all(x, base, integers);
    }
    base
}

/// The sum of the magnitudes of a block's integers up to which no dot with weights of [`LEVELS_I8`] reaches 2²². Blocks of 12 bits have more if
/// the mean magnitude is above 1,032, and blocks of 11 bits never: at most `32 * 1024`.
pub(super) const LARGEST_SUM: i32 = ((1 << 22) - 1) / LEVELS_I8;

/// Rounds to integers with `base`, and returns the sum of their magnitudes. In fours, of which compilers make vectors.
#[inline(always)]
fn round_all(x: &[f32; BLOCK], base: f32, integers: &mut [i32; BLOCK]) -> i32 {
    let mut sums = [0; 4];
    for (x, integers) in x.as_chunks::<4>().0.iter().zip(integers.as_chunks_mut::<4>().0) {
        *integers = x.map(|x| (x + base).to_bits().wrapping_sub(base.to_bits()) as i32);
        for (sum, integer) in sums.iter_mut().zip(integers) {
            *sum += integer.abs();
        }
    }
    sums.iter().sum()
}

/// What one of the integers of `-levels..=levels` is worth that `x` becomes, and how many of them are worth 1: none where all of `x` is
/// zero, or too small for the answer to be a number.
#[inline(always)]
pub(super) fn scale_of(x: &[f32], levels: i32) -> (f32, f32) {
    let largest = f32::from_bits(largest(x) as u32);
    let inverse = levels as f32 / largest;
    (largest / levels as f32, if inverse.is_finite() { inverse } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_scale_is_the_nearest_of_all() {
        for value in [3.2159e-3, 1.0, 0.99999, -1.2345e-7, 63.0, -3e38] {
            let error = (Scale::nearest(value).to_f32() / value - 1.0).abs();
            assert!(error <= 0.5f32.powi(8), "{value}: {error}");
            let scale = Scale::nearest(value);
            assert_eq!(Scale::nearest(scale.to_f32()), scale);
        }
        assert_eq!(Scale::nearest(1.0), Scale::ONE);
        assert_eq!(Scale::nearest(0.0).to_f32(), 0.5f32.powi(64));
        assert_eq!(Scale::nearest(-1e-30).to_f32(), -(0.5f32.powi(64)));
        for value in [f32::INFINITY, f32::MAX, f32::NAN] {
            assert!(Scale::nearest(value).to_f32().is_finite(), "{value}");
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_even() {
        for value in [0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5, -127.49, 0.499_999_97, 4e6] {
            assert_eq!(round(value), value.round_ties_even() as i32, "{value}");
        }
        for scale in [1.0, 0.5f32.powi(60), 2f32.powi(90)] {
            for integer in [0, 1, -1, 4_158_000, (1 << 22) - 1, 1 - (1 << 22)] {
                assert_eq!(worth(integer, BASE * scale), integer as f32 * scale, "{integer}");
            }
        }
    }

    /// The integers of `x` and what one of them is worth.
    fn quantised(x: &[f32; BLOCK], levels: i32) -> ([i32; BLOCK], f32) {
        let mut integers = [1; BLOCK];
        let base = quantise_inputs(x, levels, &mut integers);
        (integers, worth(1, base))
    }

    #[test]
    fn inputs_are_the_nearest_integers_of_the_smallest_worth_that_fits() {
        for levels in [127, 2047] {
            let span = (levels + 1) as f32;
            // Of the magnitudes that are the largest, those before and after the integers end.
            for (largest, expected) in [
                (1.0, 2.0 / span),
                (1.99, 2.0 / span),
                (2.0 - 1.01 / span, 2.0 / span),
                (2.0 - 0.99 / span, 4.0 / span),
                (2.0, 4.0 / span),
                (1e20, 2f32.powi(67) / span),
                (1e-9, 0.5f32.powi(29) / span),
            ] {
                let x: [f32; BLOCK] = std::array::from_fn(|i| largest * (1.0 - i as f32 / 16.0));
                let (integers, worth) = quantised(&x, levels);
                assert_eq!(worth, expected, "{largest} in {levels} levels");
                for (integer, x) in integers.into_iter().zip(x) {
                    assert_eq!(integer, (x / worth).round_ties_even() as i32, "{x} in {levels} levels");
                    assert!(integer.abs() <= levels);
                }
            }
        }
    }

    #[test]
    fn dots_with_the_largest_weights_stay_below_what_a_base_takes() {
        let border = 1032.0 / 1024.0;
        for (x, steps) in [
            (-1.0, 1024.0),
            (border, 1024.0),
            (border + 1.0 / 1024.0, 512.0),
            (-1.4, 512.0),
            (1.9999, 512.0),
            (2.0, 512.0),
        ] {
            let (integers, worth) = quantised(&[x; BLOCK], 2047);
            assert_eq!(worth, 1.0 / steps, "{x}");
            assert!(integers.iter().map(|integer| 127 * integer.abs()).sum::<i32>() < 1 << 22, "{x}");
        }
    }

    #[test]
    fn inputs_of_any_magnitude_become_integers_and_what_is_no_number_stays_none() {
        for tiny in [0.0, f32::MIN_POSITIVE / 4.0, 1e-38, -1e-20] {
            let (integers, worth) = quantised(&[tiny; BLOCK], 127);
            assert_eq!(integers, [0; BLOCK], "{tiny}");
            assert!(worth * Scale::nearest(0.0).to_f32() >= f32::MIN_POSITIVE, "{worth}");
        }
        assert_eq!(quantised(&[-1e30; BLOCK], 127).0, [-101; BLOCK]);
        for bad in [f32::NAN, f32::from_bits(u32::MAX), f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 2e30] {
            let mut x = [0.25; BLOCK];
            x[7] = bad;
            assert!(quantised(&x, 127).1.is_nan(), "{bad}");
        }
    }
}
