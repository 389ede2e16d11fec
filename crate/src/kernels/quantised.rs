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

    /// `sums[p] += panels[p] x[p % x.len()]`, for one row of inputs, or several that meet as many neighbouring panels in turns; panels are a
    /// multiple of them. A row of inputs may be shorter than a panel, whose further blocks are left alone.
    fn rows(self, panels: &[B], x: &[&[Self::Input<1>]], sums: &mut [Entry]);

    /// A panel for many tiles, in `scratch` if it has to be made.
    fn unpacked<'a>(self, panel: &'a [B], scratch: &'a mut Vec<Self::Unpacked>) -> &'a [Self::Unpacked];

    /// `y[r] = bias + panel x[r]`, or `y[r] += panel x[r]`, for the rows of a tile.
    fn tile<const M: usize>(
        self,
        panel: &[Self::Unpacked],
        x: &[Self::Input<M>],
        bias: Option<&Entry>,
        y: Rows,
    );
}

/// The rows of a tile of outputs, as entries. (An array of references to them would go through memory twice, and wait there.)
pub(super) struct Rows<'a> {
    y: &'a mut [f32],
    /// Elements from a row to the next.
    stride: usize,
    /// In place of any row that is not there.
    spare: Entry,
}

impl<'a> Rows<'a> {
    /// Of `y`, `[rows, stride]`, the [`PANEL`] columns from `column` on.
    #[inline(always)]
    fn at(column: usize, y: &'a mut [f32], stride: usize) -> Self {
        Self { y: &mut y[column..], stride, spare: [0.0; PANEL] }
    }

    #[inline(always)]
    pub(super) fn of(entries: &'a mut [Entry]) -> Self {
        Self::at(0, entries.as_flattened_mut(), PANEL)
    }

    #[inline(always)]
    pub(super) fn row(&mut self, r: usize) -> &mut Entry {
        let row = self.y.get_mut(r * self.stride..).and_then(|row| row.first_chunk_mut());
        row.unwrap_or(&mut self.spare)
    }

    /// Rows `4 i` to `4 i + 3`, which are there.
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    #[inline(always)]
    pub(super) fn four(&mut self, i: usize) -> [&mut Entry; 4] {
        let mut rows = self.y[4 * i * self.stride..].chunks_mut(self.stride);
        std::array::from_fn(|_| rows.next().and_then(|row| row.first_chunk_mut()).expect("whole rows"))
    }
}

/// Products with packed matrices of integers, by the loops `D`: `WIDE` rows of `x` to a tile, and `ROWS` to one of those that are left over.
#[derive(Clone, Copy, Debug)]
pub struct Quantised<D, const ROWS: usize = TILE, const WIDE: usize = ROWS>(pub(super) D);

impl<B: Block, D: Dots<B>, const ROWS: usize, const WIDE: usize> MatrixKernel<B>
    for Quantised<D, ROWS, WIDE>
{
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
        self.0.rows(panels, &[&x], whole);
        if !rest.is_empty() {
            let mut sums = [padded(rest, 0.0)];
            self.0.rows(last, &[&x], &mut sums);
            rest.copy_from_slice(&sums[0][..rest.len()]);
        }
    }

    // All of `k` at once, unlike in `panels`: a panel and a tile of integers fit the second-level cache, and every pass over `y`, whose rows
    // lie kilobytes apart, costs 6 %.
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
        const { assert!(WHOLE_TILES.is_multiple_of(WIDE)) };
        const { assert!((B::INPUT_LEVELS + 1).count_ones() == 1, "as `quantise_inputs` takes them") };
        let whole = m - m % WIDE;
        let ((x, x_left), (y, y_left)) = (x.split_at(whole * k), y.split_at_mut(whole * n));
        let mut wide = Tiles::<_, _, WIDE>::new(self.0, k, x, n, y);
        let mut left = Tiles::<_, _, ROWS>::new(self.0, k, x_left, n, y_left);
        let mut scratch = Vec::new();
        for first in (0..columns.len()).step_by(PANEL) {
            let panel = self.0.unpacked(&panels[first / PANEL * blocks..][..blocks], &mut scratch);
            let rows = first..columns.len().min(first + PANEL);
            let columns = columns.start + rows.start..columns.start + rows.end;
            let bias = bias.map(|bias| padded(&bias[rows], 0.0));
            wide.meet(panel, bias.as_ref(), &columns);
            left.meet(panel, bias.as_ref(), &columns);
        }
    }
}

/// Rows of a product, `M` to a tile.
struct Tiles<'a, B, D: Dots<B>, const M: usize> {
    dots: D,
    inputs: Vec<Vec<D::Input<M>>>,
    y: &'a mut [f32],
    n: usize,
}

impl<'a, B: Block, D: Dots<B>, const M: usize> Tiles<'a, B, D, M> {
    /// Of `x`, `[rows, k]`, and `y`, `[rows, n]`.
    fn new(dots: D, k: usize, x: &[f32], n: usize, y: &'a mut [f32]) -> Self {
        let rows = y.len().checked_div(n).unwrap_or(0);
        let tile = |first: usize| &x[first * k..rows.min(first + M) * k];
        let inputs = (0..rows)
            .step_by(M)
            .map(|first| inputs::<B, D, M>(dots, tile(first), k, B::INPUT_LEVELS).collect())
            .collect();
        Self { dots, inputs, y, n }
    }

    /// Columns `columns` of `y`, which are the rows of `panel`.
    fn meet(&mut self, panel: &[D::Unpacked], bias: Option<&Entry>, columns: &Range<usize>) {
        for (x, y) in self.inputs.iter().zip(self.y.chunks_mut(M * self.n)) {
            if columns.len() == PANEL {
                self.dots.tile(panel, x, bias, Rows::at(columns.start, y, self.n));
                continue;
            }
            let mut entries = [[0.0; PANEL]; M];
            for (entry, y) in entries.iter_mut().zip(y.chunks_exact(self.n)) {
                *entry = padded(&y[columns.clone()], 0.0);
            }
            self.dots.tile(panel, x, bias, Rows::of(&mut entries));
            for (entry, y) in entries.iter().zip(y.chunks_exact_mut(self.n)) {
                y[columns.clone()].copy_from_slice(&entry[..columns.len()]);
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
