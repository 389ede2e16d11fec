//! The machine's limits, measured by the shortest loops that can reach them.
//!
//! A benchmark divides what a kernel reaches by what these reach in the same run. They return the work done; the
//! caller holds the clock.
//!
//! The peaks keep [`CHAINS`] independent chains of one instruction in registers and load nothing.

use std::hint::black_box;

use super::stream::{PAGE_ENTRIES, Stream};
use super::{Entry, Lanes};

/// Independent accumulators of a peak: with two operands, they fill the 15 registers that V8 has for vectors on
/// x86-64. A multiply and then an add take 6 to 8 cycles there at up to two of each per cycle, so 12 are too few: on
/// a Zen 4, 13 reach 28 GMAC/s, 12 reach 24, and 14 spill.
pub const CHAINS: usize = 13;

/// The most multiply-adds that one instruction can do.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// The instruction, as in [`MatrixKernel::instruction`](super::MatrixKernel::instruction).
    pub instruction: &'static str,
    run: fn(u32) -> u64,
}

impl Peak {
    #[cfg(test)]
    pub(super) const fn of(instruction: &'static str, run: fn(u32) -> u64) -> Self {
        Self { instruction, run }
    }

    /// Executes the loop `iterations` times and returns the multiply-adds that were done.
    pub fn run(&self, iterations: u32) -> u64 {
        (self.run)(iterations)
    }
}

/// The peaks that this build can measure.
pub fn peaks() -> &'static [Peak] {
    &[
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        Peak { instruction: super::relaxed_simd::RelaxedSimd::MULTIPLY_ADD, run: wasm::f32_relaxed },
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        Peak { instruction: super::relaxed_dot::INSTRUCTION, run: wasm::i8_relaxed_dot },
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        Peak { instruction: "i16x8.relaxed_dot_i8x16_i7x16_s", run: wasm::i8_relaxed_pairs },
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Peak { instruction: super::simd128::Simd128::MULTIPLY_ADD, run: wasm::f32_simd128 },
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Peak { instruction: "i32x4.dot_i16x8_s", run: wasm::i16_dot },
        #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
        Peak {
            instruction: super::portable::Portable::MULTIPLY_ADD,
            run: |n| f32_chains(super::portable::Portable, n),
        },
    ]
}

/// Reads all of `data` once and returns the bytes read: the bandwidth of memory, or of the cache that holds `data`.
pub fn read(data: &[Entry]) -> u64 {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    let lanes = super::simd128::Simd128;
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    let lanes = super::portable::Portable;
    let mut sums = [lanes.splat(0.0); 4];
    let mut add = |entry: &Entry| {
        for (sum, v) in sums.iter_mut().zip(entry.as_chunks().0) {
            *sum = lanes.add(*sum, lanes.load(v));
        }
    };
    // As the products of one row read: two halves side by side, and at each page the beginning of the next.
    let (stream, half) = (Stream::of(data), data.len() / 2);
    let (first, second) = (&data[..half], &data[half..2 * half]);
    for (first, second) in first.chunks(PAGE_ENTRIES).zip(second.chunks(PAGE_ENTRIES)) {
        stream.ask_ahead(first);
        stream.ask_ahead(second);
        for (first, second) in first.iter().zip(second) {
            add(first);
            add(second);
        }
    }
    data[2 * half..].iter().for_each(add);
    black_box(sums.map(|sum| lanes.sum(sum)));
    size_of_val(data) as u64
}

/// Repeats `$step` on each accumulator, called `$acc`; registers, not an array.
macro_rules! chains {
    ($iterations:expr, $start:expr, |$acc:ident| $step:expr) => {{
        let start = $start;
        let (mut a, mut b, mut c, mut d, mut e, mut f) = (start, start, start, start, start, start);
        let (mut g, mut h, mut i, mut j, mut k, mut l, mut m) =
            (start, start, start, start, start, start, start);
        for _ in 0..$iterations {
            chains!(@each |$acc| $step; a b c d e f g h i j k l m);
        }
        [a, b, c, d, e, f, g, h, i, j, k, l, m]
    }};
    (@each |$acc:ident| $step:expr; $($chain:ident)*) => {
        $($chain = { let $acc = $chain; $step };)*
    };
}

/// `a = a x + y` in every chain, which stays close to `y / (1 - x)`.
#[inline(always)]
fn f32_chains<L: Lanes>(lanes: L, iterations: u32) -> u64 {
    let (x, y) = (lanes.splat(black_box(0.5)), lanes.splat(black_box(1.0)));
    let sums = chains!(iterations, lanes.splat(black_box(2.0)), |a| lanes.multiply_add(a, x, y));
    black_box(sums.map(|sum| lanes.sum(sum)));
    u64::from(iterations) * CHAINS as u64 * 4
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm {
    use core::arch::wasm32::*;

    use super::{CHAINS, black_box, f32_chains};
    use crate::kernels::simd128::Simd128;

    pub(super) fn f32_simd128(iterations: u32) -> u64 {
        f32_chains(Simd128, iterations)
    }

    pub(super) fn i16_dot(iterations: u32) -> u64 {
        let x = i16x8_splat(black_box(3));
        let sums = chains!(iterations, i32x4_splat(black_box(1)), |a| i32x4_add(a, i32x4_dot_i16x8(a, x)));
        black_box(sums.map(|sum| i32x4_extract_lane::<0>(sum)));
        u64::from(iterations) * CHAINS as u64 * 8
    }

    #[cfg(target_feature = "relaxed-simd")]
    pub(super) fn f32_relaxed(iterations: u32) -> u64 {
        f32_chains(crate::kernels::relaxed_simd::RelaxedSimd, iterations)
    }

    /// Only the accumulator is a chain: where the instruction is emulated, its multiplications are independent.
    #[cfg(target_feature = "relaxed-simd")]
    pub(super) fn i8_relaxed_dot(iterations: u32) -> u64 {
        let (x, y) = (i8x16_splat(black_box(-3)), i8x16_splat(black_box(5)));
        let sums =
            chains!(iterations, i32x4_splat(black_box(1)), |a| i32x4_relaxed_dot_i8x16_i7x16_add(x, y, a));
        black_box(sums.map(|sum| i32x4_extract_lane::<0>(sum)));
        u64::from(iterations) * CHAINS as u64 * 16
    }

    /// Sums of 16 bits, added by another instruction.
    #[cfg(target_feature = "relaxed-simd")]
    pub(super) fn i8_relaxed_pairs(iterations: u32) -> u64 {
        let y = i8x16_splat(black_box(5));
        let sums = chains!(iterations, i16x8_splat(black_box(1)), |a| i16x8_add(
            a,
            i16x8_relaxed_dot_i8x16_i7x16(a, y)
        ));
        black_box(sums.map(|sum| i16x8_extract_lane::<0>(sum)));
        u64::from(iterations) * CHAINS as u64 * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Block, Q4Block, Q8Block};

    fn instructions<B: Block>() -> Vec<(&'static str, &'static str)> {
        B::kernels().iter().map(|kernel| (kernel.name(), kernel.instruction())).collect()
    }

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[cfg_attr(not(target_arch = "wasm32"), test)]
    fn every_kernel_has_the_peak_of_its_instruction() {
        for kernel in Entry::kernels() {
            let peak = peaks().iter().find(|peak| peak.instruction == kernel.instruction());
            assert!(peak.is_some_and(|peak| peak.run(3) == 3 * CHAINS as u64 * 4), "{}", kernel.name());
        }
        let mut quantised = instructions::<Q8Block>();
        quantised.extend(instructions::<Q4Block>());
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        quantised.extend(instructions::<crate::kernels::Q8QuadBlock>());
        for (name, instruction) in quantised.into_iter().filter(|(name, _)| *name != "portable") {
            assert!(peaks().iter().any(|peak| peak.instruction == instruction), "{name}: {instruction}");
        }
    }

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[cfg_attr(not(target_arch = "wasm32"), test)]
    fn reading_counts_bytes() {
        assert_eq!(read(&[[1.0; 16]; 5]), 5 * 64);
    }
}
