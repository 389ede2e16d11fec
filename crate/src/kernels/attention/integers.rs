//! Attention over keys and values of 8 bits: two products like those with [8-bit weights](super::super::q8).
//!
//! ```text
//! scores[p]  = key_scale[p] Σ_d q[d] key[p][d]      the queries as integers of up to 12 bits, 32 dimensions to a scale
//! x[p]       = weights[p] value_scale[p]            as such integers, 32 positions to a scale; 0 where the query does not see
//! sums[d]    = Σ_p x[p] value[p][d]
//! ```
//!
//! Every query of a tile goes through the products with all positions that the last one sees: what meets a zero adds nothing, and no bit
//! depends on it.

use std::ops::Range;

use super::super::page::{Page, PageBlock};
use super::super::q8::Integers;
use super::super::quantised::{Dots, Rows, inputs};
use super::super::vector::exponentials;
use super::super::{BLOCK, Block, Entry, Lanes, PAGE, PANEL, Q8Block};
use super::{AttentionShape, TILE};

/// A token whose instruction set multiplies integers.
pub(in crate::kernels) trait WithIntegers: Lanes {
    /// The token for what is done in floats beside them: one that gives the same bits everywhere, as integers do.
    type Exact: Lanes;
    type Dots: Dots<Integers, Unpacked = Integers>;
    const EXACT: (Self::Exact, Self::Dots);
}

/// Panels of a page of keys or of values, whichever are more.
fn panels_of_page(shape: &AttentionShape) -> usize {
    shape.value_panels().max(PAGE / PANEL)
}

pub(super) fn scratch_len(shape: &AttentionShape) -> usize {
    let len = |m: usize, heads: usize| {
        m * (shape.head_dim + heads * (shape.scores_stride() + panels_of_page(shape) * PANEL + 1))
    };
    len(TILE, 1).max(len(1, shape.heads))
}

/// Many queries, head by head: the keys and values of a head stay in a cache for all of them.
#[inline(never)]
pub(super) fn tiles<B: PageBlock, L: Lanes, D: Dots<B, Unpacked = B>>(
    (lanes, dots): (L, D),
    shape: &AttentionShape,
    q: &[f32],
    pages: &[Page],
    out: &mut [f32],
    scratch: &mut [f32],
) {
    let products = |panels: &[_], x: &[&[_]], sums: &mut [[_; TILE]]| {
        let panels = panels.chunks_exact(panels.len() / sums.len());
        for ((panel, x), sums) in panels.zip(x.iter().cycle()).zip(sums) {
            dots.tile(panel, x, None, Rows::of(sums));
        }
    };
    attend::<B, L, D, TILE>((lanes, dots, products), 1, shape, (q, pages), out, scratch);
}

/// One query, page by page: the keys of all heads are read front to back, and then the values.
#[inline(never)]
pub(super) fn one<B: PageBlock, L: Lanes, D: Dots<B>>(
    (lanes, dots): (L, D),
    shape: &AttentionShape,
    q: &[f32],
    pages: &[Page],
    out: &mut [f32],
    scratch: &mut [f32],
) {
    let products =
        |panels: &[_], x: &[&[_]], sums: &mut [[_; 1]]| dots.rows(panels, x, sums.as_flattened_mut());
    attend::<B, L, D, 1>((lanes, dots, products), shape.heads, shape, (q, pages), out, scratch);
}

/// `M` queries of `group` heads at a time, by `products`: `sums[p][r] += panels[p] x[p % x.len()][r]`. `scratch` holds at least
/// [`scratch_len`] elements of anything.
#[inline(always)]
fn attend<B: PageBlock, L: Lanes, D: Dots<B>, const M: usize>(
    (lanes, dots, products): (L, D, impl Fn(&[B], &[&[D::Input<M>]], &mut [[Entry; M]])),
    group: usize,
    shape: &AttentionShape,
    (q, pages): (&[f32], &[Page]),
    out: &mut [f32],
    scratch: &mut [f32],
) {
    let stride = shape.scores_stride();
    let (scaled, rest) = scratch.split_at_mut(M * shape.head_dim);
    let (scores, rest) = rest.split_at_mut(group * M * stride);
    let (sums, factors) = rest.split_at_mut(group * M * panels_of_page(shape) * PANEL);
    let (sums, factors) = (sums.as_chunks_mut().0.as_chunks_mut().0, factors.as_chunks_mut().0);
    let key_blocks = shape.head_dim.div_ceil(BLOCK);
    let mut x = Vec::with_capacity(group * key_blocks.max(stride / BLOCK));
    let quantise = |x: &mut Vec<_>, rows: &[f32], k: usize, blocks: usize| {
        x.extend(inputs::<B, D, M>(dots, rows, k, Q8Block::INPUT_LEVELS).take(blocks));
    };

    for head in (0..shape.heads).step_by(group) {
        for query in (0..shape.queries).step_by(M) {
            let part = Part {
                shape,
                pages,
                heads: head..shape.heads.min(head + group),
                queries: query..shape.queries.min(query + M),
            };
            x.clear();
            part.queries(q, scaled, |rows| quantise(&mut x, rows, shape.head_dim, key_blocks));
            part.scores(&x, scores, sums, &products);
            x.clear();
            let blocks = part.positions().div_ceil(BLOCK);
            part.weights::<B, L, M>(lanes, scores, factors, |rows| quantise(&mut x, rows, stride, blocks));
            part.sums(&x, sums, &products);
            part.write(sums, factors, out);
        }
    }
}

/// What is taken at a time: neighbouring queries of neighbouring heads. What is kept for them is kept head by head.
struct Part<'a> {
    shape: &'a AttentionShape,
    pages: &'a [Page],
    heads: Range<usize>,
    queries: Range<usize>,
}

impl Part<'_> {
    /// Positions that the last query sees.
    fn positions(&self) -> usize {
        self.shape.past + self.queries.end
    }

    /// The pages of these positions, each with its first one.
    fn pages(&self) -> impl Iterator<Item = (&Page, usize)> {
        self.pages.iter().zip((0..self.positions()).step_by(PAGE))
    }

    /// Hands over the rows of each head: its queries, times the scale.
    #[inline(always)]
    fn queries(&self, q: &[f32], scaled: &mut [f32], mut rows: impl FnMut(&[f32])) {
        let AttentionShape { head_dim, query_stride, scale, .. } = *self.shape;
        for head in self.heads.clone() {
            for (query, scaled) in self.queries.clone().zip(scaled.chunks_exact_mut(head_dim)) {
                let q = &q[query * query_stride + head * head_dim..];
                scaled.iter_mut().zip(q).for_each(|(scaled, q)| *scaled = q * scale);
            }
            rows(&scaled[..self.queries.len() * head_dim]);
        }
    }

    /// The scores of whole panels of positions. Those that a query must not see are left over, and so is anything in `sums`.
    #[inline(always)]
    fn scores<B: PageBlock, I, const M: usize>(
        &self,
        x: &[I],
        scores: &mut [f32],
        sums: &mut [[Entry; M]],
        products: &impl Fn(&[B], &[&[I]], &mut [[Entry; M]]),
    ) {
        let (heads, stride) = (self.heads.len(), self.shape.scores_stride());
        let x: Vec<_> = x.chunks_exact(x.len() / heads).collect();
        for (page, start) in self.pages() {
            let panels = PAGE.min(self.positions() - start).div_ceil(PANEL);
            let mut panel = start / PANEL;
            for (keys, scales) in page.integers::<B>().keys(panels, &self.heads) {
                let sums = &mut sums[..scales.len()];
                sums.fill([[0.0; PANEL]; M]);
                products(keys, &x, sums);
                for (sums, scales) in sums.chunks_exact(heads).zip(scales.chunks_exact(heads)) {
                    let of_heads = sums.iter().zip(scales).zip(scores.chunks_exact_mut(M * stride));
                    for ((sums, scales), scores) in of_heads {
                        for (scores, sums) in scores.chunks_exact_mut(stride).zip(sums) {
                            let scores = &mut scores.as_chunks_mut::<PANEL>().0[panel];
                            *scores = std::array::from_fn(|i| sums[i] * scales[i]);
                        }
                    }
                    panel += 1;
                }
            }
        }
    }

    /// Hands over the rows of each head: its weights, times the scales of the values. `factors` are 1 by the sums of the weights.
    #[inline(always)]
    fn weights<B: PageBlock, L: Lanes, const M: usize>(
        &self,
        lanes: L,
        scores: &mut [f32],
        factors: &mut [[f32; M]],
        mut rows: impl FnMut(&[f32]),
    ) {
        let stride = self.shape.scores_stride();
        let heads = self.heads.clone().zip(scores.chunks_exact_mut(M * stride));
        for ((head, scores), factors) in heads.zip(factors) {
            let scores = &mut scores[..self.queries.len() * stride];
            let queries = self.queries.clone().zip(scores.chunks_exact_mut(stride));
            for ((query, scores), factor) in queries.zip(factors) {
                let seen = self.shape.past + query + 1;
                *factor = 1.0 / exponentials(lanes, &mut scores[..seen]);
                for ((page, _), weights) in self.pages().zip(scores.as_chunks_mut::<PAGE>().0) {
                    let scales = page.integers::<B>().value_scales(head);
                    weights.iter_mut().zip(scales).for_each(|(weight, scale)| *weight *= scale);
                }
                scores[seen..].fill(0.0);
            }
            rows(scores);
        }
    }

    /// `sums` are `[panels][heads]`.
    #[inline(always)]
    fn sums<B: PageBlock, I, const M: usize>(
        &self,
        x: &[I],
        sums: &mut [[Entry; M]],
        products: &impl Fn(&[B], &[&[I]], &mut [[Entry; M]]),
    ) {
        sums.fill([[0.0; PANEL]; M]);
        let (heads, mut of_page) = (self.heads.len(), Vec::new());
        for (page, start) in self.pages() {
            of_page.clear();
            of_page.extend(x.chunks_exact(x.len() / heads).map(|x| &x[start / BLOCK..]));
            let mut rest = &mut *sums;
            for values in page.integers::<B>().values(&self.heads) {
                let (sums, after) = rest.split_at_mut(values.len() / (PAGE / BLOCK));
                products(values, &of_page, sums);
                rest = after;
            }
        }
    }

    #[inline(always)]
    fn write<const M: usize>(&self, sums: &[[Entry; M]], factors: &[[f32; M]], out: &mut [f32]) {
        let head_dim = self.shape.head_dim;
        for (panel, sums) in sums.chunks_exact(self.heads.len()).take(self.shape.value_panels()).enumerate() {
            for ((head, sums), factors) in self.heads.clone().zip(sums).zip(factors) {
                for ((query, sums), factor) in self.queries.clone().zip(sums).zip(factors) {
                    let out = &mut out[query * self.shape.hidden() + head * head_dim..][..head_dim];
                    out[panel * PANEL..].iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * factor);
                }
            }
        }
    }
}
