//! Many queries, a tile at a time: every key and value that comes in meets all queries of the tile.
//!
//! Queries of a tile see different positions: those that all of them see go through the tile, the few after them through
//! the row loop, so no query ever touches a position that it must not see, and every sum keeps its order.

use super::super::page::Page;
use super::super::panels::{row, tile};
use super::super::vector::exponentials;
use super::super::{Entry, Lanes, PAGE, PANEL};
use super::{AttentionShape, TILE};

pub(super) fn scratch_len(shape: &AttentionShape) -> usize {
    TILE * (shape.head_dim + shape.scores_stride() + PAGE + shape.value_panels() * PANEL)
}

/// `shape.queries` is not one more than a multiple of [`TILE`]; `scratch` holds at least [`scratch_len`] elements of anything.
#[inline(always)]
pub(super) fn attend<L: Lanes>(
    lanes: L,
    shape: &AttentionShape,
    q: &[f32],
    pages: &[Page],
    out: &mut [f32],
    scratch: &mut [f32],
) {
    let AttentionShape { heads, head_dim, queries, past, scale, query_stride } = *shape;
    let (hidden, stride) = (shape.hidden(), shape.scores_stride());
    let (scaled, rest) = scratch.split_at_mut(TILE * head_dim);
    let (scores, rest) = rest.split_at_mut(TILE * stride);
    let (packed, sums) = rest.split_at_mut(TILE * PAGE);
    let (scaled, packed) = (scaled.as_chunks_mut().0, packed.as_chunks_mut().0);
    let sums = &mut sums.as_chunks_mut().0.as_chunks_mut().0[..shape.value_panels()];

    for head in 0..heads {
        for first in (0..queries).step_by(TILE) {
            let rows = TILE.min(queries - first);
            let tile = Queries { lanes, pages, head, rows, common: past + first + 1, stride };
            for r in 0..rows {
                let q = &q[(first + r) * query_stride + head * head_dim..][..head_dim];
                for (scaled, q) in scaled.iter_mut().zip(q) {
                    scaled[r] = q * scale;
                }
            }
            tile.score(scaled, scores);
            let mut factors = [0.0; TILE];
            for (r, scores) in scores.chunks_exact_mut(stride).take(rows).enumerate() {
                factors[r] = 1.0 / exponentials(lanes, &mut scores[..tile.common + r]);
            }
            tile.weigh(scores, packed, sums);
            for (r, factor) in factors.iter().take(rows).enumerate() {
                let out = &mut out[(first + r) * hidden + head * head_dim..][..head_dim];
                for (out, sums) in out.chunks_mut(PANEL).zip(sums.iter()) {
                    for (out, sum) in out.iter_mut().zip(&sums[r]) {
                        *out = sum * factor;
                    }
                }
            }
        }
    }
}

/// Two to [`TILE`] neighbouring queries of one head.
struct Queries<'a, L> {
    lanes: L,
    pages: &'a [Page],
    head: usize,
    rows: usize,
    /// Positions that every query of the tile sees; query `r` sees `r` more.
    common: usize,
    /// Elements from the scores of one query to those of the next.
    stride: usize,
}

impl<L: Lanes> Queries<'_, L> {
    /// `scores[r][p]` of whole panels of positions; those that query `r` must not see are left over, and never used.
    #[inline(always)]
    fn score(&self, scaled: &[[f32; TILE]], scores: &mut [f32]) {
        let panels = (self.common + self.rows - 1).div_ceil(PANEL);
        let keys = self.pages.iter().flat_map(|page| page.floats(self.head).0.chunks_exact(scaled.len()));
        for (panel, keys) in keys.take(panels).enumerate() {
            let mut sums = [[0.0; PANEL]; TILE];
            tile(self.lanes, keys, scaled, &mut sums);
            for (scores, sums) in scores.chunks_exact_mut(self.stride).zip(&sums).take(self.rows) {
                scores[panel * PANEL..][..PANEL].copy_from_slice(sums);
            }
        }
    }

    /// `sums[panel][r] = Σ_p scores[r][p] * value[p]`, 16 dimensions to a panel.
    #[inline(always)]
    fn weigh(&self, scores: &[f32], packed: &mut [[f32; TILE]], sums: &mut [[Entry; TILE]]) {
        sums.fill([[0.0; PANEL]; TILE]);
        let last = self.common + self.rows - 1;
        for (page, start) in self.pages.iter().zip((0..last).step_by(PAGE)) {
            let common = self.common.saturating_sub(start).min(PAGE);
            for (r, scores) in scores.chunks_exact(self.stride).take(self.rows).enumerate() {
                for (packed, score) in packed.iter_mut().zip(&scores[start..][..common]) {
                    packed[r] = *score;
                }
            }
            for (values, sums) in page.floats(self.head).1.chunks_exact(PAGE).zip(&mut *sums) {
                tile(self.lanes, &values[..common], packed, sums);
                for (r, (scores, sums)) in
                    scores.chunks_exact(self.stride).zip(sums).take(self.rows).enumerate()
                {
                    let visible = (self.common + r).saturating_sub(start).min(PAGE);
                    if visible > common {
                        row(self.lanes, &values[common..visible], &scores[start + common..], sums);
                    }
                }
            }
        }
    }
}
