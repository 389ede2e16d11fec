//! Products with blocks of integers, written once for every precision and instruction set.
//!
//! The inputs are quantised as the weights are, 32 columns to a scale. Inside a block all arithmetic is on integers and exact; around
//! it stands one order of operations that are rounded one by one:
//!
//! ```text
//! sum[row] = sum[row] + f32(Σ_k weight[row][k] input[k]) * (scale of the weights[row] * scale of the inputs)
//! ```
//!
//! So every kernel of a precision gives the same bits, in every build and browser, for one row of inputs and for many.

use std::ops::Range;

use super::block::{BLOCK, Block, copy, padded};
use super::quantise::{Scale, quantise_inputs};
use super::{Entry, MatrixKernel, PANEL};

/// Rows of `x` in a tile. Each has its sums of 8 rows of `W` in two of the 15 vector registers that V8 has on x86-64; weights and
/// inputs take up to five more.
pub(super) const TILE: usize = 4;

/// Blocks of a panel that a tile runs over before it goes on to the next: with 8 bits, 8.5 KiB of weights stay in the first-level
/// cache while all tiles of a chunk meet them.
const K_BLOCKS: usize = 16;

/// A block of weights with a scale for each row.
pub(super) trait QuantisedBlock {
    fn scales(&self) -> &[Scale; PANEL];

    /// `Σ_k weight[row][k] input[k]` of each row.
    fn dots(&self, inputs: &[i32; BLOCK]) -> [i32; PANEL];
}

/// What an instruction set does with the blocks of a precision.
pub(super) trait Dots<B>: Copy + Sync + 'static {
    const NAME: &'static str;
    const INSTRUCTION: &'static str;

    /// [`BLOCK`] inputs of each of `M` rows with their scales, as the loops below read them: from front to back.
    type Input<const M: usize>: Copy;

    /// Of row `r`, `integers[r]` are each worth `scales[r]`.
    fn input<const M: usize>(self, scales: [f32; M], integers: &[[i32; BLOCK]; M]) -> Self::Input<M>;

    /// `sums += panel x`, for one row of inputs.
    fn row(self, panel: &[B], x: &[Self::Input<1>], sums: &mut Entry);

    /// `sums[r] += panel x[r]`, for the rows of a tile.
    fn tile(self, panel: &[B], x: &[Self::Input<TILE>], sums: &mut [Entry; TILE]);
}

/// Products with packed matrices of integers, by the loops `D`.
#[derive(Clone, Copy, Debug)]
pub struct Quantised<D>(pub(super) D);

impl<B: Block, D: Dots<B>> MatrixKernel<B> for Quantised<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn instruction(&self) -> &'static str {
        D::INSTRUCTION
    }

    fn matvec(&self, panels: &[B], x: &[f32], y: &mut [f32]) {
        let blocks = check_panels(panels, y.len(), x.len());
        let x: Vec<_> = inputs::<B, D, 1>(self.0, x, x.len(), B::INPUT_LEVELS).collect();
        for (panel, y) in panels.chunks_exact(blocks.max(1)).zip(y.chunks_mut(PANEL)) {
            let mut sums = padded(y, 0.0);
            self.0.row(panel, &x, &mut sums);
            copy::<PANEL>(&sums[..y.len()], y);
        }
    }

    // The loops are those of `panels`.
    fn matmul(&self, panels: &[B], m: usize, x: &[f32], y: &mut [f32], columns: Range<usize>) {
        let (n, k) = (y.len().checked_div(m).unwrap_or(0), x.len().checked_div(m).unwrap_or(0));
        assert!(n * m == y.len() && k * m == x.len(), "{m} rows of {} inputs, {} outputs", x.len(), y.len());
        if m == 0 {
            return;
        }
        assert!(columns.start <= columns.end && columns.end <= n, "columns {columns:?} of {n}");
        let blocks = check_panels(panels, columns.len(), k);
        if m == 1 {
            return self.matvec(panels, x, &mut y[columns]);
        }
        if columns.is_empty() || blocks == 0 {
            return;
        }
        let tile = |x| inputs::<B, D, TILE>(self.0, x, k, B::INPUT_LEVELS).collect();
        let tiles: Vec<Vec<_>> = x.chunks(TILE * k).map(tile).collect();
        for start in (0..blocks).step_by(K_BLOCKS) {
            let range = start..blocks.min(start + K_BLOCKS);
            for (index, panel) in panels.chunks_exact(blocks).enumerate() {
                let panel = &panel[range.clone()];
                let first = columns.start + index * PANEL;
                let columns = first..columns.end.min(first + PANEL);
                for (tile, y) in tiles.iter().zip(y.chunks_mut(TILE * n)) {
                    let mut sums = [[0.0; PANEL]; TILE];
                    for (sums, y) in sums.iter_mut().zip(y.chunks_exact(n)) {
                        *sums = padded(&y[columns.clone()], 0.0);
                    }
                    self.0.tile(panel, &tile[range.clone()], &mut sums);
                    for (sums, y) in sums.iter().zip(y.chunks_exact_mut(n)) {
                        copy::<PANEL>(&sums[..columns.len()], &mut y[columns.clone()]);
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
    (0..k).step_by(BLOCK).map(move |start| {
        let (mut scales, mut integers) = ([0.0; M], [[0; BLOCK]; M]);
        for (r, x) in x.chunks_exact(k).enumerate() {
            let x = &x[start..k.min(start + BLOCK)];
            (scales[r], integers[r]) = quantise_inputs(&padded(x, 0.0), levels);
        }
        dots.input(scales, &integers)
    })
}

/// The blocks of one panel.
fn check_panels<B: Block>(panels: &[B], n: usize, k: usize) -> usize {
    let blocks = k.div_ceil(B::DEPTH);
    let expected = n.div_ceil(PANEL) * blocks;
    assert!(panels.len() == expected, "[{n}, {k}] needs {expected} blocks, given {}", panels.len());
    blocks
}
