//! Packing: from the rows or columns of a checkpoint's tensor, strip by strip, to [panels](super).
//!
//! Not responsible for reading or converting: strips arrive as `f32`. Another precision gets a type of its own beside
//! [`PackedF32`], with the same strips as its way in and its own kernel trait as its way out.

use std::ops::Range;

use super::{Entry, F32Kernel, PANEL};
use crate::error::{Error, Result};

/// Bytes of the largest segment: well below the 2 GiB that one allocation can have on wasm32.
const SEGMENT_BYTES: usize = 256 << 20;

/// A matrix `[n, k]` of `f32`, in panels.
///
/// The panels lie in segments of at most 256 MiB, each a whole number of panels. Memory is taken when the matrix is made; filling it
/// takes none.
#[derive(Debug)]
pub struct PackedF32 {
    n: usize,
    k: usize,
    panels_per_segment: usize,
    segments: Vec<Vec<Entry>>,
}

impl PackedF32 {
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
        let panel_bytes = k.checked_mul(size_of::<Entry>()).ok_or_else(refused)?;
        let panels = n.div_ceil(PANEL);
        let panels_per_segment = (segment_bytes / panel_bytes.max(1)).clamp(1, panels.max(1));
        let mut segments = Vec::new();
        for start in (0..panels).step_by(panels_per_segment) {
            let entries = panels_per_segment.min(panels - start) * k;
            let mut segment = Vec::new();
            segment.try_reserve_exact(entries).map_err(|_| refused())?;
            segment.resize(entries, [0.0; PANEL]);
            segments.push(segment);
        }
        Ok(Self { n, k, panels_per_segment, segments })
    }

    /// Bytes that a matrix of this shape takes, padding included.
    pub fn bytes(n: usize, k: usize) -> u64 {
        (n.div_ceil(PANEL) as u64 * size_of::<Entry>() as u64).saturating_mul(k as u64)
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
    pub fn segments(&self) -> impl Iterator<Item = (Range<usize>, &[Entry])> {
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
        let mut row = row;
        let mut rows = rows;
        while !rows.is_empty() {
            let lane = row % PANEL;
            let here = (PANEL - lane).min(rows.len() / k);
            let (strip, rest) = rows.split_at(here * k);
            let panel = self.panel_mut(row / PANEL);
            if here == PANEL {
                interleave(strip, panel);
            } else {
                for (r, strip) in strip.chunks_exact(k).enumerate() {
                    for (entry, x) in panel.iter_mut().zip(strip) {
                        entry[lane + r] = *x;
                    }
                }
            }
            row += here;
            rows = rest;
        }
    }

    /// Sets the columns from `column` on, in the rows from `row` on, from a strip of a *transposed* tensor `[k, width]`
    /// (GPT-2's `Conv1D` stores `[in, out]`): `strip` is `[c, width]`, row-major, for any number `c`, and `outputs` are
    /// the columns of that tensor, which are rows of this matrix, that are wanted. So a matrix with a range of a layer's
    /// outputs takes the same strips as one with all.
    ///
    /// # Panics
    /// If the strip is not a whole number of columns, or does not hold `outputs`, or reaches beyond the matrix.
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
        assert!(count * width == strip.len(), "{} elements are not columns of {width}", strip.len());
        assert!(outputs.start <= outputs.end && outputs.end <= width, "outputs {outputs:?} of {width}");
        assert!(column + count <= k, "columns {column}..{} of {k}", column + count);
        assert!(row + outputs.len() <= n, "rows {row}..{} of {n}", row + outputs.len());
        let (mut row, mut output) = (row, outputs.start);
        while output < outputs.end {
            let lane = row % PANEL;
            let here = (PANEL - lane).min(outputs.end - output);
            let entries = &mut self.panel_mut(row / PANEL)[column..];
            for (entry, strip) in entries.iter_mut().zip(strip.chunks_exact(width)) {
                let strip = &strip[output..output + here];
                match <&Entry>::try_from(strip) {
                    Ok(whole) => *entry = *whole,
                    Err(_) => entry[lane..lane + here].copy_from_slice(strip),
                }
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
        assert!(
            row < self.n && out.len() == self.k,
            "row {row} of [{}, {}] to {}",
            self.n,
            self.k,
            out.len()
        );
        let (segment, panel) = self.locate(row / PANEL);
        for (out, entry) in out.iter_mut().zip(&self.segments[segment][panel]) {
            *out = entry[row % PANEL];
        }
    }

    /// `y = W x` with `kernel`: `x` is `[k]`, `y` is `[n]`.
    ///
    /// # Panics
    /// If a length differs.
    pub fn matvec(&self, kernel: &dyn F32Kernel, x: &[f32], y: &mut [f32]) {
        assert!(
            x.len() == self.k && y.len() == self.n,
            "[{}, {}]: {} to {}",
            self.n,
            self.k,
            x.len(),
            y.len()
        );
        for (rows, panels) in self.segments() {
            kernel.matvec(panels, x, &mut y[rows]);
        }
    }

    /// `y = x Wᵀ` with `kernel`: `x` is `[m, k]`, `y` is `[m, n]`.
    ///
    /// # Panics
    /// If a length differs.
    pub fn matmul(&self, kernel: &dyn F32Kernel, m: usize, x: &[f32], y: &mut [f32]) {
        let (n, k) = (self.n, self.k);
        assert!(x.len() == m * k && y.len() == m * n, "{m} times [{n}, {k}]: {} to {}", x.len(), y.len());
        for (rows, panels) in self.segments() {
            kernel.matmul(panels, m, x, y, rows);
        }
    }

    /// Segment and range of entries of a panel.
    fn locate(&self, panel: usize) -> (usize, Range<usize>) {
        let start = panel % self.panels_per_segment * self.k;
        (panel / self.panels_per_segment, start..start + self.k)
    }

    fn panel_mut(&mut self, panel: usize) -> &mut [Entry] {
        let (segment, entries) = self.locate(panel);
        &mut self.segments[segment][entries]
    }
}

/// Interleaves [`PANEL`] rows (`[PANEL, k]`) to a panel.
fn interleave(rows: &[f32], panel: &mut [Entry]) {
    let k = panel.len();
    let mut sources: [&[f32]; PANEL] = [&[]; PANEL];
    for (source, row) in sources.iter_mut().zip(rows.chunks_exact(k)) {
        *source = row;
    }
    for (i, entry) in panel.iter_mut().enumerate() {
        for (x, source) in entry.iter_mut().zip(&sources) {
            *x = source[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::contract::Random;

    /// `[n, k]` of distinct numbers.
    fn numbers(n: usize, k: usize) -> Vec<f32> {
        (0..n * k).map(|i| i as f32).collect()
    }

    fn unpacked(matrix: &PackedF32) -> Vec<f32> {
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
}
