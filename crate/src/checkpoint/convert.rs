//! Little-endian f32, f16 and bf16, and integers of 8 bits, to native f32, in place.
//!
//! The raw elements are read into the *end* of the very slice that will hold the result, and are widened from
//! the front: element `i` of `n` halves lies at half-slot `n + i` and becomes half-slots `2 i` and `2 i + 1`,
//! so a write never passes what is still to be read; bytes, at `3 n + i`, have more room still. No second buffer,
//! no lock, and whole vectors at a time: a block is first copied to the stack, which tells the compiler that
//! source and destination are apart.
//!
//! Everything is integer arithmetic and selects but for one exact f32 subtraction of normal numbers, so that
//! subnormal halves cost no microcode assist, and wasm, which has no half-precision instruction, loses
//! nothing.

/// Elements widened at a time: enough for the compiler to unroll, few enough to stay in registers.
const BLOCK: usize = 32;

/// The bytes of `out` into which `width` bytes per element are to be read before a conversion.
pub(super) fn raw_bytes(out: &mut [f32], width: usize) -> &mut [u8] {
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(out);
    let start = bytes.len() / 4 * (4 - width);
    &mut bytes[start..]
}

/// Turns little-endian f32 into native ones: nothing to do but on a big-endian host.
pub(super) fn f32_in_place(out: &mut [f32]) {
    for value in out {
        *value = f32::from_bits(u32::from_le(value.to_bits()));
    }
}

/// Widens the f16 that lie in the upper half of `out`.
pub(super) fn f16_in_place(out: &mut [f32]) {
    widen(out, |half| f16_to_f32(u16::from_le(half)));
}

/// Widens the bf16 that lie in the upper half of `out`.
pub(super) fn bf16_in_place(out: &mut [f32]) {
    widen(out, |half| f32::from_bits(u32::from(u16::from_le(half)) << 16));
}

/// Turns the bytes that lie in the last quarter of `out` into the integers that they are.
pub(super) fn i8_in_place(out: &mut [f32]) {
    widen(out, |byte: i8| f32::from(byte));
}

/// Converts the elements `T` that lie at the end of `out`.
#[inline(always)]
fn widen<T: bytemuck::Pod>(out: &mut [f32], convert: impl Fn(T) -> f32) {
    let n = out.len();
    let before = n * (size_of::<f32>() / size_of::<T>() - 1);
    let mut block = [T::zeroed(); BLOCK];
    for start in (0..n).step_by(BLOCK) {
        let count = BLOCK.min(n - start);
        let stored: &[T] = bytemuck::cast_slice(out);
        if count == BLOCK {
            block.copy_from_slice(&stored[before + start..][..BLOCK]);
            for (value, element) in out[start..start + BLOCK].iter_mut().zip(block) {
                *value = convert(element);
            }
        } else {
            block[..count].copy_from_slice(&stored[before + start..]);
            for (value, element) in out[start..].iter_mut().zip(block) {
                *value = convert(element);
            }
        }
    }
}

/// One f16, as its bits, to f32: exact for every number, infinity kept, a NaN stays a NaN.
///
/// The exponent is rebiased by adding 127 - 15; all ones (infinity, NaN) need as much again; zero and the
/// subnormals are given the implicit bit of 2^-14, which is then subtracted as a float.
#[inline(always)]
fn f16_to_f32(half: u16) -> f32 {
    const REBIAS: u32 = (127 - 15) << 23;
    const TINY: u32 = (127 - 14) << 23;
    let half = u32::from(half);
    let sign = (half & 0x8000) << 16;
    let magnitude = half & 0x7fff;
    let rebiased = (magnitude << 13) + REBIAS;
    let special = rebiased + REBIAS;
    let subnormal = (f32::from_bits((magnitude << 13) + TINY) - f32::from_bits(TINY)).to_bits();
    let bits = if magnitude >= 0x7c00 { special } else { rebiased };
    let bits = if magnitude < 0x0400 { subnormal } else { bits };
    f32::from_bits(bits | sign)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const LENGTHS: [usize; 9] = [0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 1000];

    /// Reads `halves` as a file would give them, and widens them.
    fn widened(halves: &[u16], in_place: fn(&mut [f32])) -> Vec<f32> {
        let mut out = vec![f32::NAN; halves.len()];
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        raw_bytes(&mut out, 2).copy_from_slice(&bytes);
        in_place(&mut out);
        out
    }

    fn same(ours: f32, theirs: f32) -> bool {
        ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan())
    }

    #[test]
    fn every_half_widens_as_the_half_crate_does() {
        let every: Vec<u16> = (0..=u16::MAX).collect();
        for ((half, f16), bf16) in
            every.iter().zip(widened(&every, f16_in_place)).zip(widened(&every, bf16_in_place))
        {
            let (expected_f16, expected_bf16) = (half::f16::from_bits(*half), half::bf16::from_bits(*half));
            assert!(same(f16, expected_f16.to_f32()), "f16 {half:#06x}: {f16} is not {expected_f16}");
            assert!(same(bf16, expected_bf16.to_f32()), "bf16 {half:#06x}: {bf16} is not {expected_bf16}");
        }
    }

    #[test]
    fn every_length_is_widened_in_place() {
        for length in LENGTHS {
            let halves: Vec<u16> = (0..length).map(|i| (i * 61 % 30_000) as u16).collect();
            let f16: Vec<f32> = halves.iter().map(|&half| half::f16::from_bits(half).to_f32()).collect();
            let bf16: Vec<f32> = halves.iter().map(|&half| half::bf16::from_bits(half).to_f32()).collect();
            assert_eq!(widened(&halves, f16_in_place), f16, "{length} f16");
            assert_eq!(widened(&halves, bf16_in_place), bf16, "{length} bf16");

            let bytes: Vec<u8> = f16.iter().flat_map(|value| value.to_le_bytes()).collect();
            let mut out = vec![f32::NAN; length];
            let integers: Vec<i8> = (0..length).map(|i| (i * 61) as i8).collect();
            raw_bytes(&mut out, 1).copy_from_slice(bytemuck::cast_slice(&integers));
            i8_in_place(&mut out);
            assert_eq!(out, integers.iter().map(|&i| f32::from(i)).collect::<Vec<_>>(), "{length} i8");

            raw_bytes(&mut out, 4).copy_from_slice(&bytes);
            f32_in_place(&mut out);
            assert_eq!(out, f16, "{length} f32");
        }
    }
}
