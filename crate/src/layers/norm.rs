//! Layer normalisation.

use super::{Kernels, Weights, tensor, with_values};
use crate::error::Result;
use candle_core::Tensor;

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension, with the biased variance
/// (Ba, Kiros and Hinton, 2016).
#[derive(Debug)]
pub struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
    kernels: Kernels,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, each `[size]`.
    ///
    /// # Errors
    /// Those of [`Weights::vector`].
    pub async fn load(weights: &Weights<'_>, size: usize, eps: f32) -> Result<Self> {
        let weight = weights.vector("weight", size).await?;
        let bias = weights.vector("bias", size).await?;
        Ok(Self { weight, bias, eps, kernels: weights.kernels() })
    }

    /// The norm without learned weights: `weight` is 1 and `bias` 0.
    pub fn plain(weights: &Weights<'_>, size: usize, eps: f32) -> Self {
        Self { weight: vec![1.0; size], bias: vec![0.0; size], eps, kernels: weights.kernels() }
    }

    /// `x` is `[seq, size]`; so is the result.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where the result cannot be made a tensor.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = with_values(x, |x| {
            let mut y = vec![0.0; x.len()];
            self.kernels.vector.layer_norm(x, &self.weight, &self.bias, self.eps, &mut y);
            Ok(y)
        })?;
        tensor(y, x.shape())
    }
}
