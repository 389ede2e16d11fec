//! The loops over blocks of integers in the vectors of wasm: every lane keeps the sum of a row of weights of its own.
//!
//! What is done inside a block is one file for each idea (`q8_simd128`, `q8_relaxed`, `q4_simd128`, `q4_relaxed`); around it, as [`quantised`](super::quantised)
//! says, four vectors of sums for one row of inputs, or, for a tile of `M` of them, two for each: half of the panel's rows by `M` rows of inputs
//! are `2 M` vectors of dots, and as many registers, of which V8 has 15 on x86-64; weights and inputs take three more, or up to five.
//!
//! (Tiles of another shape are in `wide_tiles`.)
//!
//! A block's steps are written one after the other, with constant offsets, and kept apart (see [`Steps`]): those of a tile one by one, those
//! of a row in twos (with fours, its sums go through memory). A row and a half tile are functions of their own, so that the browser's
//! compiler has nothing else to keep in registers.

use core::arch::wasm32::*;
use core::hint::black_box;
use core::marker::PhantomData;

use bytemuck::NoUninit;

use super::quantise::Scale;
use super::quantised::{Dots, Quantised, Rows, Scales};
use super::simd128::Simd128;
use super::stream::{Stream, in_two_streams};
use super::{BLOCK, Entry, Lanes, PANEL};

/// What is done inside a block.
pub(super) trait BlockDots<B>: Copy + Sync + 'static {
    const NAME: &'static str;
    const INSTRUCTION: &'static str;
    /// See [`MatrixKernel::passes`](super::MatrixKernel::passes).
    const PASSES: u32 = 1;
    /// The quads of rows that each half of a tile has.
    const HALVES: [[usize; 2]; 2];

    /// See [`MatrixKernel::has_instruction`](super::MatrixKernel::has_instruction).
    fn has_instruction(self) -> Option<bool> {
        None
    }

    /// [`BLOCK`] inputs of each of `M` rows: of one for `row`, of a tile's for `half`.
    type Input<const M: usize>: Copy;

    /// A block of weights as a tile reads it.
    type Unpacked: Scales + Copy;

    /// A panel for many tiles: itself, or made in `scratch`.
    fn unpacked<'a>(self, panel: &'a [B], scratch: &'a mut Vec<Self::Unpacked>) -> &'a [Self::Unpacked];

    /// Integers, at most [`INPUT_LEVELS`](super::Block::INPUT_LEVELS) in magnitude, as `row` and `half` read them. Those of row `r` have
    /// the [base](super::quantise::BASE) `bases[r]`.
    fn input<const M: usize>(self, bases: [f32; M], integers: &[[i32; BLOCK]; M]) -> Self::Input<M>;

    /// `Σ_k weight[row][k] input[k]` of the four quads of rows, added to the bits of the base of the inputs; `steps` is for
    /// [`unrolled!`](unrolled).
    fn row(self, block: &B, x: &Self::Input<1>, base: v128, steps: Steps) -> [v128; 4];

    /// The same of the two quads of a half, for each row of inputs.
    fn half<const HALF: usize, const M: usize>(
        self,
        block: &Self::Unpacked,
        x: &Self::Input<M>,
        bases: &[f32; M],
        steps: Steps,
    ) -> [[v128; 2]; M];

    /// `sum + dots * scales`, rounded as two operations are.
    #[inline(always)]
    fn add_scaled(sum: v128, dots: v128, scales: v128) -> v128 {
        f32x4_add(sum, f32x4_mul(dots, scales))
    }
}

/// The step after which a block ends early: none, but no compiler may know that. Results do not depend on it.
///
/// After a step stands a branch to the end of the block. It is never taken; yet both ways need the sums, so the products of a step stay
/// before it. Without it, LLVM's backend for wasm and wasm-opt move every product to the addition that takes it, one sum after the other,
/// and what products share, weights and inputs, goes through memory in between. A loop would keep them apart too, for nine
/// instructions a step that count and make addresses; the branch is two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps(usize);

impl Steps {
    #[inline(always)]
    pub(super) fn never() -> Self {
        Self(black_box(usize::MAX))
    }

    /// Whether the block ends early after `step`: never.
    #[inline(always)]
    pub(super) fn end_after(self, step: usize) -> bool {
        self.0 == step
    }
}

/// [`BlockDots`] as the loops of products take them, with the tiles `T`.
#[derive(Clone, Copy, Debug)]
pub(super) struct InVectors<D, T = HalfTiles>(D, PhantomData<T>);

impl<D, T> InVectors<D, T> {
    pub(super) const fn new(dots: D) -> Self {
        Self(dots, PhantomData)
    }
}

/// Products by the dots `D`.
pub(super) const fn products<D, T, const ROWS: usize, const WIDE: usize>(
    dots: D,
) -> Quantised<InVectors<D, T>, ROWS, WIDE> {
    Quantised(InVectors::new(dots))
}

/// The loops over a tile.
pub(super) trait TileLoops<D: BlockDots<B>, B>: Copy + Send + Sync + 'static {
    /// See [`Dots::tile`].
    fn tile<const M: usize>(
        dots: D,
        panel: &[D::Unpacked],
        x: &[Input<D::Input<M>, M>],
        bias: Option<&Entry>,
        y: Rows,
    );
}

/// One half of the panel's rows, and then the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfTiles;

/// A block of inputs of `M` rows, each with the base of its integers.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(super) struct Input<I, const M: usize> {
    pub(super) bases: [f32; M],
    pub(super) integers: I,
}

impl<B: Scales + NoUninit, D: BlockDots<B>, T: TileLoops<D, B>> Dots<B> for InVectors<D, T> {
    const NAME: &'static str = D::NAME;
    const INSTRUCTION: &'static str = D::INSTRUCTION;
    const PASSES: u32 = D::PASSES;
    type Input<const M: usize> = Input<D::Input<M>, M>;
    type Unpacked = D::Unpacked;

    fn has_instruction(self) -> Option<bool> {
        self.0.has_instruction()
    }

    #[inline(always)]
    fn unpacked<'a>(self, panel: &'a [B], scratch: &'a mut Vec<D::Unpacked>) -> &'a [D::Unpacked] {
        self.0.unpacked(panel, scratch)
    }

    #[inline(always)]
    fn input<const M: usize>(self, bases: [f32; M], integers: &[[i32; BLOCK]; M]) -> Self::Input<M> {
        Input { bases, integers: self.0.input(bases, integers) }
    }

    #[inline(never)]
    fn rows(self, panels: &[B], x: &[&[Self::Input<1>]], sums: &mut [Entry]) {
        if panels.is_empty() {
            return;
        }
        let (blocks, steps, stream) = (panels.len() / sums.len(), Steps::never(), Stream::of(panels));
        let add = |sums: &mut [v128; PANEL / 4], block: &B, x: &Self::Input<1>| {
            stream.ask_ahead(block);
            self.add_block(sums, block, x, steps);
        };
        let (pairs, last) = in_two_streams(panels, blocks, x.len(), sums);
        for [(first, first_sums), (second, second_sums)] in pairs {
            let panels = abreast(first.chunks_exact(blocks), second.chunks_exact(blocks));
            for (((first, second), x), (first_sums, second_sums)) in
                abreast(abreast(panels, x), abreast(first_sums, second_sums))
            {
                let (mut p, mut q) = (load_all(first_sums), load_all(second_sums));
                for ((first, second), x) in abreast(abreast(first, second), *x) {
                    add(&mut p, first, x);
                    add(&mut q, second, x);
                }
                store_all(p, first_sums);
                store_all(q, second_sums);
            }
        }
        if let Some((panels, sums)) = last {
            for ((panel, x), sums) in abreast(abreast(panels.chunks_exact(blocks), x), sums) {
                let mut p = load_all(sums);
                abreast(panel, *x).for_each(|(block, x)| add(&mut p, block, x));
                store_all(p, sums);
            }
        }
    }

    #[inline(always)]
    fn tile<const M: usize>(
        self,
        panel: &[D::Unpacked],
        x: &[Self::Input<M>],
        bias: Option<&Entry>,
        y: Rows,
    ) {
        T::tile(self.0, panel, x, bias, y);
    }
}

impl<D, T> InVectors<D, T> {
    /// A block of a row.
    #[inline(always)]
    fn add_block<B: Scales>(
        self,
        [a, b, c, d]: &mut [v128; PANEL / 4],
        block: &B,
        x: &Input<D::Input<1>, 1>,
        steps: Steps,
    ) where
        D: BlockDots<B>,
    {
        let base = f32x4_splat(x.bases[0]);
        let [p, q, r, s] = self.0.row(block, &x.integers, base, steps);
        *a = D::add_scaled(*a, f32x4_sub(p, base), scales(block.scales(), 0));
        *b = D::add_scaled(*b, f32x4_sub(q, base), scales(block.scales(), 1));
        *c = D::add_scaled(*c, f32x4_sub(r, base), scales(block.scales(), 2));
        *d = D::add_scaled(*d, f32x4_sub(s, base), scales(block.scales(), 3));
    }
}

impl<B, D: BlockDots<B>> TileLoops<D, B> for HalfTiles {
    #[inline(always)]
    fn tile<const M: usize>(
        dots: D,
        panel: &[D::Unpacked],
        x: &[Input<D::Input<M>, M>],
        bias: Option<&Entry>,
        mut y: Rows,
    ) {
        half_tile::<D, B, 0, M>(dots, panel, x, bias, &mut y);
        half_tile::<D, B, 1, M>(dots, panel, x, bias, &mut y);
    }
}

#[inline(never)]
fn half_tile<D: BlockDots<B>, B, const HALF: usize, const M: usize>(
    dots: D,
    panel: &[D::Unpacked],
    x: &[Input<D::Input<M>, M>],
    bias: Option<&Entry>,
    y: &mut Rows,
) {
    let ([left, right], steps) = (D::HALVES[HALF], Steps::never());
    let mut sums: [[v128; 2]; M] = std::array::from_fn(|r| {
        let from = bias.unwrap_or_else(|| y.row(r));
        [load(from, left), load(from, right)]
    });
    for (block, x) in abreast(panel, x) {
        let dots = dots.half::<HALF, M>(block, &x.integers, &x.bases, steps);
        let (left_scales, right_scales) = (scales(block.scales(), left), scales(block.scales(), right));
        for (([p, q], base), [a, b]) in sums.iter_mut().zip(x.bases).zip(dots) {
            let base = f32x4_splat(base);
            *p = D::add_scaled(*p, f32x4_sub(a, base), left_scales);
            *q = D::add_scaled(*q, f32x4_sub(b, base), right_scales);
        }
    }
    for (r, [p, q]) in sums.into_iter().enumerate() {
        store(p, y.row(r), left);
        store(q, y.row(r), right);
    }
}

/// Integers of 8 bits as bytes, four columns to a word.
#[inline(always)]
#[cfg(target_feature = "relaxed-simd")]
pub(super) fn quads(integers: &[i32; BLOCK]) -> [v128; BLOCK / 16] {
    std::array::from_fn(|i| {
        let [a, b, c, d]: [v128; 4] = bytemuck::must_cast(integers.as_chunks::<16>().0[i]);
        i8x16_narrow_i16x8(i16x8_narrow_i32x4(a, b), i16x8_narrow_i32x4(c, d))
    })
}

/// The scales of four neighbouring rows: see [`Scale::to_f32`].
#[inline(always)]
fn scales(scales: &[Scale; PANEL], quad: usize) -> v128 {
    let eight: v128 = bytemuck::must_cast(scales.as_chunks::<8>().0[quad / 2].map(|scale| scale.0));
    let zero = i16x8_splat(0);
    match quad.is_multiple_of(2) {
        true => i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(zero, eight),
        false => i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(zero, eight),
    }
}

/// One vector of an entry.
#[inline(always)]
pub(super) fn load(entry: &Entry, quad: usize) -> v128 {
    Simd128.load(&entry.as_chunks().0[quad])
}

#[inline(always)]
pub(super) fn store(sum: v128, entry: &mut Entry, quad: usize) {
    Simd128.store(sum, &mut entry.as_chunks_mut().0[quad]);
}

#[inline(always)]
fn load_all(entry: &Entry) -> [v128; PANEL / 4] {
    std::array::from_fn(|quad| load(entry, quad))
}

#[inline(always)]
fn store_all(sums: [v128; PANEL / 4], entry: &mut Entry) {
    sums.into_iter().enumerate().for_each(|(quad, sum)| store(sum, entry, quad));
}

/// `zip`, by a pointer into each slice. `zip` itself counts, and makes an address of the count by a multiplication: behind the dots
/// that wait for the same port, and before every load of the next block.
#[inline(always)]
pub(super) fn abreast<A: IntoIterator, B: IntoIterator>(
    a: A,
    b: B,
) -> impl Iterator<Item = (A::Item, B::Item)> {
    let mut b = b.into_iter();
    a.into_iter().map_while(move |a| Some((a, b.next()?)))
}

/// `[row][column]` to `[column][row]`: a step reads a column of all rows.
#[inline(always)]
pub(super) fn transposed<const M: usize, const N: usize>(rows: &[[i32; N]; M]) -> [[i32; M]; N] {
    std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
}

/// One of four elements in every lane.
#[inline(always)]
pub(super) fn spread(four: &[[i32; 1]; 4]) -> [v128; 4] {
    let four: v128 = bytemuck::must_cast(*four);
    [
        i32x4_shuffle::<0, 0, 0, 0>(four, four),
        i32x4_shuffle::<1, 1, 1, 1>(four, four),
        i32x4_shuffle::<2, 2, 2, 2>(four, four),
        i32x4_shuffle::<3, 3, 3, 3>(four, four),
    ]
}

/// Repeats a step, each time with its number as a constant, so that a load has its offset in it. With `apart by steps`, a branch after
/// each keeps it from the next: see [`Steps`].
macro_rules! unrolled {
    ($step:ident in $($number:literal)* $body:block) => {
        $({ const $step: usize = $number; $body })*
    };
    ($step:ident in $($number:literal)*, apart by $steps:ident $body:block) => {
        'steps: {
            $(
                { const $step: usize = $number; $body }
                if $steps.end_after($number) {
                    break 'steps;
                }
            )*
        }
    };
}
pub(super) use unrolled;
