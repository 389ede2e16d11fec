//! Weights of 8 bits in a checkpoint: a tensor of integers, and beside it one of floats that says what they are worth.
//!
//! ```text
//! value[i][j] = weight[i][j] * weight_scale[i][j / 32]     weight [n, m], weight_scale [n, ceil(m / 32)]
//!           or  weight[i][j] * weight_scale[i / 32][j]                    weight_scale [ceil(n / 32), m]
//! ```
//!
//! So 32 neighbours along one axis share a scale, the last ones of an odd extent fewer, and the shapes tell which axis. The names are those
//! of compressed-tensors, whose symmetric integers in groups of 32 are the first line:
//! <https://github.com/vllm-project/compressed-tensors>.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{DType, TensorInfo};
use crate::{Error, Result};

/// Neighbours that share a scale.
const BLOCK: usize = 32;

/// What the integers of a tensor are worth: another tensor of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scales {
    pub(super) tensor: Box<TensorInfo>,
    /// Extent of the axis along which neighbours share a scale.
    extent: u64,
    /// Elements from one of these neighbours to the next: the product of the extents further in.
    stride: u64,
}

/// Finds the scales of every tensor of `I8`: they are part of it from here on, and no tensors of their own. One without scales stays
/// what it was, a tensor that cannot be read as floats.
pub(super) fn pair(tensors: &mut BTreeMap<String, TensorInfo>) -> Result<()> {
    let integers = tensors.values().filter(|tensor| tensor.dtype == DType::Other("I8".into()));
    let names: Vec<String> = integers.map(|tensor| tensor.name.clone()).collect();
    for name in names {
        let Some(scales) = tensors.remove(&format!("{name}_scale")) else { continue };
        // They would change what the integers are worth.
        for unknown in ["_zero_point", "_g_idx"].map(|suffix| format!("{name}{suffix}")) {
            if tensors.contains_key(&unknown) {
                let expected = "8 bits with scales alone".to_owned();
                return Err(Error::Tensor { name, expected, found: format!("`{unknown}`") });
            }
        }
        if let Some(tensor) = tensors.get_mut(&name) {
            tensor.dtype = DType::I8(Scales::new(&tensor.shape, scales)?);
        }
    }
    Ok(())
}

impl Scales {
    fn new(shape: &[usize], scales: TensorInfo) -> Result<Self> {
        let refuse = |expected, found| Err(Error::Tensor { name: scales.name.clone(), expected, found });
        if !matches!(scales.dtype, DType::F32 | DType::F16 | DType::BF16) {
            return refuse("F32, F16 or BF16".to_owned(), scales.dtype.to_string());
        }
        let along = |axis: usize| {
            let mut shape = shape.to_vec();
            shape[axis] = shape[axis].div_ceil(BLOCK);
            shape
        };
        let fitting: Vec<_> = (0..shape.len()).map(along).collect();
        // Where several fit, each of these axes holds one element, and all of them say the same.
        let Some(axis) = fitting.iter().position(|shape| *shape == scales.shape) else {
            let shapes: Vec<_> = fitting.iter().map(|shape| format!("{shape:?}")).collect();
            let expected = format!("a scale for {BLOCK} neighbours of {shape:?}: {}", shapes.join(" or "));
            return refuse(expected, format!("{:?}", scales.shape));
        };
        // Only of a tensor without elements can this be too much to count.
        let stride =
            shape[axis + 1..].iter().fold(1u64, |product, &extent| product.saturating_mul(extent as u64));
        Ok(Self { tensor: Box::new(scales), extent: shape[axis] as u64, stride })
    }

    /// The elements of the tensor that share scales with `element`, and the first of these scales; there are `stride` of them.
    fn band(&self, element: u64) -> (Range<u64>, u64) {
        let (block, line) = (BLOCK as u64, element / self.stride);
        let (row, column) = (line / self.extent, line % self.extent / block);
        let start = row * self.extent + column * block;
        let end = row * self.extent + self.extent.min((column + 1) * block);
        let band = row * self.extent.div_ceil(block) + column;
        (start * self.stride..end * self.stride, band * self.stride)
    }

    /// Which scales `elements`, of which there is one at least, need.
    pub(super) fn of(&self, elements: Range<u64>) -> Range<u64> {
        self.band(elements.start).1..self.band(elements.end - 1).1 + self.stride
    }

    /// Multiplies `values`, the integers from element `start` on, by their `scales`, which are those that [`Scales::of`] names.
    pub(super) fn apply(&self, scales: &[f32], start: u64, mut values: &mut [f32]) {
        let (mut element, first) = (start, self.band(start).1);
        let stride = self.stride as usize;
        while !values.is_empty() {
            let (band, scale) = self.band(element);
            let here = values.len().min((band.end - element) as usize);
            let (these, rest) = values.split_at_mut(here);
            let scales = &scales[(scale - first) as usize..][..stride];
            if let [scale] = scales {
                these.iter_mut().for_each(|value| *value *= scale);
            } else {
                // The first line may begin in its middle.
                let column = (element % self.stride) as usize;
                let (line, lines) = these.split_at_mut(here.min(stride - column));
                multiply(line, &scales[column..]);
                lines.chunks_mut(stride).for_each(|line| multiply(line, scales));
            }
            (element, values) = (element + here as u64, rest);
        }
    }
}

/// `values[i] *= scales[i]`
fn multiply(values: &mut [f32], scales: &[f32]) {
    for (value, scale) in values.iter_mut().zip(scales) {
        *value *= scale;
    }
}
