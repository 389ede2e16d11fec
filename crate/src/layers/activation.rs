//! Elementwise nonlinearities.

use super::{Kernels, Weights, write_values};
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

    /// Writes over `x`, and over whatever shares its storage.
    ///
    /// # Errors
    /// [`Error::Candle`] where `x` cannot be written to.
    pub fn forward(&self, x: Tensor) -> Result<Tensor> {
        write_values(&x, |x| self.kernels.vector.activation(self.activation, x))?;
        Ok(x)
    }
}
