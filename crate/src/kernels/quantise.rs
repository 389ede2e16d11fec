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

/// `value`, rounded to the nearest integer, ties to even, for magnitudes below 2^22: the integer sits in the low bits of such a
/// float. Anything else gives some integer.
#[inline(always)]
pub(super) fn round(value: f32) -> i32 {
    const SHIFTED: f32 = 12_582_912.0; // 1.5 * 2^23
    ((value + SHIFTED).to_bits() as i32).wrapping_sub(SHIFTED.to_bits() as i32)
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

/// Writes [`BLOCK`] inputs of a matrix product as integers of `-levels..=levels`, and returns what one of them is worth. The worth is not
/// a number where an input is not.
#[inline(always)]
pub(super) fn quantise_inputs(x: &[f32; BLOCK], levels: i32, integers: &mut [i32; BLOCK]) -> f32 {
    let (scale, inverse) = scale_of(x, levels);
    for (to, x) in integers.iter_mut().zip(x) {
        *to = integer(x * inverse, levels);
    }
    scale
}

/// What one of the integers of `-levels..=levels` is worth that `x` becomes, and how many of them are worth 1: none where all of `x` is
/// zero, or too small for the answer to be a number.
#[inline(always)]
pub(super) fn scale_of(x: &[f32], levels: i32) -> (f32, f32) {
    let largest = x.iter().fold(0, |largest, value| magnitude(*value).max(largest));
    let largest = f32::from_bits(largest as u32);
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
    }

    fn quantised(x: &[f32; BLOCK], levels: i32) -> (f32, [i32; BLOCK]) {
        let mut integers = [1; BLOCK];
        (quantise_inputs(x, levels, &mut integers), integers)
    }

    #[test]
    fn inputs_keep_their_largest_and_their_nan() {
        let mut x = [0.25; BLOCK];
        x[3] = -2.0;
        let (scale, integers) = quantised(&x, 127);
        assert_eq!((scale, integers[3], integers[0]), (2.0 / 127.0, -127, 16));
        assert_eq!(quantised(&[0.0; BLOCK], 127), (0.0, [0; BLOCK]));
        let tiny = std::array::from_fn(|i| if i == 5 { 1e-38 } else { 0.0 });
        assert_eq!(quantised(&tiny, 32767).1, [0; BLOCK]);
        x[7] = f32::NAN;
        assert!(quantised(&x, 127).0.is_nan());
        x[7] = f32::NEG_INFINITY;
        assert_eq!(quantised(&x, 127).0, f32::INFINITY);
    }
}
