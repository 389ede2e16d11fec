//! Packing: from the rows or columns of a checkpoint's tensor, strip by strip, to [panels](super).
//!
//! Not responsible for reading or converting: strips arrive as `f32`, and become the blocks of a precision here.

use std::ops::Range;

use super::block::{BLOCK, Block, Tile, copy};
use super::{Entry, MatrixKernel, PANEL};
use crate::error::{Error, Result};

/// Bytes of the largest segment: well below the 2 GiB that one allocation can have on wasm32.
const SEGMENT_BYTES: usize = 256 << 20;

/// A matrix `[n, k]` in panels of blocks `B`.
///
/// The panels lie in segments of at most 256 MiB, each a whole number of panels. Memory is taken when the matrix is made; filling it
/// takes none.
#[derive(Debug)]
pub struct Packed<B> {
    n: usize,
    k: usize,
    panels_per_segment: usize,
    segments: Vec<Vec<B>>,
}

/// A matrix of `f32`.
pub type PackedF32 = Packed<Entry>;

impl<B: Block> Packed<B> {
    /// A matrix of zeros with `n` rows (outputs) and `k` columns (inputs).
    ///
    /// # Errors
    /// [`Error::Memory`] if the allocator refuses; what had been taken is given back.
    pub fn new(n: usize, k: usize) -> Result<Self> {
        Self::with_segments(n, k, SEGMENT_BYTES)
    }

    /// [`new`](Self::new) with segments of another size, so that tests can have several.
    pub(super) fn with_segments(n: usize, k: usize, segment_bytes: usize) -> Result<Self> {
        let refused = || Error::Memory(format!("a weight of [{n}, {k}] needs {} bytes", Self::bytes(n, k)));
        let blocks = k.div_ceil(B::DEPTH); // of a panel
        let panel_bytes = blocks.checked_mul(size_of::<B>()).ok_or_else(refused)?;
        let panels = n.div_ceil(PANEL);
        let panels_per_segment = (segment_bytes / panel_bytes.max(1)).clamp(1, panels.max(1));
        let mut segments = Vec::new();
        for start in (0..panels).step_by(panels_per_segment) {
            let blocks = panels_per_segment.min(panels - start) * blocks;
            let mut segment = Vec::new();
            segment.try_reserve_exact(blocks).map_err(|_| refused())?;
            segment.resize(blocks, B::ZERO);
            segments.push(segment);
        }
        Ok(Self { n, k, panels_per_segment, segments })
    }

    /// Bytes that a matrix of this shape takes, padding included.
    pub fn bytes(n: usize, k: usize) -> u64 {
        (n.div_ceil(PANEL) as u64 * size_of::<B>() as u64).saturating_mul(k.div_ceil(B::DEPTH) as u64)
    }

    /// Rows, the outputs of the product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns, the inputs of the product.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The rows of the matrix that each segment holds, and its panels.
    pub fn segments(&self) -> impl Iterator<Item = (Range<usize>, &[B])> {
        let rows = self.panels_per_segment * PANEL;
        self.segments.iter().enumerate().map(move |(index, segment)| {
            let start = index * rows;
            (start..self.n.min(start.saturating_add(rows)), segment.as_slice())
        })
    }

    /// Sets the rows from `row` on: `rows` is `[r, k]`, row-major, for any number `r`.
    ///
    /// Fastest for whole panels: `row` and `r` multiples of [`PANEL`].
    ///
    /// # Panics
    /// If the strip is not a whole number of rows, or reaches beyond the matrix.
    pub fn set_rows(&mut self, row: usize, rows: &[f32]) {
        let (n, k) = (self.n, self.k);
        let count = rows.len().checked_div(k).unwrap_or(0);
        assert!(count * k == rows.len(), "{} elements are not rows of {k}", rows.len());
        assert!(row + count <= n, "rows {row}..{} of {n}", row + count);
        let (mut row, mut rows) = (row, rows);
        while !rows.is_empty() {
            let lane = row % PANEL;
            let here = (PANEL - lane).min(rows.len() / k);
            let (strip, rest) = rows.split_at(here * k);
            let mut tile = [[0.0; PANEL]; BLOCK];
            for (start, blocks) in tiles(0..k, self.panel_mut(row / PANEL)) {
                let depth = BLOCK.min(k - start);
                gather_rows(strip, k, start..start + depth, lane, &mut tile);
                B::pack(&tile, lane..lane + here, blocks);
            }
            row += here;
            rows = rest;
        }
    }

    /// Sets the columns from `column` on, in the rows from `row` on, from a strip of a *transposed* tensor `[k, width]`
    /// (GPT-2's `Conv1D` stores `[in, out]`): `strip` is `[c, width]`, row-major, for any number `c` of columns that are
    /// whole blocks, or the last ones; and `outputs` are the columns of that tensor, which are rows of this matrix, that are wanted. So a
    /// matrix with a range of a layer's outputs takes the same strips as one with all.
    ///
    /// # Panics
    /// If the strip is not a whole number of columns and blocks, or does not hold `outputs`, or reaches beyond the matrix.
    pub fn set_columns(
        &mut self,
        column: usize,
        row: usize,
        strip: &[f32],
        width: usize,
        outputs: Range<usize>,
    ) {
        let (n, k) = (self.n, self.k);
        let count = strip.len().checked_div(width).unwrap_or(0);
        let columns = column..column + count;
        assert!(count * width == strip.len(), "{} elements are not columns of {width}", strip.len());
        assert!(outputs.start <= outputs.end && outputs.end <= width, "outputs {outputs:?} of {width}");
        assert!(columns.end <= k, "columns {columns:?} of {k}");
        assert!(
            column.is_multiple_of(B::DEPTH) && (count.is_multiple_of(B::DEPTH) || columns.end == k),
            "columns {columns:?} of {k} are not blocks of {}",
            B::DEPTH
        );
        assert!(row + outputs.len() <= n, "rows {row}..{} of {n}", row + outputs.len());
        let (mut row, mut output) = (row, outputs.start);
        let mut tile = [[0.0; PANEL]; BLOCK];
        while output < outputs.end {
            let lane = row % PANEL;
            let here = (PANEL - lane).min(outputs.end - output);
            for (start, blocks) in tiles(columns.clone(), self.panel_mut(row / PANEL)) {
                let strip = strip[(start - column) * width..].chunks_exact(width);
                let depth = BLOCK.min(columns.end - start);
                for (tile, strip) in tile.iter_mut().zip(strip.take(depth)) {
                    copy::<PANEL>(&strip[output..output + here], &mut tile[lane..lane + here]);
                }
                tile[depth..].fill([0.0; PANEL]);
                B::pack(&tile, lane..lane + here, blocks);
            }
            row += here;
            output += here;
        }
    }

    /// Copies row `row` to `out` (`[k]`): an embedding's lookup.
    ///
    /// # Panics
    /// If there is no such row, or `out` has another length.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let (n, k) = (self.n, self.k);
        assert!(row < n && out.len() == k, "row {row} of [{n}, {k}] to {}", out.len());
        let (segment, panel) = self.locate(row / PANEL);
        B::unpack(&self.segments[segment][panel], row % PANEL, out);
    }

    /// `y = bias + x Wᵀ`, or `y += x Wᵀ`, with `kernel`: `x` is `[m, k]`, `bias` is `[n]`, `y` is `[m, n]`.
    ///
    /// # Panics
    /// If a length differs.
    pub fn matmul(
        &self,
        kernel: &dyn MatrixKernel<B>,
        m: usize,
        x: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let (n, k) = (self.n, self.k);
        assert!(x.len() == m * k && y.len() == m * n, "{m} times [{n}, {k}]: {} to {}", x.len(), y.len());
        for (rows, panels) in self.segments() {
            let bias = bias.map(|bias| &bias[rows.clone()]);
            match m {
                1 => kernel.matvec(panels, x, bias, &mut y[rows]),
                _ => kernel.matmul(panels, m, x, bias, y, rows),
            }
        }
    }

    /// Segment and range of blocks of a panel.
    fn locate(&self, panel: usize) -> (usize, Range<usize>) {
        let blocks = self.k.div_ceil(B::DEPTH);
        let start = panel % self.panels_per_segment * blocks;
        (panel / self.panels_per_segment, start..start + blocks)
    }

    fn panel_mut(&mut self, panel: usize) -> &mut [B] {
        let (segment, blocks) = self.locate(panel);
        &mut self.segments[segment][blocks]
    }
}

/// The blocks of `panel` that hold `columns`, a tile at a time, each with its first column.
fn tiles<B: Block>(columns: Range<usize>, panel: &mut [B]) -> impl Iterator<Item = (usize, &mut [B])> {
    let blocks = &mut panel[columns.start / B::DEPTH..columns.end.div_ceil(B::DEPTH)];
    columns.step_by(BLOCK).zip(blocks.chunks_mut(BLOCK / B::DEPTH))
}

/// `columns` of up to [`PANEL`] rows of `rows` (`[r, k]`), to the lanes from `lane` on; zeros for columns that are not there.
fn gather_rows(rows: &[f32], k: usize, columns: Range<usize>, lane: usize, tile: &mut Tile) {
    tile[columns.len()..].fill([0.0; PANEL]);
    if rows.len() == PANEL * k {
        let mut sources: [&[f32]; PANEL] = [&[]; PANEL];
        for (source, row) in sources.iter_mut().zip(rows.chunks_exact(k)) {
            *source = &row[columns.clone()];
        }
        for (i, tile) in tile[..columns.len()].iter_mut().enumerate() {
            for (x, source) in tile.iter_mut().zip(&sources) {
                *x = source[i];
            }
        }
        return;
    }
    for (r, row) in rows.chunks_exact(k).enumerate() {
        for (tile, x) in tile.iter_mut().zip(&row[columns.clone()]) {
            tile[lane + r] = *x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::contract::Random;
    use crate::kernels::{Q4Block, Q8Block};

    /// `[n, k]` of distinct numbers.
    fn numbers(n: usize, k: usize) -> Vec<f32> {
        (0..n * k).map(|i| i as f32).collect()
    }

    fn unpacked<B: Block>(matrix: &Packed<B>) -> Vec<f32> {
        let mut rows = vec![f32::NAN; matrix.n() * matrix.k()];
        for (index, row) in rows.chunks_exact_mut(matrix.k().max(1)).enumerate() {
            matrix.row(index, row);
        }
        rows
    }

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[cfg_attr(not(target_arch = "wasm32"), test)]
    fn rows_come_back_however_the_strips_are_cut() {
        for (n, k) in [(0, 3), (1, 1), (15, 4), (16, 3), (17, 2), (50, 7), (80, 5)] {
            for strip in [1, 2, 15, 16, 17, 33, 80] {
                // Two panels to a segment, so that strips cross segments too.
                let mut matrix = PackedF32::with_segments(n, k, 2 * k * size_of::<Entry>()).expect("fits");
                let rows = numbers(n, k);
                for (index, rows) in rows.chunks(strip * k).enumerate() {
                    matrix.set_rows(index * strip, rows);
                }
                assert_eq!(unpacked(&matrix), rows, "[{n}, {k}] in strips of {strip}");
                let stored: usize = matrix.segments().map(|(_, panels)| size_of_val(panels)).sum();
                assert_eq!(stored as u64, PackedF32::bytes(n, k));
            }
        }
    }

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[cfg_attr(not(target_arch = "wasm32"), test)]
    fn columns_of_the_transposed_tensor_give_the_same_matrix() {
        let (width, k) = (50, 9);
        let whole = numbers(width, k);
        let transposed: Vec<f32> = (0..k * width).map(|i| whole[i % width * k + i / width]).collect();
        for (row, outputs) in [(0, 0..50), (0, 0..16), (16, 7..27), (5, 32..50), (3, 50..50)] {
            for columns in [1, 2, 9] {
                let mut matrix = PackedF32::new(row + outputs.len() + 1, k).expect("fits");
                for (index, strip) in transposed.chunks(columns * width).enumerate() {
                    matrix.set_columns(index * columns, row, strip, width, outputs.clone());
                }
                let mut expected = vec![0.0; matrix.n() * k];
                expected[row * k..][..outputs.len() * k]
                    .copy_from_slice(&whole[outputs.start * k..outputs.end * k]);
                assert_eq!(unpacked(&matrix), expected, "{outputs:?} from row {row}");
            }
        }
    }

    /// Both ways in give a quantised matrix the same blocks, however the strips are cut.
    fn strips_do_not_show<B: Block>() {
        for (n, k) in [(1, 1), (17, 31), (50, 32), (33, 33), (20, 100)] {
            let rows = Random::new(2).vec(n * k);
            let transposed: Vec<f32> = (0..k * n).map(|i| rows[i % n * k + i / n]).collect();
            let mut whole = Packed::<B>::new(n, k).expect("fits");
            whole.set_rows(0, &rows);
            let whole = unpacked(&whole);
            for strip in [1, 15, 16, 33] {
                let mut matrix = Packed::<B>::with_segments(n, k, 1).expect("fits");
                for (index, rows) in rows.chunks(strip * k).enumerate() {
                    matrix.set_rows(index * strip, rows);
                }
                assert_eq!(unpacked(&matrix), whole, "{}: [{n}, {k}] in strips of {strip}", B::NAME);
            }
            for columns in [32, 64] {
                let mut matrix = Packed::<B>::new(n, k).expect("fits");
                for (index, strip) in transposed.chunks(columns * n).enumerate() {
                    matrix.set_columns(index * columns, 0, strip, n, 0..n / 2);
                    matrix.set_columns(index * columns, n / 2, strip, n, n / 2..n);
                }
                assert_eq!(unpacked(&matrix), whole, "{}: [{n}, {k}] in strips of {columns}", B::NAME);
            }
        }
    }

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[cfg_attr(not(target_arch = "wasm32"), test)]
    fn quantised_rows_and_columns_give_the_same_blocks() {
        strips_do_not_show::<Q8Block>();
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        strips_do_not_show::<crate::kernels::Q8QuadBlock>();
        strips_do_not_show::<Q4Block>();
    }

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[cfg_attr(not(target_arch = "wasm32"), test)]
    fn padding_stays_zero_and_unset_rows_too() {
        let mut matrix = PackedF32::new(20, 3).expect("fits");
        matrix.set_rows(5, &Random::new(1).vec(6 * 3));
        let (_, panels) = matrix.segments().next().expect("one segment");
        assert!(panels[..3].iter().all(|entry| entry[..5].iter().chain(&entry[11..]).all(|x| *x == 0.0)));
        assert!(panels[3..].iter().all(|entry| *entry == [0.0; PANEL]));
    }

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[cfg_attr(not(target_arch = "wasm32"), test)]
    fn absurd_sizes_are_refused_with_the_figures() {
        let error = PackedF32::new(1 << 20, usize::MAX / 128).expect_err("cannot fit");
        assert_eq!(error.code(), "out-of-memory");
        assert!(error.to_string().contains("1048576"), "{error}");
    }

    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    #[should_panic(expected = "rows 19..21 of 20")]
    fn rows_beyond_the_matrix_are_refused() {
        PackedF32::new(20, 3).expect("fits").set_rows(19, &[0.0; 6]);
    }

    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    #[should_panic(expected = "columns 0..20 of 64 are not blocks of 32")]
    fn columns_that_are_no_whole_blocks_are_refused() {
        Packed::<Q8Block>::new(16, 64).expect("fits").set_columns(0, 0, &[0.0; 20], 1, 0..1);
    }
}
