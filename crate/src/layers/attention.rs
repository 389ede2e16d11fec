//! Causal multi-head attention over the cache.

use super::{Kernels, LayerCache, Weights, tensor, with_values};
use crate::error::Result;
use crate::kernels::AttentionShape;
use candle_core::Tensor;

/// `softmax(scale * q kᵀ) v` for each head, each query seeing its own position and those before it
/// (Vaswani et al., 2017).
///
/// The heads may be a range of a model's heads: nothing here mixes them.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    heads: usize,
    head_dim: usize,
    scale: f32,
    kernels: Kernels,
}

impl Attention {
    /// Attention over `heads` heads of width `head_dim`.
    pub fn new(heads: usize, head_dim: usize, scale: f32, weights: &Weights<'_>) -> Self {
        Self { heads, head_dim, scale, kernels: weights.kernels() }
    }

    /// `qkv` is `[seq, 3 * heads * head_dim]`: queries, keys and values beside each other. Appends the keys and
    /// values to `cache`; the result is `[seq, heads * head_dim]`.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where the cache cannot grow.
    pub fn forward(&self, qkv: &Tensor, cache: &mut LayerCache) -> Result<Tensor> {
        let (seq, width) = qkv.dims2()?;
        let hidden = self.heads * self.head_dim;
        assert_eq!(width, 3 * hidden, "qkv holds queries, keys and values of {} heads", self.heads);
        let past = cache.len();
        let out = with_values(qkv, |qkv| {
            for row in qkv.chunks_exact(width) {
                let (key, value) = row[hidden..].split_at(hidden);
                cache.push(key, value)?;
            }
            let shape = AttentionShape {
                heads: self.heads,
                head_dim: self.head_dim,
                queries: seq,
                past,
                scale: self.scale,
                query_stride: width,
            };
            let mut out = vec![0.0; seq * hidden];
            let mut scratch = Vec::new();
            self.kernels.vector.attention(&shape, qkv, cache.pages(), &mut out, &mut scratch);
            Ok(out)
        })?;
        tensor(out, (seq, hidden))
    }
}
