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
