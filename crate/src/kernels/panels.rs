//! Products with panels of `f32`, written once for every instruction set.
//!
//! Two loops carry all of it, and attention over `f32` too. Each adds to sums that it is given, so that a product can be cut along `k`
//! without a change in any bit:
//!
//! ```text
//! row    sums[16]       += Σ_i  panel[i][0..16] * x[i]            4 accumulators
//! tile   sums[TILE][16] += Σ_i  panel[i][0..16] * x[i][0..TILE]   2 TILE accumulators, in two passes of 8 columns
//! ```
//!
//! A tile's inputs are packed `[k][TILE]` first, so both streams are read front to back, and the type carries the
//! bounds. The loops are unrolled by macro: sums held in nested arrays and indexed in a loop go through memory in browsers.
//!
//! `TILE` is a matter of registers: V8 has 15 for vectors on x86-64, and `2 TILE` sums, 2 weights and 1 input live at once, and
//! a product where multiply and add are two instructions. So it is 6 with fused multiply-adds and 4 without: measured in
//! Chromium on a Zen 4, 6 reaches 86 % of the peak of `f32x4.relaxed_madd` (4: 83 %), and 4 reaches 74 % of the peak of
//! `f32x4.mul` and `f32x4.add` (6: 48 %, for it spills).
//!
//! Whoever changes a loop should look at the emitted wasm: LLVM may put all products with one weight before those with the next,
//! which needs every input of the tile at once and spills; and its loop strength reduction, switched off in `.cargo/config.toml`, turns
//! constant offsets into additions, which then show as more `i32.add` than the loop has lines.

use std::ops::Range;

use super::block::{copy, padded};
use super::quantised::check_panels;
use super::stream::{PAGE_ENTRIES, Stream, in_two_streams};
use super::{Entry, Lanes, MatrixKernel, PANEL, WHOLE_TILES};

/// The most rows of `x` that a tile can have.
pub(super) const LARGEST_TILE: usize = 6;

/// Entries of a panel that a tile runs over before it goes on to the next panel: 16 KiB of weights and up to 6 KiB
/// of inputs stay in the first-level cache.
pub(super) const K_BLOCK: usize = 256;

/// Rows of `x` that are packed at a time: bounds the scratch memory to 384 KiB. A multiple of every tile.
pub(super) const M_BLOCK: usize = 384;

/// Products with panels of `f32` on the instruction set `L`, `TILE` rows of `x` at a time.
#[derive(Clone, Copy, Debug)]
pub struct F32Panels<L, const TILE: usize>(pub(super) L);

impl<L: Lanes, const TILE: usize> MatrixKernel<Entry> for F32Panels<L, TILE> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn instruction(&self) -> &'static str {
        L::MULTIPLY_ADD
    }

    fn matvec(&self, panels: &[Entry], x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        let (n, k) = (y.len(), x.len());
        check_panels(panels, bias, n, k);
        if let Some(bias) = bias {
            y.copy_from_slice(bias);
        }
        let stream = Stream::of(panels);
        let (whole, rest) = y.as_chunks_mut::<PANEL>();
        let (panels, ragged) = panels.split_at(whole.len() * k);
        let (pairs, last) = in_two_streams(panels, k, 1, whole);
        // As much as a page of memory at a time, to ask for the next one.
        for [(first, first_sums), (second, second_sums)] in pairs {
            let pages =
                first.chunks(PAGE_ENTRIES).zip(second.chunks(PAGE_ENTRIES)).zip(x.chunks(PAGE_ENTRIES));
            for ((first, second), x) in pages {
                stream.ask_ahead(first);
                stream.ask_ahead(second);
                two_rows(self.0, [first, second], x, [&mut first_sums[0], &mut second_sums[0]]);
            }
        }
        if let Some((panel, sums)) = last {
            row(self.0, panel, x, &mut sums[0]);
        }
        if !rest.is_empty() {
            let mut sums = padded(rest, 0.0);
            row(self.0, ragged, x, &mut sums);
            rest.copy_from_slice(&sums[..rest.len()]);
        }
    }

    // Loops as in Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication".
    fn matmul(
        &self,
        panels: &[Entry],
        m: usize,
        x: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
        columns: Range<usize>,
    ) {
        if m == 0 {
            return assert!(
                x.is_empty() && y.is_empty(),
                "no rows, but {} inputs, {} outputs",
                x.len(),
                y.len()
            );
        }
        let (n, k) = (y.len() / m, x.len() / m);
        assert!(n * m == y.len() && k * m == x.len(), "{m} rows of {} inputs, {} outputs", x.len(), y.len());
        assert!(columns.start <= columns.end && columns.end <= n, "columns {columns:?} of {n}");
        check_panels(panels, bias, columns.len(), k);
        if m == 1 {
            return self.matvec(panels, x, bias, &mut y[columns]);
        }
        if let Some(bias) = bias {
            y.chunks_exact_mut(n.max(1)).for_each(|y| y[columns.clone()].copy_from_slice(bias));
        }
        if columns.is_empty() || k == 0 {
            return;
        }
        const { assert!(WHOLE_TILES.is_multiple_of(TILE)) };
        let mut packed = vec![[0.0; TILE]; m.min(M_BLOCK).div_ceil(TILE) * k.min(K_BLOCK)];
        for (x, y) in x.chunks(M_BLOCK * k).zip(y.chunks_mut(M_BLOCK * n)) {
            // loop 5: rows of x and y
            for start in (0..k).step_by(K_BLOCK) {
                // loop 4: the inner dimension
                let depth = K_BLOCK.min(k - start);
                for (tile, x) in packed.chunks_exact_mut(depth).zip(x.chunks(TILE * k)) {
                    pack_tile(x, k, start, tile);
                }
                for (index, panel) in panels.chunks_exact(k).enumerate() {
                    // loop 3: panels of W
                    let panel = &panel[start..start + depth];
                    let first = columns.start + index * PANEL;
                    let columns = first..columns.end.min(first + PANEL);
                    for (tile_x, y) in packed.chunks_exact(depth).zip(y.chunks_mut(TILE * n)) {
                        // loop 2: tiles of x; loop 1 is in `tile`
                        let mut sums = [[0.0; PANEL]; TILE];
                        for (sums, y) in sums.iter_mut().zip(y.chunks_exact(n)) {
                            *sums = padded(&y[columns.clone()], 0.0);
                        }
                        tile(self.0, panel, tile_x, &mut sums);
                        for (sums, y) in sums.iter().zip(y.chunks_exact_mut(n)) {
                            copy::<PANEL>(&sums[..columns.len()], &mut y[columns.clone()]);
                        }
                    }
                }
            }
        }
    }
}

/// Columns `start..` of up to `TILE` rows of `x` (`[rows, k]`), as `[depth][TILE]`; rows that are not there become zeros.
fn pack_tile<const TILE: usize>(x: &[f32], k: usize, start: usize, tile: &mut [[f32; TILE]]) {
    if x.len() < TILE * k {
        tile.fill([0.0; TILE]);
    }
    for (r, x) in x.chunks_exact(k).enumerate() {
        for (entry, x) in tile.iter_mut().zip(&x[start..]) {
            entry[r] = *x;
        }
    }
}

/// One vector of an entry or of the sums: lanes `4 * quarter ..`.
#[inline(always)]
fn quarter(entry: &Entry, quarter: usize) -> &[f32; 4] {
    &entry.as_chunks().0[quarter]
}

/// The lower or the upper eight of an entry.
#[inline(always)]
fn half<L: Lanes>(lanes: L, entry: &Entry, half: usize) -> [L::V; 2] {
    [lanes.load(quarter(entry, 2 * half)), lanes.load(quarter(entry, 2 * half + 1))]
}

/// `sums += Σ_i panel[i] * x[i]`.
#[inline(always)]
pub(super) fn row<L: Lanes>(lanes: L, panel: &[Entry], x: &[f32], sums: &mut Entry) {
    let ([mut a, mut b], [mut c, mut d]) = (half(lanes, sums, 0), half(lanes, sums, 1));
    for (entry, x) in panel.iter().zip(x) {
        let x = lanes.splat(*x);
        let ([w_a, w_b], [w_c, w_d]) = (half(lanes, entry, 0), half(lanes, entry, 1));
        a = lanes.multiply_add(x, w_a, a);
        b = lanes.multiply_add(x, w_b, b);
        c = lanes.multiply_add(x, w_c, c);
        d = lanes.multiply_add(x, w_d, d);
    }
    store_all(lanes, [a, b, c, d], sums);
}

/// [`row`] for two panels at once.
#[inline(always)]
fn two_rows<L: Lanes>(lanes: L, [first, second]: [&[Entry]; 2], x: &[f32], [p, q]: [&mut Entry; 2]) {
    let ([mut a, mut b], [mut c, mut d]) = (half(lanes, p, 0), half(lanes, p, 1));
    let ([mut e, mut f], [mut g, mut h]) = (half(lanes, q, 0), half(lanes, q, 1));
    for ((first, second), x) in first.iter().zip(second).zip(x) {
        let x = lanes.splat(*x);
        let ([w_a, w_b], [w_c, w_d]) = (half(lanes, first, 0), half(lanes, first, 1));
        a = lanes.multiply_add(x, w_a, a);
        b = lanes.multiply_add(x, w_b, b);
        c = lanes.multiply_add(x, w_c, c);
        d = lanes.multiply_add(x, w_d, d);
        let ([w_e, w_f], [w_g, w_h]) = (half(lanes, second, 0), half(lanes, second, 1));
        e = lanes.multiply_add(x, w_e, e);
        f = lanes.multiply_add(x, w_f, f);
        g = lanes.multiply_add(x, w_g, g);
        h = lanes.multiply_add(x, w_h, h);
    }
    store_all(lanes, [a, b, c, d], p);
    store_all(lanes, [e, f, g, h], q);
}

#[inline(always)]
fn store_all<L: Lanes>(lanes: L, sums: [L::V; 4], entry: &mut Entry) {
    sums.into_iter().zip(entry.as_chunks_mut().0).for_each(|(sum, to)| lanes.store(sum, to));
}

/// `sums[r] += Σ_i panel[i] * x[i][r]`.
#[inline(always)]
pub(super) fn tile<L: Lanes, const TILE: usize>(
    lanes: L,
    panel: &[Entry],
    x: &[[f32; TILE]],
    sums: &mut [Entry; TILE],
) {
    half_tile::<L, TILE, 0>(lanes, panel, x, sums);
    half_tile::<L, TILE, 1>(lanes, panel, x, sums);
}

/// [`tile`] for one half of the panel's rows.
#[inline(always)]
fn half_tile<L: Lanes, const TILE: usize, const HALF: usize>(
    lanes: L,
    panel: &[Entry],
    x: &[[f32; TILE]],
    sums: &mut [Entry; TILE],
) {
    const { assert!(TILE <= LARGEST_TILE && HALF < 2) };
    /// `(row, its two sums)` of every row that a tile can have; those from `TILE` on vanish at compile time.
    macro_rules! unrolled {
        ($(($r:literal, $a:ident, $b:ident)),*) => {
            $(let (mut $a, mut $b) = (lanes.splat(0.0), lanes.splat(0.0));)*
            $(if $r < TILE {
                $a = lanes.load(quarter(&sums[$r], 2 * HALF));
                $b = lanes.load(quarter(&sums[$r], 2 * HALF + 1));
            })*
            for (entry, x) in panel.iter().zip(x) {
                let [left, right] = half(lanes, entry, HALF);
                $(if $r < TILE {
                    let input = lanes.splat(x[$r]);
                    $a = lanes.multiply_add(input, left, $a);
                    $b = lanes.multiply_add(input, right, $b);
                })*
            }
            $(if $r < TILE {
                let quarters = sums[$r].as_chunks_mut().0;
                lanes.store($a, &mut quarters[2 * HALF]);
                lanes.store($b, &mut quarters[2 * HALF + 1]);
            })*
        };
    }
    unrolled!((0, a0, b0), (1, a1, b1), (2, a2, b2), (3, a3, b3), (4, a4, b4), (5, a5, b5));
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::kernels::MatrixKernel;
    use crate::kernels::portable::F32;

    #[test]
    #[should_panic(expected = "[17, 3] needs 6 blocks, given 3")]
    fn a_matrix_of_another_shape_is_refused() {
        F32.matvec(&[[0.0; PANEL]; 3], &[0.0; 3], None, &mut [0.0; 17]);
    }

    #[test]
    #[should_panic(expected = "2 rows of 5 inputs, 8 outputs")]
    fn ragged_rows_are_refused() {
        F32.matmul(&[[0.0; PANEL]; 2], 2, &[0.0; 5], None, &mut [0.0; 8], 0..4);
    }
}
