//! Fused causal attention over a paged KV cache, written once for every instruction set.
//!
//! ```text
//! scores[p]  = scale q · key[p]                       the loops of a matrix product: k = head_dim, n = positions
//! weights[p] = exp(scores[p] - max)                   over the positions that the query sees
//! sums[d]    = Σ_p weights[p] value[p][d]             the same loops: k = positions, n = head_dim
//! out[d]     = sums[d] / Σ weights
//! ```
//!
//! Queries go four at a time through the loop of a tile; one that is left over, or that comes alone while decoding, through that of a
//! row. Both add up in the same order, so a query's result does not depend on its neighbours. Over `f32` the loops are those of `panels`
//! (`tiles`, `one`), over 8 bits those of `quantised` (`integers`).

mod integers;
mod one;
mod tiles;

pub(super) use integers::WithIntegers;

use super::page::{CacheFormat, Page, Shape};
use super::q8::Integers;
use super::quantised;
use super::{PAGE, PANEL};
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
use super::{
    blocks_simd128::InVectors,
    q8_quads::Quads,
    q8_relaxed::{self, ByteQuads},
    simd128::Simd128,
};

/// Queries taken at a time, of either format.
const TILE: usize = quantised::TILE;

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
        let floats = one::scratch_len(self).max(tiles::scratch_len(self));
        floats.max(integers::scratch_len(self))
    }

    /// Scores of one query: the positions, rounded up to whole pages.
    fn scores_stride(&self) -> usize {
        (self.past + self.queries).next_multiple_of(PAGE)
    }

    /// Panels of a head's dimensions.
    fn value_panels(&self) -> usize {
        self.head_dim.div_ceil(PANEL)
    }

    /// Elements of a query, and of a row of the result.
    fn hidden(&self) -> usize {
        self.heads * self.head_dim
    }
}

/// How quads are multiplied, whatever the instruction set of the rest.
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
const QUADS: (Simd128, InVectors<ByteQuads>) = (Simd128, q8_relaxed::DOTS);

/// See [`attention`](super::VectorKernel::attention).
pub(super) fn attention<L: WithIntegers>(
    lanes: L,
    shape: &AttentionShape,
    q: &[f32],
    pages: &[Page],
    out: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    let AttentionShape { heads, head_dim, queries, past, query_stride, .. } = *shape;
    let hidden = shape.hidden();
    assert!(out.len() == queries * hidden, "{queries} queries of {hidden}: {} outputs", out.len());
    if out.is_empty() {
        return;
    }
    assert!(q.len() >= (queries - 1) * query_stride + hidden, "{shape:?}: only {} query elements", q.len());
    assert!(pages.len() * PAGE >= past + queries, "{shape:?}: only {} pages", pages.len());
    for page in pages {
        assert!(page.shape() == Shape { heads, head_dim }, "{shape:?}: a page of {:?}", page.shape());
    }
    scratch.resize(shape.scratch_len().max(scratch.len()), 0.0);
    let alone = usize::from(queries % TILE == 1);
    let tiled = AttentionShape { queries: queries - alone, ..*shape };
    let (out, last) = out.split_at_mut(tiled.queries * hidden);
    let format = pages[0].format();
    match format {
        CacheFormat::F32 => tiles::attend(lanes, &tiled, q, pages, out, scratch),
        CacheFormat::Q8 => integers::tiles::<Integers, _, _>(L::EXACT, &tiled, q, pages, out, scratch),
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        CacheFormat::Q8Quads => integers::tiles::<Quads, _, _>(QUADS, &tiled, q, pages, out, scratch),
    }
    if alone == 1 {
        let shape = AttentionShape { queries: 1, past: past + tiled.queries, ..*shape };
        let q = &q[tiled.queries * query_stride..];
        match format {
            CacheFormat::F32 => one::attend(lanes, &shape, q, pages, last, scratch),
            CacheFormat::Q8 => integers::one::<Integers, _, _>(L::EXACT, &shape, q, pages, last, scratch),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            CacheFormat::Q8Quads => integers::one::<Quads, _, _>(QUADS, &shape, q, pages, last, scratch),
        }
    }
}
