//! Tiles with rows of inputs in the lanes: 24 of them by two rows of weights are 12 vectors of sums.
//!
//! ```text
//! step (4 columns)    words[row]             → 4 times the same 4 weights, of each of 2 rows      v128.load32_splat
//!                     inputs[group][quad]    → 4 rows of inputs, 6 times                          v128.load
//!                     sums[row][quad] += weights . inputs
//! ```
//!
//! A step of such a tile has 12 dots and reads 8 vectors, two of which take an instruction for their address too; of a [half
//! tile](super::blocks_simd128) with as many sums, all but two of 8 do. The bases of the inputs lie in vectors as well. So V8 makes 292 instructions
//! of a block of `q4` instead of 333, which is what counts while another thread runs on the same core. It is for kernels whose dots take one register beside
//! the sums; with two, and so 16 rows, tiles of `i32x4.dot_i16x8_s` were a third slower.
//!
//! Sums are `[row of weights][row of inputs]` while they are added up, and are transposed before, unless they begin with a bias, and after.

use core::arch::wasm32::*;

use bytemuck::Pod;

use super::blocks_simd128::{BlockDots, HalfTiles, Input, Steps, TileLoops, abreast, load, store};
use super::panels::LARGEST_TILE;
use super::quantised::{Rows, Scales};
use super::{Entry, PANEL};

/// Rows of inputs in a wide tile.
pub(super) const WIDE: usize = 24;

/// Blocks that a tile runs over before it goes on to the next two rows of weights: 15 KiB of inputs and up to 9 KiB of weights fit half of
/// a first-level cache of 48 KiB. Whole rows of 96 blocks take a fifth longer.
const DEPTH: usize = 16;

/// Rows of inputs, four to a vector.
pub(super) type Lanes = [v128; WIDE / 4];

/// The inner loop of a wide tile.
pub(super) trait WideDots<B>: BlockDots<B> {
    /// `Σ_k weight[row][k] input[k]` of the rows `2 pair` and `2 pair + 1` of weights with each row of inputs, added to the bits of their bases, if `M`
    /// is [`WIDE`].
    fn pair<const M: usize>(
        self,
        block: &Self::Unpacked,
        pair: usize,
        x: &Self::Input<M>,
        bases: &[f32; M],
        steps: Steps,
    ) -> [Lanes; 2];
}

/// Wide tiles, and half tiles of the rows that are left over.
#[derive(Clone, Copy, Debug)]
pub(super) struct WideTiles;

impl<B, D: WideDots<B>> TileLoops<D, B> for WideTiles {
    #[inline(always)]
    fn tile<const M: usize>(
        dots: D,
        panel: &[D::Unpacked],
        x: &[Input<D::Input<M>, M>],
        bias: Option<&Entry>,
        y: Rows,
    ) {
        const { assert!(M == WIDE || M <= LARGEST_TILE) };
        match M {
            WIDE => wide_tile::<B, D, M>(dots, panel, x, bias, y),
            _ => <HalfTiles as TileLoops<D, B>>::tile(dots, panel, x, bias, y),
        }
    }
}

#[inline(never)]
fn wide_tile<B, D: WideDots<B>, const M: usize>(
    dots: D,
    panel: &[D::Unpacked],
    x: &[Input<D::Input<M>, M>],
    bias: Option<&Entry>,
    mut y: Rows,
) {
    let mut sums = [[f32x4_splat(0.0); WIDE / 4]; PANEL];
    match bias {
        Some(bias) => {
            sums.iter_mut().zip(bias).for_each(|(sums, bias)| *sums = [f32x4_splat(*bias); WIDE / 4])
        }
        None => {
            for v in 0..WIDE / 4 {
                let y = y.four(v);
                for (quad, sums) in sums.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let rows = transposed(y.each_ref().map(|y| load(y, quad)));
                    sums.iter_mut().zip(rows).for_each(|(sums, row)| sums[v] = row);
                }
            }
        }
    }
    for (panel, x) in panel.chunks(DEPTH).zip(x.chunks(DEPTH)) {
        for (pair, sums) in sums.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            add_pair(dots, panel, pair, x, sums);
        }
    }
    for v in 0..WIDE / 4 {
        let mut y = y.four(v);
        for (quad, sums) in sums.as_chunks::<4>().0.iter().enumerate() {
            let rows = transposed(sums.each_ref().map(|sums| sums[v]));
            y.iter_mut().zip(rows).for_each(|(y, row)| store(row, y, quad));
        }
    }
}

#[inline(never)]
fn add_pair<B, D: WideDots<B>, const M: usize>(
    dots: D,
    panel: &[D::Unpacked],
    pair: usize,
    x: &[Input<D::Input<M>, M>],
    sums: &mut [Lanes; 2],
) {
    let steps = Steps::never();
    for (block, x) in abreast(panel, x) {
        let dots = dots.pair(block, pair, &x.integers, &x.bases, steps);
        let scales = block.scales().as_chunks::<2>().0[pair];
        for ((sums, dots), scale) in sums.iter_mut().zip(dots).zip(scales) {
            let scale = f32x4_splat(scale.to_f32());
            for ((sum, dots), base) in sums.iter_mut().zip(dots).zip(vectors(&x.bases)) {
                *sum = D::add_scaled(*sum, f32x4_sub(dots, base), scale);
            }
        }
    }
}

/// Four rows of inputs in each vector. By index: of an iterator LLVM makes addresses with a multiplication, as of
/// [`zip`](super::blocks_simd128::abreast).
#[inline(always)]
pub(super) fn vectors<T: Pod, const M: usize>(rows: &[T; M]) -> Lanes {
    let fours = rows.as_chunks::<4>().0;
    std::array::from_fn(|v| bytemuck::must_cast(fours[v]))
}

/// The words of two neighbouring rows of weights, of `4 N` rows, each in every lane.
#[inline(always)]
pub(super) fn spread_pair<const N: usize>(words: &[[u8; 16]; N], pair: usize) -> [v128; 2] {
    let words = words.as_flattened().as_chunks::<8>().0[pair % (2 * N)].as_chunks::<4>().0;
    [0, 1].map(|i| i32x4_splat(i32::from_le_bytes(words[i])))
}

/// `[row][column]` to `[column][row]`.
#[inline(always)]
fn transposed([a, b, c, d]: [v128; 4]) -> [v128; 4] {
    let [ab_left, ab_right] = [i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b)];
    let [cd_left, cd_right] = [i32x4_shuffle::<0, 4, 1, 5>(c, d), i32x4_shuffle::<2, 6, 3, 7>(c, d)];
    [
        i64x2_shuffle::<0, 2>(ab_left, cd_left),
        i64x2_shuffle::<1, 3>(ab_left, cd_left),
        i64x2_shuffle::<0, 2>(ab_right, cd_right),
        i64x2_shuffle::<1, 3>(ab_right, cd_right),
    ]
}
