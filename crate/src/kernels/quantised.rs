//! Products with blocks of integers, written once for every precision and instruction set.
//!
//! The inputs become integers as the weights are, 32 columns to a scale; theirs is a power of two. Inside a block all arithmetic is on
//! integers and exact; around it stands one order of operations that are rounded one by one:
//!
//! ```text
//! sum[row] = sum[row] + f32(Σ_k weight[row][k] input[k]) * scale of the inputs * scale of the weights[row]
//! ```
//!
//! They are powers of two so that the first product takes neither a conversion nor a multiplication: inputs come with the
//! [base](super::quantise::BASE) of their scale, dots are added to its bits, and then its value is subtracted.
//!
//! So every kernel of a precision gives the same bits, in every build and browser, for one row of inputs and for many.

use std::ops::Range;

use super::block::{BLOCK, Block, padded};
use super::panels::LARGEST_TILE;
use super::quantise::{BASE, Scale, quantise_inputs};
use super::{Entry, MatrixKernel, PANEL, WHOLE_TILES};

/// Rows of `x` in a tile, for all kernels but those that say otherwise.
pub(super) const TILE: usize = 4;

/// A block of weights with a scale for each row.
pub(super) trait Scales {
    fn scales(&self) -> &[Scale; PANEL];
}

/// A block of integers.
pub(super) trait QuantisedBlock: Scales {
    /// `Σ_k weight[row][k] input[k]` of each row.
    fn dots(&self, inputs: &[i32; BLOCK]) -> [i32; PANEL];
}

/// What an instruction set does with the blocks of a precision.
pub(super) trait Dots<B>: Copy + Sync + 'static {
    const NAME: &'static str;
    const INSTRUCTION: &'static str;
    /// See [`MatrixKernel::passes`].
    const PASSES: u32 = 1;

    /// See [`MatrixKernel::has_instruction`].
    fn has_instruction(self) -> Option<bool> {
        None
    }

    /// [`BLOCK`] inputs of each of `M` rows with their bases, as the loops below read them: from front to back.
    type Input<const M: usize>: Copy;

    /// A block of weights as tiles read it, which may be wider than it is packed.
    type Unpacked: Copy;

    /// Of row `r`, `integers[r]` have the base `bases[r]`.
    fn input<const M: usize>(self, bases: [f32; M], integers: &[[i32; BLOCK]; M]) -> Self::Input<M>;

    /// `sums[p] += panels[p] x`, for one row of inputs.
    fn row(self, panels: &[B], x: &[Self::Input<1>], sums: &mut [Entry]);

    /// A panel for many tiles, in `scratch` if it has to be made.
    fn unpacked<'a>(self, panel: &'a [B], scratch: &'a mut Vec<Self::Unpacked>) -> &'a [Self::Unpacked];

    /// Copies an entry by the vectors that `tile` reads. Compilers copy it in narrower parts, and a vector that was stored in parts is read
    /// only when they and all that was stored before them have reached the cache.
    fn copy(self, from: &Entry, to: &mut Entry) {
        *to = *from;
    }

    /// `sums[r] += panel x[r]`, for the rows of a tile.
    fn tile<const M: usize>(self, panel: &[Self::Unpacked], x: &[Self::Input<M>], sums: &mut [Entry; M]);
}

/// Products with packed matrices of integers, by the loops `D`, a tile of `ROWS` rows of `x` at a time.
#[derive(Clone, Copy, Debug)]
pub struct Quantised<D, const ROWS: usize = TILE>(pub(super) D);

impl<B: Block, D: Dots<B>, const ROWS: usize> MatrixKernel<B> for Quantised<D, ROWS> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn instruction(&self) -> &'static str {
        D::INSTRUCTION
    }

    fn passes(&self) -> u32 {
        D::PASSES
    }

    fn has_instruction(&self) -> Option<bool> {
        self.0.has_instruction()
    }

    fn matvec(&self, panels: &[B], x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        let blocks = check_panels(panels, bias, y.len(), x.len());
        let x: Vec<_> = inputs::<B, D, 1>(self.0, x, x.len(), B::INPUT_LEVELS).collect();
        if let Some(bias) = bias {
            y.copy_from_slice(bias);
        }
        let (whole, rest) = y.as_chunks_mut::<PANEL>();
        let (panels, last) = panels.split_at(whole.len() * blocks);
        self.0.row(panels, &x, whole);
        if !rest.is_empty() {
            let mut sums = [padded(rest, 0.0)];
            self.0.row(last, &x, &mut sums);
            rest.copy_from_slice(&sums[0][..rest.len()]);
        }
    }

    // All of `k` at once, unlike in `panels`: a panel and a tile of integers fit the second-level cache and are read front to back, and
    // every pass over `y`, whose rows lie kilobytes apart, costs 6 %.
    fn matmul(
        &self,
        panels: &[B],
        m: usize,
        x: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
        columns: Range<usize>,
    ) {
        let (n, k) = (y.len().checked_div(m).unwrap_or(0), x.len().checked_div(m).unwrap_or(0));
        assert!(n * m == y.len() && k * m == x.len(), "{m} rows of {} inputs, {} outputs", x.len(), y.len());
        if m == 0 {
            return;
        }
        assert!(columns.start <= columns.end && columns.end <= n, "columns {columns:?} of {n}");
        let blocks = check_panels(panels, bias, columns.len(), k);
        if m == 1 {
            return self.matvec(panels, x, bias, &mut y[columns]);
        }
        const { assert!(WHOLE_TILES.is_multiple_of(ROWS) && ROWS <= LARGEST_TILE) };
        const { assert!((B::INPUT_LEVELS + 1).count_ones() == 1, "as `quantise_inputs` takes them") };
        let rows = |first: usize| &x[first * k..m.min(first + ROWS) * k];
        let tile = |first| inputs::<B, D, ROWS>(self.0, rows(first), k, B::INPUT_LEVELS).collect();
        let tiles: Vec<Vec<_>> = (0..m).step_by(ROWS).map(tile).collect();
        let (mut scratch, mut sums) = (Vec::new(), [[0.0; PANEL]; ROWS]);
        for first in (0..columns.len()).step_by(PANEL) {
            let panel = self.0.unpacked(&panels[first / PANEL * blocks..][..blocks], &mut scratch);
            let rows = first..columns.len().min(first + PANEL);
            let columns = columns.start + rows.start..columns.start + rows.end;
            let bias = bias.map(|bias| padded(&bias[rows], 0.0));
            for (tile, y) in tiles.iter().zip(y.chunks_mut(ROWS * n)) {
                for (sums, y) in sums.iter_mut().zip(y.chunks_exact(n)) {
                    let y = &y[columns.clone()];
                    match (&bias, y.first_chunk()) {
                        (Some(bias), _) => self.0.copy(bias, sums),
                        (None, Some(y)) => self.0.copy(y, sums),
                        (None, None) => *sums = padded(y, 0.0),
                    }
                }
                self.0.tile(panel, tile, &mut sums);
                for (sums, y) in sums.iter().zip(y.chunks_exact_mut(n)) {
                    let y = &mut y[columns.clone()];
                    match y.first_chunk_mut() {
                        Some(y) => self.0.copy(sums, y),
                        None => y.copy_from_slice(&sums[..y.len()]),
                    }
                }
            }
        }
    }
}

/// The blocks of up to `M` rows of `k` inputs, as integers of `-levels..=levels`. Rows that are not there are zeros, and so are the
/// columns after the last.
pub(super) fn inputs<B, D: Dots<B>, const M: usize>(
    dots: D,
    x: &[f32],
    k: usize,
    levels: i32,
) -> impl Iterator<Item = D::Input<M>> {
    // For all blocks: those of rows that are there are overwritten, others stay zeros. New ones for each block are a call to fill them.
    let (mut bases, mut integers) = ([BASE; M], [[0; BLOCK]; M]);
    (0..k).step_by(BLOCK).map(move |start| {
        for (r, x) in x.chunks_exact(k).enumerate() {
            let padding; // of the last block; others are read where they lie
            let x = match x[start..].first_chunk() {
                Some(whole) => whole,
                None => {
                    padding = padded(&x[start..], 0.0);
                    &padding
                }
            };
            bases[r] = quantise_inputs(x, levels, &mut integers[r]);
        }
        dots.input(bases, &integers)
    })
}

/// The blocks of one panel of a matrix `[n, k]`, if panels and biases are what it has.
pub(super) fn check_panels<B: Block>(panels: &[B], bias: Option<&[f32]>, n: usize, k: usize) -> usize {
    let blocks = k.div_ceil(B::DEPTH);
    let expected = n.div_ceil(PANEL) * blocks;
    assert!(panels.len() == expected, "[{n}, {k}] needs {expected} blocks, given {}", panels.len());
    assert!(
        bias.is_none_or(|bias| bias.len() == n),
        "[{n}, {k}] needs {n} biases, given {:?}",
        bias.map(<[_]>::len)
    );
    blocks
}
