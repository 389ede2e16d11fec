//! 8-bit weights on relaxed SIMD: 12-bit inputs meet them in two parts, by `i32x4.relaxed_dot_i8x16_i7x16_add_s`.
//!
//! ```text
//! input = 128 high + low, high = -16..=16, low = -64..=63
//!
//! one row     high sums += weights . high    16 rows of 4 columns, 4 times the same 4 inputs
//!             low  sums += weights . low
//!             at the end of a block 128 high sums + base - zero point Σ inputs + low sums
//! a tile      sums += weights . high         8 or 2 rows of 4 columns, steps 0..8
//!             sums = 128 sums + base - zero point Σ inputs
//!             sums += weights . low          steps 8..16
//! ```
//!
//! Both parts are first operands with which [every byte](super::relaxed_dot) is exact as the second. Where the instruction is one of
//! the processor's, that is a multiplication for 8 products and no addition, and weights are [packed for it](super::q8_quads); emulated it
//! is slower than `q8_simd128`.
//!
//! All steps of a row are kept apart, where other kernels take two at a time: beside eight sums and both parts of the inputs there are
//! registers for the weights of one.

use core::arch::wasm32::*;
use core::hint::black_box;

use super::BLOCK;
use super::blocks_simd128::{self, BlockDots, InVectors, Steps, products, spread, transposed, unrolled};
use super::q8_quads::Quads;
use super::q8_simd128::starts;
use super::quantised::{Quantised, Scales};
use super::relaxed_dot::{self, FIRST, dot};
use super::wide_tiles::{Lanes, WIDE, WideDots, WideTiles, spread_pair, vectors};

/// Products with 8-bit weights on relaxed SIMD.
///
/// The result of a dot is there after five cycles, and two begin in each, so ten sums keep them busy. Wide tiles have twelve, and so have half
/// tiles of six rows, which take what those leave over; with four rows there are eight.
pub(super) static KERNEL: Quantised<InVectors<ByteQuads, WideTiles>, 6, WIDE> = products(ByteQuads);

/// The loops alone, for a cache of such integers.
pub(super) const DOTS: InVectors<ByteQuads> = InVectors::new(ByteQuads);

/// Dots of four bytes with four bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByteQuads;

/// A block of inputs of `M` rows.
#[derive(Clone, Copy)]
pub(super) struct Parts<const M: usize> {
    /// The high parts of columns `4 i` to `4 i + 3` of each row as bytes, for all `i`, then the low ones.
    words: [[i32; M]; BLOCK / 2],
    /// The base of each row, less what the zero point adds to its dots.
    starts: [i32; M],
}

impl<const M: usize> Parts<M> {
    #[inline(always)]
    fn of(bases: [f32; M], integers: &[[i32; BLOCK]; M], zero_point: i32) -> Self {
        const { assert!(*FIRST.start() == -64 && *FIRST.end() == 63, "the range of low parts") };
        let rows: [[i32; BLOCK / 2]; M] = integers.each_ref().map(|row| {
            let high = row.map(|input| (input + 64) >> 7);
            let low: [i32; BLOCK] = std::array::from_fn(|k| row[k] - (high[k] << 7));
            bytemuck::must_cast([blocks_simd128::quads(&high), blocks_simd128::quads(&low)])
        });
        Self { words: transposed(&rows), starts: starts(bases, integers, zero_point) }
    }
}

/// Half of four columns: rows 0..4 and 4..8 of it.
#[inline(always)]
fn half_of(columns: &[[u8; 16]; 4], half: usize) -> [v128; 2] {
    bytemuck::must_cast(columns.as_chunks::<2>().0[half])
}

/// `128 high + low`.
#[inline(always)]
fn whole(high: v128, low: v128) -> v128 {
    i32x4_add(i32x4_shl(high, 7), low)
}

/// `sums[r] += weights . inputs[r]`, for four rows of weights and four others.
#[inline(always)]
fn meet<const M: usize>(sums: &mut [[v128; 2]; M], [left, right]: [v128; 2], inputs: &[i32; M]) {
    for ([a, b], input) in sums.iter_mut().zip(inputs) {
        let input = i32x4_splat(*input);
        (*a, *b) = (dot(*a, left, input), dot(*b, right, input));
    }
}

/// [`meet`] with rows of inputs in the lanes: `sums[i] += weights[2 pair + i] . inputs`.
#[inline(always)]
fn meet_pair<const M: usize>(sums: &mut [Lanes; 2], columns: &[[u8; 16]; 4], pair: usize, inputs: &[i32; M]) {
    let ([a, b], [p, q]) = (spread_pair(columns, pair), sums);
    for ((p, q), inputs) in p.iter_mut().zip(q).zip(vectors(inputs)) {
        (*p, *q) = (dot(*p, a, inputs), dot(*q, b, inputs));
    }
}

impl<B: AsRef<Quads> + Scales + Copy> BlockDots<B> for ByteQuads {
    const NAME: &'static str = "relaxed-i32";
    const INSTRUCTION: &'static str = relaxed_dot::INSTRUCTION;
    const PASSES: u32 = 2;
    const HALVES: [[usize; 2]; 2] = [[0, 1], [2, 3]];
    type Input<const M: usize> = Parts<M>;
    type Unpacked = B;

    fn has_instruction(self) -> Option<bool> {
        Some(relaxed_dot::is_one_instruction())
    }

    #[inline(always)]
    fn unpacked<'a>(self, panel: &'a [B], _: &'a mut Vec<B>) -> &'a [B] {
        panel
    }

    #[inline(always)]
    fn input<const M: usize>(self, bases: [f32; M], integers: &[[i32; BLOCK]; M]) -> Parts<M> {
        Parts::of(bases, integers, relaxed_dot::zero_point())
    }

    #[inline(always)]
    fn row(self, block: &B, x: &Parts<1>, _: v128, steps: Steps) -> [v128; 4] {
        let Quads(quads) = block.as_ref();
        let (zero, start) = (i32x4_splat(0), i32x4_splat(x.starts[0]));
        let (mut a, mut b, mut c, mut d) = (zero, zero, zero, zero);
        let (mut p, mut q, mut r, mut s) = (start, start, start, start);
        unrolled!(STEP in 0 1 2 3 4 5 6 7, apart by steps {
            let quad = |part: usize| spread(&x.words.as_chunks().0[part])[STEP % 4];
            let (high, low) = (quad(STEP / 4), quad(2 + STEP / 4));
            let [v, w] = half_of(&quads[STEP], 0);
            (a, b) = (dot(a, v, high), dot(b, w, high));
            (p, q) = (dot(p, v, low), dot(q, w, low));
            let [v, w] = half_of(&quads[STEP], 1);
            (c, d) = (dot(c, v, high), dot(d, w, high));
            (r, s) = (dot(r, v, low), dot(s, w, low));
        });
        [whole(a, p), whole(b, q), whole(c, r), whole(d, s)]
    }

    #[inline(always)]
    fn half<const HALF: usize, const M: usize>(
        self,
        block: &B,
        x: &Parts<M>,
        _: &[f32; M],
        steps: Steps,
    ) -> [[v128; 2]; M] {
        let Quads(quads) = block.as_ref();
        let mut sums = [[i32x4_splat(0); 2]; M];
        unrolled!(STEP in 0 1 2 3 4 5 6 7, apart by steps {
            let weights = half_of(&quads[STEP], HALF);
            meet(&mut sums, weights, &x.words[STEP]);
        });
        for (sums, start) in sums.iter_mut().zip(x.starts) {
            *sums = sums.map(|high| whole(high, i32x4_splat(start)));
        }
        // Read once more: kept, all weights of a block would push the sums out of the registers.
        let quads = black_box(quads);
        unrolled!(STEP in 0 1 2 3 4 5 6 7, apart by steps {
            let weights = half_of(&quads[STEP], HALF);
            meet(&mut sums, weights, &x.words[BLOCK / 4 + STEP]);
        });
        sums
    }
}

impl<B: AsRef<Quads> + Scales + Copy> WideDots<B> for ByteQuads {
    #[inline(always)]
    fn pair<const M: usize>(
        self,
        block: &B,
        pair: usize,
        x: &Parts<M>,
        _: &[f32; M],
        steps: Steps,
    ) -> [Lanes; 2] {
        let Quads(quads) = block.as_ref();
        let mut sums = [[i32x4_splat(0); WIDE / 4]; 2];
        unrolled!(STEP in 0 1 2 3 4 5 6 7, apart by steps {
            meet_pair(&mut sums, &quads[STEP], pair, &x.words[STEP]);
        });
        for sums in &mut sums {
            sums.iter_mut().zip(vectors(&x.starts)).for_each(|(sum, start)| *sum = whole(*sum, start));
        }
        let quads = black_box(quads); // read once more, as in `half`
        unrolled!(STEP in 0 1 2 3 4 5 6 7, apart by steps {
            meet_pair(&mut sums, &quads[STEP], pair, &x.words[BLOCK / 4 + STEP]);
        });
        sums
    }
}

#[cfg(test)]
super::contract::kernel_contract!(q8_quads, "relaxed-i32", &KERNEL);

#[cfg(test)]
mod tests {
    use super::super::contract::Random;
    use super::super::quantise::BASE;
    use super::super::{PANEL, Q8QuadBlock, Tile};
    use super::*;

    /// A processor reads second operands in one of both ways; this is what the kernel does, on either.
    #[wasm_bindgen_test::wasm_bindgen_test]
    fn signed_and_unsigned_bytes_give_the_same_dots() {
        let mut random = Random::new(23);
        // Each row has 127 of something, so that its scale is 1.
        let tile: Tile = std::array::from_fn(|k| {
            std::array::from_fn(|row| if k == row { 127.0 } else { (random.next() * 127.0).round() })
        });
        let mut inputs: [i32; BLOCK] = std::array::from_fn(|_| (random.next() * 2047.0) as i32);
        inputs[..4].copy_from_slice(&[2047, -2047, 63, -64]);
        let expected: [i32; PANEL] =
            std::array::from_fn(|row| (0..BLOCK).map(|k| tile[k][row] as i32 * inputs[k]).sum());
        for (zero_point, value) in
            [(128, (|byte| byte.into()) as fn(u8) -> i32), (0, |byte| (byte as i8).into())]
        {
            let (block, x) =
                (Q8QuadBlock::packed(&tile, zero_point), Parts::of([BASE], &[inputs], zero_point));
            let dots: [i32; PANEL] = std::array::from_fn(|row| {
                let dot = |words: &[[i32; 1]]| -> i32 {
                    let groups = words.iter().zip(&block.integers.0);
                    let products = groups.flat_map(|(word, columns)| {
                        let weights = &columns[row / 4].as_chunks::<4>().0[row % 4];
                        let inputs = word[0].to_le_bytes().map(|byte| i32::from(byte as i8));
                        inputs.into_iter().zip(weights).map(|(input, weight)| {
                            assert!(FIRST.contains(&input), "{input}");
                            input * value(*weight)
                        })
                    });
                    products.sum()
                };
                let [high, low]: [&[_]; 2] = [&x.words[..BLOCK / 4], &x.words[BLOCK / 4..]];
                128 * dot(high) + (x.starts[0] - BASE.to_bits() as i32) + dot(low)
            });
            assert_eq!(dots, expected, "zero is {zero_point}");
        }
    }
}
