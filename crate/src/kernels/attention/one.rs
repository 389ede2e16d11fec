//! One query: bounded by how fast keys and values come in.
//!
//! All heads of a page are taken before the next page, so that the keys are read front to back, and then the values.

use super::super::page::Page;
use super::super::panels::row;
use super::super::vector::exponentials;
use super::super::{Lanes, PAGE, PANEL};
use super::AttentionShape;

pub(super) fn scratch_len(shape: &AttentionShape) -> usize {
    shape.hidden() + shape.heads * (shape.scores_stride() + shape.value_panels() * PANEL)
}

/// `out` is `[hidden]`; `scratch` holds at least [`scratch_len`] elements of anything.
#[inline(always)]
pub(super) fn attend<L: Lanes>(
    lanes: L,
    shape: &AttentionShape,
    q: &[f32],
    pages: &[Page],
    out: &mut [f32],
    scratch: &mut [f32],
) {
    let (head_dim, positions, stride) = (shape.head_dim, shape.past + 1, shape.scores_stride());
    let (scaled, rest) = scratch.split_at_mut(shape.hidden());
    let (scores, rest) = rest.split_at_mut(shape.heads * stride);
    let sums = &mut rest.as_chunks_mut().0[..shape.heads * shape.value_panels()];
    let seen = || pages.iter().zip((0..positions).step_by(PAGE)); // each with its first position

    for (scaled, q) in scaled.iter_mut().zip(q) {
        *scaled = q * shape.scale;
    }
    for (page, start) in seen() {
        let panels = PAGE.min(positions - start).div_ceil(PANEL);
        let heads = scaled.chunks_exact(head_dim).zip(scores.chunks_exact_mut(stride));
        for (head, (q, scores)) in heads.enumerate() {
            let scores = &mut scores[start..].as_chunks_mut().0[..panels];
            for (keys, scores) in page.floats(head).0.chunks_exact(head_dim).zip(scores) {
                *scores = [0.0; PANEL];
                row(lanes, keys, q, scores);
            }
        }
    }
    sums.fill([0.0; PANEL]);
    let factors = scaled; // one for each head; the queries have served
    for (scores, factor) in scores.chunks_exact_mut(stride).zip(&mut *factors) {
        *factor = 1.0 / exponentials(lanes, &mut scores[..positions]);
    }
    for (page, start) in seen() {
        let seen = start..positions.min(start + PAGE);
        let heads = scores.chunks_exact(stride).zip(sums.chunks_exact_mut(shape.value_panels()));
        for (head, (scores, sums)) in heads.enumerate() {
            for (values, sums) in page.floats(head).1.chunks_exact(PAGE).zip(sums) {
                row(lanes, values, &scores[seen.clone()], sums);
            }
        }
    }
    let heads = out.chunks_exact_mut(head_dim).zip(sums.chunks_exact(shape.value_panels()));
    for ((out, sums), factor) in heads.zip(factors) {
        for (out, sum) in out.iter_mut().zip(sums.as_flattened()) {
            *out = sum * *factor;
        }
    }
}
