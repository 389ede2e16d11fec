//! The layers that models are written in. They own packed weights, the choice of kernels and the precision, so that
//! a model file names none of them.
//!
//! Activations are candle tensors, f32, contiguous, `[seq, features]`; there is no batch dimension, since a page
//! writes one text at a time. The residual stream is one tensor, which layers add to in place. Not responsible for reading files (see [`crate::checkpoint`]) nor for arithmetic on
//! slices (see [`crate::kernels`]).

mod activation;
mod attention;
mod cache;
mod embedding;
mod linear;
mod matrix;
mod norm;
mod weights;

pub use activation::Nonlinearity;
pub use attention::Attention;
pub use cache::{Cache, LayerCache};
pub use embedding::{Embedding, PositionEmbedding};
pub(crate) use linear::STRIP_VALUES;
pub use linear::{Layout, Linear, Rows};
pub use norm::LayerNorm;
pub(crate) use weights::at_once;
pub use weights::{Mode, Weights};

use crate::error::Result;
use crate::kernels::{
    Block, Entry, MatrixKernel, Q4Block, Q8Block, VectorKernel, calibrate, calibrate::Q8Kernel,
};
use candle_core::{CpuStorage, Device, InplaceOp1, Layout as Strides, Shape, Storage, Tensor};
use std::ops::Range;

/// How the weights of the matrix products are held. Norms, biases and position tables are `f32` in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats, as exact as the checkpoint. The two wasm builds may round differently.
    F32,
    /// 8 bits, with a scale for 32 weights. The same bits in every build and browser.
    #[default]
    Q8,
    /// 4 bits, with a scale for 32 weights. The same bits in every build and browser.
    Q4,
}

impl Precision {
    /// Every precision of this build.
    pub const ALL: [Self; 3] = [Self::F32, Self::Q8, Self::Q4];

    /// The name that the page and the JavaScript API use.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => Entry::NAME,
            Self::Q8 => Q8Block::NAME,
            Self::Q4 => Q4Block::NAME,
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
    pub f32: &'static dyn MatrixKernel<Entry>,
    /// Matrix products over blocks of 8 bits.
    pub q8: Q8Kernel,
    /// Matrix products over blocks of 4 bits.
    pub q4: &'static dyn MatrixKernel<Q4Block>,
    /// Softmax, norms, activations, attention.
    pub vector: &'static dyn VectorKernel,
}

impl Kernels {
    /// The preferred kernels of this build for a model of that precision, as far as [`calibrate`] did not find others faster. Quantised
    /// ones promise the same bits everywhere, so nothing in their pass may fuse multiply and add, unless products are exact.
    pub fn preferred(precision: Precision) -> Self {
        let vector = match precision {
            Precision::F32 => crate::kernels::vector_kernels()[0],
            Precision::Q8 | Precision::Q4 => crate::kernels::exact_vector_kernel(),
        };
        Self { f32: Entry::kernels()[0], q8: calibrate::q8(), q4: calibrate::q4(), vector }
    }

    /// The name of the kernel that multiplies the matrices of that precision.
    pub fn name(&self, precision: Precision) -> &'static str {
        match precision {
            Precision::F32 => self.f32.name(),
            Precision::Q8 => self.q8.name(),
            Precision::Q4 => self.q4.name(),
        }
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [f32, q8, q4] = Precision::ALL.map(|precision| self.name(precision));
        write!(f, "Kernels({f32}, {q8}, {q4}, {})", self.vector.name())
    }
}

/// Runs `read` on the values of a contiguous f32 tensor, without a copy.
pub(crate) fn with_values<T>(x: &Tensor, read: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        panic!("activations are f32 on the CPU, found {:?}", x.dtype());
    };
    read(&values[contiguous(layout)])
}

/// Runs `write` on the values of a contiguous f32 tensor, which everything that shares its storage sees.
pub(crate) fn write_values(x: &Tensor, write: impl Fn(&mut [f32])) -> Result<()> {
    struct Write<F>(F);
    impl<F: Fn(&mut [f32])> InplaceOp1 for Write<F> {
        fn name(&self) -> &'static str {
            "write"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Strides) -> candle_core::Result<()> {
            let CpuStorage::F32(values) = storage else { panic!("activations are f32") };
            (self.0)(&mut values[contiguous(layout)]);
            Ok(())
        }
    }
    Ok(x.inplace_op1(&Write(write))?)
}

fn contiguous(layout: &Strides) -> Range<usize> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        panic!("activations are contiguous, found {layout:?}");
    };
    start..end
}

/// `x += y`, element by element.
fn add(x: &mut [f32], y: &[f32]) {
    assert!(x.len() == y.len(), "{} and {} values", x.len(), y.len());
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
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
        ours.chunks_mut(37).for_each(|row| Kernels::preferred(Precision::F32).vector.softmax(row));
        assert_close("softmax", &ours, &candle_nn::ops::softmax(&x, D::Minus1).expect("softmax"), 1e-6);
    }

    #[test]
    fn layer_norm_is_candles() {
        let x = rows();
        let weight: Vec<f32> = (0..37).map(|i| 1.0 + i as f32 / 50.0).collect();
        let bias: Vec<f32> = (0..37).map(|i| i as f32 / 70.0 - 0.2).collect();
        let mut ours = vec![0.0; 5 * 37];
        Kernels::preferred(Precision::F32).vector.layer_norm(&values(&x), &weight, &bias, 1e-5, &mut ours);
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
            Kernels::preferred(Precision::F32).vector.activation(activation, &mut ours);
            assert_close(&format!("{activation:?}"), &ours, &theirs.forward(&x).expect("a result"), 5e-6);
        }
    }
}
