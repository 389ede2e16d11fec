//! The layers that models are written in. They own packed weights, the choice of kernels and the precision, so that
//! a model file names none of them.
//!
//! Activations are candle tensors, f32, contiguous, `[seq, features]`; there is no batch dimension, since a page
//! writes one text at a time. Not responsible for reading files (see [`crate::checkpoint`]) nor for arithmetic on
//! slices (see [`crate::kernels`]).

mod activation;
mod attention;
mod cache;
mod embedding;
mod linear;
mod norm;
mod weights;

pub use activation::Nonlinearity;
pub use attention::Attention;
pub use cache::{Cache, LayerCache};
pub use embedding::{Embedding, PositionEmbedding};
pub(crate) use linear::STRIP_VALUES;
pub use linear::{Layout, Linear, Rows};
pub use norm::LayerNorm;
pub use weights::{Mode, Weights};

use crate::error::Result;
use crate::kernels::{F32Kernel, VectorKernel};
use candle_core::{CpuStorage, Device, Shape, Storage, Tensor};

/// How the weights of the matrix products are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats, as exact as the checkpoint.
    #[default]
    F32,
}

impl Precision {
    /// Every precision of this build.
    pub const ALL: [Self; 1] = [Self::F32];

    /// The name that the page and the JavaScript API use.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
        }
    }

    /// The precision called `name`, if this build has it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name)
    }
}

/// The kernels that a model runs on.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// Matrix products over f32 panels.
    pub f32: &'static dyn F32Kernel,
    /// Softmax, norms, activations, attention.
    pub vector: &'static dyn VectorKernel,
}

impl Kernels {
    /// The preferred kernels of this build.
    pub fn preferred() -> Self {
        Self { f32: crate::kernels::f32_kernels()[0], vector: crate::kernels::vector_kernels()[0] }
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernels({}, {})", self.f32.name(), self.vector.name())
    }
}

/// Runs `read` on the values of a contiguous f32 tensor, without a copy.
pub(crate) fn with_values<T>(x: &Tensor, read: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        panic!("activations are f32 on the CPU, found {:?}", x.dtype());
    };
    let Some((start, end)) = layout.contiguous_offsets() else {
        panic!("activations are contiguous, found {layout:?}");
    };
    read(&values[start..end])
}

/// A tensor of `values`, without a copy.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

/// The layers' vector operations against candle's own.
#[cfg(all(test, not(target_arch = "wasm32")))]
mod oracle {
    use super::*;
    use crate::kernels::Activation;
    use candle_core::{D, Module};

    fn rows() -> Tensor {
        let values = (0..5 * 37).map(|i| ((i * 29 % 83) as f32 - 40.0) / 9.0).collect();
        tensor(values, (5, 37)).expect("a tensor")
    }

    fn values(x: &Tensor) -> Vec<f32> {
        with_values(x, |values| Ok(values.to_vec())).expect("values")
    }

    fn assert_close(name: &str, ours: &[f32], theirs: &Tensor, tolerance: f32) {
        let theirs = values(&theirs.contiguous().expect("contiguous"));
        for (ours, theirs) in ours.iter().zip(theirs) {
            let slack = tolerance * theirs.abs().max(1.0);
            assert!((ours - theirs).abs() <= slack, "{name}: {ours}, candle has {theirs}");
        }
    }

    #[test]
    fn softmax_is_candles() {
        let x = rows();
        let mut ours = values(&x);
        ours.chunks_mut(37).for_each(|row| Kernels::preferred().vector.softmax(row));
        assert_close("softmax", &ours, &candle_nn::ops::softmax(&x, D::Minus1).expect("softmax"), 1e-6);
    }

    #[test]
    fn layer_norm_is_candles() {
        let x = rows();
        let weight: Vec<f32> = (0..37).map(|i| 1.0 + i as f32 / 50.0).collect();
        let bias: Vec<f32> = (0..37).map(|i| i as f32 / 70.0 - 0.2).collect();
        let mut ours = vec![0.0; 5 * 37];
        Kernels::preferred().vector.layer_norm(&values(&x), &weight, &bias, 1e-5, &mut ours);
        let (weight, bias) = (tensor(weight, 37).expect("weight"), tensor(bias, 37).expect("bias"));
        let norm = candle_nn::LayerNorm::new(weight, bias, 1e-5);
        assert_close("layer norm", &ours, &norm.forward(&x).expect("a norm"), 2e-6);
    }

    #[test]
    fn activations_are_candles() {
        let x = rows();
        for (activation, theirs) in [
            (Activation::GeluTanh, candle_nn::Activation::NewGelu),
            (Activation::GeluErf, candle_nn::Activation::Gelu),
            (Activation::Relu, candle_nn::Activation::Relu),
            (Activation::Silu, candle_nn::Activation::Silu),
        ] {
            let mut ours = values(&x);
            Kernels::preferred().vector.activation(activation, &mut ours);
            assert_close(&format!("{activation:?}"), &ours, &theirs.forward(&x).expect("a result"), 5e-6);
        }
    }
}
