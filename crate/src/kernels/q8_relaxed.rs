//! 8-bit weights on relaxed SIMD: a prompt's 12-bit inputs meet them in two parts, by `i32x4.relaxed_dot_i8x16_i7x16_add_s`.
//!
//! ```text
//! input = 128 high + low, high = -16..=16, low = -64..=63
//!
//! before many tiles   a panel's integers → 4 columns of 4 rows to a vector, as the dot takes bytes
//! steps 0..8          sums += weights . high       4 columns, 4 times the same 4 inputs
//! between             sums = 128 sums - zero point Σ inputs
//! steps 8..16         sums += weights . low
//! ```
//!
//! Both parts are first operands with which [every byte](super::relaxed_dot) is exact as the second. Where the instruction is one of
//! the processor's, that is a multiplication for 8 products and no addition; emulated it is slower than `q8_simd128`. One row of
//! inputs, which waits for memory, goes the way of `q8_simd128`.

use core::arch::wasm32::*;
use core::hint::black_box;

use super::blocks_simd128::{BlockDots, Bytes, InVectors, Steps, products, quads, transposed, unrolled};
use super::q8::{self, Integers};
use super::q8_simd128::{Pairs, Words};
use super::quantised::{Quantised, TILE};
use super::relaxed_dot::{self, FIRST, dot};
use super::{BLOCK, Q8Block};

/// Products with 8-bit weights on relaxed SIMD.
pub(super) static KERNEL: Quantised<InVectors<ByteQuads>> = products(ByteQuads);

/// Dots of four bytes with four bytes, for tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByteQuads;

/// Writes the same weights as [`Bytes`], each plus the zero point.
#[inline(always)]
fn regroup(Q8Block { scales, integers: Integers(integers) }: &Q8Block, zero_point: i32, to: &mut Bytes) {
    let [low_zeros, high_zeros] =
        [q8::ZERO_POINT ^ zero_point, zero_point].map(|zero| u8x16_splat(zero as u8));
    to.scales = *scales;
    for (group, pairs) in integers.as_chunks::<2>().0.iter().enumerate() {
        for (half, of_half) in to.bytes.iter_mut().enumerate() {
            let [a, b] = pairs.map(|halves| -> v128 { bytemuck::must_cast(halves[half]) });
            let low = i8x16_shuffle::<0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30>(a, b);
            let high = i8x16_shuffle::<1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31>(a, b);
            of_half[group] = bytemuck::must_cast([v128_xor(low, low_zeros), v128_xor(high, high_zeros)]);
        }
    }
}

/// The high parts of four columns to a word, then the low ones.
#[inline(always)]
fn in_parts<const M: usize>(integers: &[[i32; BLOCK]; M], zero_point: i32) -> Words<M> {
    const { assert!(*FIRST.start() == -64 && *FIRST.end() == 63, "the range of low parts") };
    let starts = integers.each_ref().map(|row| -zero_point * row.iter().sum::<i32>());
    let rows: [[i32; BLOCK / 2]; M] = integers.each_ref().map(|row| {
        let high = row.map(|input| (input + 64) >> 7);
        let low: [i32; BLOCK] = std::array::from_fn(|k| row[k] - (high[k] << 7));
        bytemuck::must_cast([quads(&high), quads(&low)])
    });
    Words { words: transposed(&rows), starts }
}

impl BlockDots<Q8Block> for ByteQuads {
    const NAME: &'static str = "relaxed-i32";
    const INSTRUCTION: &'static str = relaxed_dot::INSTRUCTION;
    const PASSES: u32 = 2;
    const HALVES: [[usize; 2]; 2] = [[0, 1], [2, 3]];
    /// Pairs of one row, and a tile [in parts](in_parts).
    type Input<const M: usize> = Words<M>;
    /// Integers plus [`relaxed_dot::zero_point`].
    type Unpacked = Bytes;

    fn has_instruction(self) -> Option<bool> {
        Some(relaxed_dot::is_one_instruction())
    }

    #[inline(always)]
    fn unpacked<'a>(self, panel: &'a [Q8Block], scratch: &'a mut Vec<Bytes>) -> &'a [Bytes] {
        let zero_point = relaxed_dot::zero_point();
        scratch.resize(panel.len(), Bytes::ZERO);
        panel.iter().zip(scratch.iter_mut()).for_each(|(block, bytes)| regroup(block, zero_point, bytes));
        scratch
    }

    #[inline(always)]
    fn input<const M: usize>(self, integers: &[[i32; BLOCK]; M]) -> Words<M> {
        match M {
            1 => BlockDots::<Q8Block>::input(Pairs, integers),
            _ => in_parts(integers, relaxed_dot::zero_point()),
        }
    }

    #[inline(always)]
    fn row(self, block: &Q8Block, x: &Words<1>, steps: Steps) -> [v128; 4] {
        Pairs.row(block, x, steps)
    }

    #[inline(always)]
    fn half<const HALF: usize>(self, block: &Bytes, x: &Words<TILE>, steps: Steps) -> [[v128; 2]; TILE] {
        let zero = i32x4_splat(0);
        let (mut a0, mut b0, mut a1, mut b1) = (zero, zero, zero, zero);
        let (mut a2, mut b2, mut a3, mut b3) = (zero, zero, zero, zero);
        unrolled!(STEP in 0 1 2 3 4 5 6 7, apart by steps {
            let [left, right]: [v128; 2] = bytemuck::must_cast(block.bytes[HALF][STEP]);
            let quad = |r: usize| i32x4_splat(x.words[STEP][r]);
            (a0, b0) = (dot(a0, left, quad(0)), dot(b0, right, quad(0)));
            (a1, b1) = (dot(a1, left, quad(1)), dot(b1, right, quad(1)));
            (a2, b2) = (dot(a2, left, quad(2)), dot(b2, right, quad(2)));
            (a3, b3) = (dot(a3, left, quad(3)), dot(b3, right, quad(3)));
        });
        let whole = |r: usize, high: v128| i32x4_add(i32x4_shl(high, 7), i32x4_splat(x.starts[r]));
        (a0, b0, a1, b1) = (whole(0, a0), whole(0, b0), whole(1, a1), whole(1, b1));
        (a2, b2, a3, b3) = (whole(2, a2), whole(2, b2), whole(3, a3), whole(3, b3));
        // Read once more: kept, all weights of a block would push the sums out of the registers.
        let bytes = black_box(&block.bytes[HALF]);
        unrolled!(STEP in 0 1 2 3 4 5 6 7, apart by steps {
            let [left, right]: [v128; 2] = bytemuck::must_cast(bytes[STEP]);
            let quad = |r: usize| i32x4_splat(x.words[BLOCK / 4 + STEP][r]);
            (a0, b0) = (dot(a0, left, quad(0)), dot(b0, right, quad(0)));
            (a1, b1) = (dot(a1, left, quad(1)), dot(b1, right, quad(1)));
            (a2, b2) = (dot(a2, left, quad(2)), dot(b2, right, quad(2)));
            (a3, b3) = (dot(a3, left, quad(3)), dot(b3, right, quad(3)));
        });
        [[a0, b0], [a1, b1], [a2, b2], [a3, b3]]
    }
}

#[cfg(test)]
super::contract::kernel_contract!(q8, "relaxed-i32", &KERNEL);

#[cfg(test)]
mod tests {
    use super::super::contract::Random;
    use super::super::quantised::QuantisedBlock;
    use super::super::{Block, PANEL};
    use super::*;

    /// A processor reads second operands in one of both ways; this is what the kernel does, on either.
    #[wasm_bindgen_test::wasm_bindgen_test]
    fn signed_and_unsigned_bytes_give_the_same_dots() {
        let mut random = Random::new(23);
        let mut integer = |levels: i32| (random.next() * (levels as f32 + 0.5)) as i32;
        let mut block = Q8Block::ZERO;
        for row in 0..PANEL {
            (0..BLOCK).for_each(|k| block.integers.set(row, k, integer(127) as i8));
        }
        let mut inputs: [i32; BLOCK] = std::array::from_fn(|_| integer(2047));
        inputs[..4].copy_from_slice(&[2047, -2047, 63, -64]);
        for (zero_point, value) in
            [(128, (|byte| byte.into()) as fn(u8) -> i32), (0, |byte| (byte as i8).into())]
        {
            let (mut bytes, words) = (Bytes::ZERO, in_parts(&[inputs; TILE], zero_point));
            regroup(&block, zero_point, &mut bytes);
            let dots: [i32; PANEL] = std::array::from_fn(|row| {
                let dot = |words: &[[i32; TILE]]| -> i32 {
                    let groups = words.iter().zip(&bytes.bytes[row / 8]);
                    let products = groups.flat_map(|(word, vectors)| {
                        let weights = &vectors[row / 4 % 2].as_chunks::<4>().0[row % 4];
                        let inputs = word[0].to_le_bytes().map(|byte| i32::from(byte as i8));
                        inputs.into_iter().zip(weights).map(|(input, weight)| {
                            assert!(FIRST.contains(&input), "{input}");
                            input * value(*weight)
                        })
                    });
                    products.sum()
                };
                let [high, low]: [&[_]; 2] = [&words.words[..BLOCK / 4], &words.words[BLOCK / 4..]];
                128 * dot(high) + words.starts[0] + dot(low)
            });
            assert_eq!(dots, block.dots(&inputs), "zero is {zero_point}");
        }
    }
}
