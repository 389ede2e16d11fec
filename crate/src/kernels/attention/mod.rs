//! Fused causal attention over a paged KV cache, written once for every instruction set.
//!
//! ```text
//! for head
//!     for tile of queries
//!         scores[r][p] = scale q[r] · key[p]         the loops of `panels`: k = head_dim, n = positions
//!         weights[r]   = exp(scores[r] - max)        over the positions that query r sees
//!         sums[r][d]   = Σ_p weights[r][p] value[p][d]   the same loops: k = positions, n = head_dim
//!         out[r]       = sums[r] / Σ weights[r]
//! ```
//!
//! Queries of a tile see different positions: those that all of them see go through the tile, the few after them through
//! the row loop, so no query ever touches a position that it must not see, and every sum keeps its order.

use std::marker::PhantomData;

use super::page::{Bf16Entry, CacheFormat, Page, PageEntry};
use super::panels::{row, tile};
use super::vector::exponentials;
use super::{Entry, Lanes, PAGE, PANEL};

/// Queries taken at a time.
const TILE: usize = 4;

/// The shape of one call of [`attention`](super::VectorKernel::attention).
///
/// Query `i` is `q[i * query_stride ..][.. heads * head_dim]`, so the rows of a fused `qkv` can be passed as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Heads in `q`, in every page and in `out`: all of the layer's, or a range of them.
    pub heads: usize,
    /// Elements of a head; any number.
    pub head_dim: usize,
    /// Queries, `m`.
    pub queries: usize,
    /// Positions before the first query: query `i` sees positions `0..=past + i`.
    pub past: usize,
    /// Factor on the scores, `1 / √head_dim` as a rule.
    pub scale: f32,
    /// Elements from one query to the next.
    pub query_stride: usize,
}

impl AttentionShape {
    /// Elements of scratch memory that a call of this shape takes.
    pub fn scratch_len(&self) -> usize {
        let sums = self.head_dim.div_ceil(PANEL) * PANEL;
        TILE * (self.head_dim + self.scores_stride() + PAGE + sums)
    }

    /// Scores of one query: the positions, rounded up to a whole panel.
    fn scores_stride(&self) -> usize {
        (self.past + self.queries).next_multiple_of(PANEL)
    }
}

/// See [`attention`](super::VectorKernel::attention).
pub(super) fn attention<L: Lanes>(
    lanes: L,
    shape: &AttentionShape,
    q: &[f32],
    pages: &[Page],
    out: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    match pages.first().map(Page::format) {
        Some(CacheFormat::Bf16) => attention_over::<L, Bf16Entry>(lanes, shape, q, pages, out, scratch),
        Some(CacheFormat::F32) | None => attention_over::<L, Entry>(lanes, shape, q, pages, out, scratch),
    }
}

/// [`attention`] over pages of entries `E`.
#[inline(always)]
fn attention_over<L: Lanes, E: PageEntry>(
    lanes: L,
    shape: &AttentionShape,
    q: &[f32],
    pages: &[Page],
    out: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    let AttentionShape { heads, head_dim, queries, past, scale, query_stride } = *shape;
    let hidden = heads * head_dim;
    assert!(out.len() == queries * hidden, "{queries} queries of {hidden}: {} outputs", out.len());
    if out.is_empty() {
        return;
    }
    assert!(q.len() >= (queries - 1) * query_stride + hidden, "{shape:?}: only {} query elements", q.len());
    assert!(pages.len() * PAGE >= past + queries, "{shape:?}: only {} pages", pages.len());
    for page in pages {
        let (found, of) = page.heads();
        assert!(found == heads && of == head_dim, "{shape:?}: a page of {found} heads of {of}");
    }
    let stride = shape.scores_stride();
    scratch.clear();
    scratch.resize(shape.scratch_len(), 0.0);
    let (scaled, rest) = scratch.split_at_mut(TILE * head_dim);
    let (scores, rest) = rest.split_at_mut(TILE * stride);
    let (packed, sums) = rest.split_at_mut(TILE * PAGE);
    let (scaled, packed) = (scaled.as_chunks_mut().0, packed.as_chunks_mut().0);
    let sums = sums.as_chunks_mut().0.as_chunks_mut().0;

    for head in 0..heads {
        for first in (0..queries).step_by(TILE) {
            let rows = TILE.min(queries - first);
            let tile = Queries::<L, E> {
                lanes,
                pages,
                head,
                rows,
                common: past + first + 1,
                stride,
                entry: PhantomData,
            };
            let query = |r: usize| &q[(first + r) * query_stride + head * head_dim..][..head_dim];
            tile.scale(query, scale, scaled);
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

/// Up to [`TILE`] neighbouring queries of one head.
struct Queries<'a, L, E> {
    lanes: L,
    pages: &'a [Page],
    head: usize,
    /// Queries in this tile; 1 takes the row loop.
    rows: usize,
    /// Positions that every query of the tile sees; query `r` sees `r` more.
    common: usize,
    /// Elements from the scores of one query to those of the next.
    stride: usize,
    entry: PhantomData<E>,
}

impl<'a, L: Lanes, E: PageEntry> Queries<'a, L, E> {
    /// `q * scale`: `[head_dim][TILE]`, or `[head_dim]` for a single query.
    #[inline(always)]
    fn scale(&self, query: impl Fn(usize) -> &'a [f32], scale: f32, scaled: &mut [[f32; TILE]]) {
        if self.rows == 1 {
            for (scaled, q) in scaled.as_flattened_mut().iter_mut().zip(query(0)) {
                *scaled = q * scale;
            }
            return;
        }
        for r in 0..self.rows {
            for (scaled, q) in scaled.iter_mut().zip(query(r)) {
                scaled[r] = q * scale;
            }
        }
    }

    /// `scores[r][p]` of whole panels of positions; those that query `r` must not see are left over, and never used.
    #[inline(always)]
    fn score(&self, scaled: &[[f32; TILE]], scores: &mut [f32]) {
        let panels = (self.common + self.rows - 1).div_ceil(PANEL);
        for panel in 0..panels {
            let keys = self.pages[panel / (PAGE / PANEL)].keys::<E>(self.head, panel % (PAGE / PANEL));
            let mut sums = [[0.0; PANEL]; TILE];
            if self.rows == 1 {
                row(self.lanes, keys, scaled.as_flattened(), &mut sums[0]);
            } else {
                tile(self.lanes, keys, scaled, &mut sums);
            }
            for (scores, sums) in scores.chunks_exact_mut(self.stride).zip(&sums).take(self.rows) {
                scores[panel * PANEL..][..PANEL].copy_from_slice(sums);
            }
        }
    }

    /// `sums[panel][r] = Σ_p scores[r][p] * value[p]`, 16 dimensions to a panel.
    #[inline(always)]
    fn weigh(&self, scores: &[f32], packed: &mut [[f32; TILE]], sums: &mut [[Entry; TILE]]) {
        sums.fill([[0.0; PANEL]; TILE]);
        for (index, page) in self.pages.iter().enumerate() {
            let start = index * PAGE;
            let common = self.common.saturating_sub(start).min(PAGE);
            if self.rows > 1 {
                for (r, scores) in scores.chunks_exact(self.stride).take(self.rows).enumerate() {
                    for (packed, score) in packed.iter_mut().zip(&scores[start.min(scores.len())..][..common])
                    {
                        packed[r] = *score;
                    }
                }
            }
            for (panel, sums) in sums.iter_mut().enumerate() {
                let values = page.values::<E>(self.head, panel);
                if self.rows > 1 {
                    tile(self.lanes, &values[..common], packed, sums);
                }
                let shared = if self.rows > 1 { common } else { 0 };
                for (r, (scores, sums)) in
                    scores.chunks_exact(self.stride).zip(sums).take(self.rows).enumerate()
                {
                    let visible = (self.common + r).saturating_sub(start).min(PAGE);
                    if visible > shared {
                        row(self.lanes, &values[shared..visible], &scores[start + shared..], sums);
                    }
                }
            }
        }
    }
}
