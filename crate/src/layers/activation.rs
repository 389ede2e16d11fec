//! Elementwise nonlinearities.

use super::{Kernels, Weights, tensor, with_values};
use crate::error::{Error, Result};
use crate::kernels::Activation;
use candle_core::Tensor;

/// An activation function between two linear layers.
#[derive(Clone, Copy, Debug)]
pub struct Nonlinearity {
    activation: Activation,
    kernels: Kernels,
}

impl Nonlinearity {
    /// The function that a `config.json` calls `name`: the names of `transformers.activations.ACT2FN`.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that is not known here.
    pub fn named(name: &str, weights: &Weights<'_>) -> Result<Self> {
        let activation = match name {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "gelu" => Activation::GeluErf,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            "tanh" => Activation::Tanh,
            _ => {
                let known = "gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, relu, silu, swish, tanh";
                let problem = format!("`activation_function`: expected one of {known}, found `{name}`");
                return Err(Error::Config(problem));
            }
        };
        Ok(Self { activation, kernels: weights.kernels() })
    }

    /// The result has the shape of `x`.
    ///
    /// # Errors
    /// [`Error::Candle`] where the result cannot be made a tensor.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = with_values(x, |values| Ok(values.to_vec()))?;
        self.kernels.vector.activation(self.activation, &mut y);
        tensor(y, x.shape())
    }
}
