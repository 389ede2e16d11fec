//! 4-bit weights on relaxed SIMD: 16 products an instruction, by one of the two relaxed dots.
//!
//! Their second operand is exact within `0..=127`, and a nibble is; the first is an input of `-127..=127`. The dots differ in the sums
//! ([`Sums`]) that they make: see `q4_relaxed_i16` and `q4_relaxed_i32`. Everything else is the same:
//!
//! ```text
//! step (4 columns)    weights[group][half] & 15, >> 4 & 15  → 2 vectors of 4 rows x 4 columns of bytes
//!                     inputs[group]                         → 4 times the same 4 inputs    v128.load32_splat, or a shuffle for one row
//!                     sums += weights . inputs
//! ```
//!
//! That is for one row of inputs; before many, a panel's nibbles become bytes, once for all tiles. Nibbles are weights plus 8, so sums
//! start at -8 times the sum of the inputs that their lane will see, and at the base of the inputs, which those of 16 bits get in the end.

use core::arch::wasm32::*;
use core::marker::PhantomData;

use super::blocks_simd128::{BlockDots, Steps, quads, spread, transposed, unrolled};
use super::q4::{ORDER, ZERO_POINT};
use super::quantised::Scales;
use super::wide_tiles::{Lanes, WideDots, spread_pair, vectors};
use super::{BLOCK, Block, PANEL, Q4Block, Scale};

/// Where the products of a block add up.
pub(super) trait Sums: Copy + Send + Sync + 'static {
    const NAME: &'static str;
    const INSTRUCTION: &'static str;

    /// See [`MatrixKernel::has_instruction`](super::MatrixKernel::has_instruction).
    fn has_instruction() -> Option<bool> {
        None
    }

    /// A lane's start, of the base of the inputs and -8 times the sums of columns 0, 1, 2 and 3 of each group of four.
    fn start(base: f32, sums: [i32; 4]) -> i32;

    /// `sum + Σ weights * inputs` of each lane's four columns; a weight is `0..=15`, an input `-127..=127`.
    fn dot(sum: v128, weights: v128, inputs: v128) -> v128;

    /// The lanes' sums after a whole block, added to the bits of the base.
    fn finish(sum: v128, base: v128) -> v128;
}

/// Dots of four nibbles with four bytes, added up by `S`.
#[derive(Clone, Copy, Debug)]
pub(super) struct NibbleQuads<S>(PhantomData<S>);

impl<S> NibbleQuads<S> {
    pub(super) const NEW: Self = Self(PhantomData);
}

/// A block of inputs of `M` rows, four columns to an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quads<const M: usize> {
    /// Columns `4 i` to `4 i + 3` of each row as bytes, in the order of the weights.
    quads: [[i32; M]; BLOCK / 4],
    /// Where the sums of a row of weights start.
    starts: [i32; M],
}

/// A block with a byte for each weight, as tiles read it: four columns of four rows to a vector.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(super) struct Bytes {
    scales: [Scale; PANEL],
    /// `[row / 8][k / 4][row / 4 % 2][4 (row % 4) + k % 4]`, the columns of a group in [`ORDER`].
    bytes: [[[[u8; 16]; 2]; BLOCK / 4]; 2],
}

impl Bytes {
    const ZERO: Self = Self { scales: [Scale(0); PANEL], bytes: [[[[0; 16]; 2]; BLOCK / 4]; 2] };
}

impl Scales for Bytes {
    fn scales(&self) -> &[Scale; PANEL] {
        &self.scales
    }
}

/// The largest magnitude of a dot.
const LARGEST_DOT: i32 = BLOCK as i32 * ZERO_POINT * Q4Block::INPUT_LEVELS;

/// Eight rows by four columns: rows 0..4, rows 4..8.
#[inline(always)]
fn nibbles(bytes: &[u8; 16]) -> [v128; 2] {
    let bytes: v128 = bytemuck::must_cast(*bytes);
    let mask = i8x16_splat(15);
    [v128_and(bytes, mask), v128_and(u16x8_shr(bytes, 4), mask)]
}

impl<S: Sums> BlockDots<Q4Block> for NibbleQuads<S> {
    const NAME: &'static str = S::NAME;
    const INSTRUCTION: &'static str = S::INSTRUCTION;
    const HALVES: [[usize; 2]; 2] = [[0, 1], [2, 3]];
    type Input<const M: usize> = Quads<M>;
    /// Weights plus 8, in [`ORDER`].
    type Unpacked = Bytes;

    fn has_instruction(self) -> Option<bool> {
        S::has_instruction()
    }

    #[inline(always)]
    fn unpacked<'a>(self, panel: &'a [Q4Block], scratch: &'a mut Vec<Bytes>) -> &'a [Bytes] {
        scratch.resize(panel.len(), Bytes::ZERO);
        for (block, unpacked) in panel.iter().zip(scratch.iter_mut()) {
            unpacked.scales = block.scales;
            let [left, right] = &mut unpacked.bytes;
            for ((halves, left), right) in block.weights.iter().zip(left).zip(right) {
                *left = bytemuck::must_cast(nibbles(&halves[0]));
                *right = bytemuck::must_cast(nibbles(&halves[1]));
            }
        }
        scratch
    }

    #[inline(always)]
    fn input<const M: usize>(self, bases: [f32; M], integers: &[[i32; BLOCK]; M]) -> Quads<M> {
        const { assert!(matches!(ORDER, [0, 2, 1, 3]), "the order of the shuffle") };
        let starts = std::array::from_fn(|r| {
            let quads = integers[r].as_chunks::<4>().0.iter().map(|quad| bytemuck::must_cast(*quad));
            let sums: v128 = quads.fold(i32x4_splat(0), |sums, quad| i32x4_add(sums, quad));
            S::start(bases[r], bytemuck::must_cast(i32x4_mul(sums, i32x4_splat(-ZERO_POINT))))
        });
        let rows = integers.each_ref().map(|row| {
            let quads: [v128; BLOCK / 16] = quads(row).map(|bytes| {
                i8x16_shuffle::<0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15>(bytes, bytes)
            });
            bytemuck::must_cast(quads)
        });
        Quads { quads: transposed(&rows), starts }
    }

    #[inline(always)]
    fn row(self, block: &Q4Block, x: &Quads<1>, base: v128, steps: Steps) -> [v128; 4] {
        let start = i32x4_splat(x.starts[0]);
        let (mut p, mut q, mut r, mut s) = (start, start, start, start);
        unrolled!(PART in 0 1 2 3, apart by steps {
            let quads = spread(&x.quads.as_chunks().0[PART / 2]);
            let halves = &block.weights.as_chunks::<2>().0[PART];
            unrolled!(STEP in 0 1 {
                let quad = quads[PART % 2 * 2 + STEP];
                let [low, high] = nibbles(&halves[STEP][0]);
                p = S::dot(p, low, quad);
                q = S::dot(q, high, quad);
                let [low, high] = nibbles(&halves[STEP][1]);
                r = S::dot(r, low, quad);
                s = S::dot(s, high, quad);
            });
        });
        [p, q, r, s].map(|sum| S::finish(sum, base))
    }

    #[inline(always)]
    fn half<const HALF: usize, const M: usize>(
        self,
        block: &Bytes,
        x: &Quads<M>,
        bases: &[f32; M],
        steps: Steps,
    ) -> [[v128; 2]; M] {
        let mut sums = x.starts.map(|start| [i32x4_splat(start); 2]);
        unrolled!(STEP in 0 1 2 3 4 5 6 7, apart by steps {
            let [left, right]: [v128; 2] = bytemuck::must_cast(block.bytes[HALF][STEP]);
            for ([a, b], input) in sums.iter_mut().zip(x.quads[STEP]) {
                let input = i32x4_splat(input);
                (*a, *b) = (S::dot(*a, left, input), S::dot(*b, right, input));
            }
        });
        std::array::from_fn(|r| sums[r].map(|sum| S::finish(sum, f32x4_splat(bases[r]))))
    }

    /// A dot is an integer of up to 16 bits times a power of two and a scale has 8 bits, so their product is exact in the 24 bits of an `f32`,
    /// short of an overflow: whether the processor rounds it before it adds makes no difference.
    #[inline(always)]
    fn add_scaled(sum: v128, dots: v128, scales: v128) -> v128 {
        const { assert!(LARGEST_DOT < 1 << 16) };
        f32x4_relaxed_madd(dots, scales, sum)
    }
}

impl<S: Sums> WideDots<Q4Block> for NibbleQuads<S> {
    #[inline(always)]
    fn pair<const M: usize>(
        self,
        block: &Bytes,
        pair: usize,
        x: &Quads<M>,
        bases: &[f32; M],
        steps: Steps,
    ) -> [Lanes; 2] {
        let (half, mut sums) = (&block.bytes[pair / 4], [vectors(&x.starts); 2]);
        unrolled!(STEP in 0 1 2 3 4 5 6 7, apart by steps {
            let ([a, b], [p, q]) = (spread_pair(&half[STEP], pair), &mut sums);
            for ((p, q), inputs) in p.iter_mut().zip(q).zip(vectors(&x.quads[STEP])) {
                (*p, *q) = (S::dot(*p, a, inputs), S::dot(*q, b, inputs));
            }
        });
        let bases = vectors(bases);
        sums.map(|sums| std::array::from_fn(|v| S::finish(sums[v], bases[v])))
    }
}

#[cfg(test)]
mod tests {
    use super::super::q4_relaxed_i32::Whole;
    use super::*;

    #[wasm_bindgen_test::wasm_bindgen_test]
    fn a_dot_times_a_scale_is_exact_so_that_fusing_it_changes_no_bit() {
        for dot in [LARGEST_DOT, LARGEST_DOT - 1, -LARGEST_DOT, 21_845, -1] {
            for scale in (0x3f80..0x4000).map(|bits| Scale(bits).to_f32()) {
                let (sum, product) = (1.0 / 3.0, dot as f32 * scale);
                assert_eq!(f64::from(product), f64::from(dot) * f64::from(scale), "{dot} * {scale}");
                let [sum_of_all, value, scale] = [sum, dot as f32, scale].map(|x| f32x4_splat(x));
                let fused = <NibbleQuads<Whole> as BlockDots<Q4Block>>::add_scaled(sum_of_all, value, scale);
                assert_eq!(f32x4_extract_lane::<0>(fused), sum + product, "{dot}");
            }
        }
    }
}
