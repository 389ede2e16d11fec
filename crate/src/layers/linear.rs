//! The linear layer: owns the packed weights, their precision and the kernel that multiplies them.

#![allow(clippy::single_range_in_vec_init, reason = "ranges of rows come in lists, and most lists hold one")]

use super::matrix::Matrix;
use super::{Mode, Weights, add, tensor, with_values, write_values};
use crate::error::Result;
use crate::kernels::PANEL;
use candle_core::Tensor;
use std::ops::Range;
use std::rc::Rc;

/// Values of a checkpoint that are in memory at once while a matrix is packed.
pub(crate) const STRIP_VALUES: usize = 1 << 20;

/// How a checkpoint stores the matrix of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[out, in]`, as `torch.nn.Linear` does.
    OutIn,
    /// `[in, out]`, as the `Conv1D` of GPT-2 does.
    InOut,
}

/// The output rows of a checkpoint's linear layer that a [`Linear`] takes.
#[derive(Clone)]
pub struct Rows<'a> {
    weights: Weights<'a>,
    weight: &'static str,
    bias: Option<&'static str>,
    out_features: usize,
    ranges: Vec<Range<usize>>,
}

impl<'a> Rows<'a> {
    /// All rows of the layer at `weights`, with its `weight` and its `bias`.
    pub fn all(weights: Weights<'a>, out_features: usize) -> Self {
        let ranges = vec![0..out_features];
        Self { weights, weight: "weight", bias: Some("bias"), out_features, ranges }
    }

    /// The same rows of a layer that has no bias.
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }

    /// Only the rows in `ranges`, one range below the other: the queries, keys and values of some heads, say.
    pub fn ranges(self, ranges: Vec<Range<usize>>) -> Self {
        let rows = self.out_features;
        assert!(ranges.iter().all(|range| range.end <= rows), "rows {ranges:?} of {rows}");
        Self { ranges, ..self }
    }

    fn count(&self) -> usize {
        self.ranges.iter().map(|range| range.len()).sum()
    }
}

/// `y = x wᵀ + b`, with `w` packed for the kernels.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Rc<Matrix>,
    bias: Option<Vec<f32>>,
    in_features: usize,
    out_features: usize,
}

impl Linear {
    /// Reads and packs `parts`, stacked one below the other, strip by strip: besides the packed matrix no more than
    /// one strip is ever in memory. Either all parts have a bias or none has.
    ///
    /// # Errors
    /// [`crate::Error::MissingTensor`], [`crate::Error::Tensor`], [`crate::Error::Read`],
    /// [`crate::Error::Memory`].
    pub async fn load(parts: &[Rows<'_>], in_features: usize, layout: Layout) -> Result<Self> {
        let weights = &parts[0].weights;
        let out_features = parts.iter().map(Rows::count).sum();
        let planning = weights.mode() == Mode::Plan;
        let precision = weights.precision();
        let mut packed =
            Matrix::new(weights.kernels(), precision, if planning { 0 } else { out_features }, in_features)?;
        weights.count_resident(Matrix::bytes(precision, out_features, in_features));
        let mut bias = Vec::new();
        let mut first_row = 0;
        for part in parts {
            match layout {
                Layout::OutIn => part.pack_out_in(&mut packed, first_row, in_features).await?,
                Layout::InOut => part.pack_in_out(&mut packed, first_row, in_features).await?,
            }
            if let Some(name) = part.bias {
                let values = part.weights.vector(name, part.out_features).await?;
                if !planning {
                    part.ranges.iter().for_each(|range| bias.extend_from_slice(&values[range.clone()]));
                }
            }
            first_row += part.count();
        }
        assert!(
            bias.is_empty() || bias.len() == out_features,
            "all parts of a linear layer have a bias, or none: {} of {out_features}",
            bias.len()
        );
        let bias = (!bias.is_empty()).then_some(bias);
        Ok(Self { weight: Rc::new(packed), bias, in_features, out_features })
    }

    /// The packed matrix, to share: a head tied to an embedding holds its weights once.
    pub(super) fn packed(&self) -> &Rc<Matrix> {
        &self.weight
    }

    /// `x` is `[seq, in_features]`; the result `[seq, out_features]`.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where the result cannot be made a tensor.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        tensor(self.outputs(x)?, (x.dim(0)?, self.out_features))
    }

    /// Adds the result to `residual`, `[seq, out_features]`, in place. It is rounded as a sum of the two: adding product by product to
    /// a large residual would lose more.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where `residual` cannot be written to.
    pub fn add_to(&self, residual: &Tensor, x: &Tensor) -> Result<()> {
        let y = self.outputs(x)?;
        write_values(residual, |residual| add(residual, &y))
    }

    fn outputs(&self, x: &Tensor) -> Result<Vec<f32>> {
        let (seq, in_features) = x.dims2()?;
        assert_eq!(in_features, self.in_features, "input of a linear layer");
        with_values(x, |x| {
            // One row is written once where it begins as the bias, and not as zeros that the bias then replaces.
            let (mut y, bias) = match &self.bias {
                Some(bias) if seq == 1 => (bias.clone(), None),
                bias => (vec![0.0; seq * self.out_features], bias.as_deref()),
            };
            self.weight.multiply(seq, x, bias, &mut y);
            Ok(y)
        })
    }
}

impl Rows<'_> {
    async fn pack_out_in(&self, packed: &mut Matrix, first_row: usize, in_features: usize) -> Result<()> {
        let shape = [self.out_features, in_features];
        let n_read = self.count() as u64 * in_features as u64;
        let Some(tensor) = self.weights.tensor(self.weight, &shape, n_read)? else { return Ok(()) };
        // Whole panels are packed fastest; of very wide rows a strip holds a few, or one.
        let fitting = (STRIP_VALUES / in_features).max(1);
        let rows_per_strip = if fitting < PANEL { fitting } else { fitting - fitting % PANEL };
        let mut strip = vec![0.0; rows_per_strip.min(self.count()) * in_features];
        let mut row = first_row;
        for range in &self.ranges {
            for start in range.clone().step_by(rows_per_strip) {
                let rows = rows_per_strip.min(range.end - start);
                let strip = &mut strip[..rows * in_features];
                self.weights.read(tensor, (start * in_features) as u64, strip).await?;
                packed.set_rows(row, strip);
                row += rows;
            }
        }
        Ok(())
    }

    async fn pack_in_out(&self, packed: &mut Matrix, first_row: usize, in_features: usize) -> Result<()> {
        let width = self.out_features;
        let shape = [in_features, width];
        let n_read = in_features as u64 * width as u64;
        let Some(tensor) = self.weights.tensor(self.weight, &shape, n_read)? else {
            return Ok(());
        };
        let columns_per_strip =
            (STRIP_VALUES / width).max(1).next_multiple_of(self.weights.precision().depth());
        let mut strip = vec![0.0; columns_per_strip.min(in_features) * width];
        for start in (0..in_features).step_by(columns_per_strip) {
            let columns = columns_per_strip.min(in_features - start);
            let strip = &mut strip[..columns * width];
            self.weights.read(tensor, (start * width) as u64, strip).await?;
            let mut row = first_row;
            for range in &self.ranges {
                packed.set_columns(start, row, strip, width, range.clone());
                row += range.len();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{BytesSource, Checkpoint};
    use crate::layers::{Precision, at_once, tensor, with_values};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const IN: usize = 21;
    const OUT: usize = 38;

    fn value(index: usize) -> f32 {
        ((index * 37 + 11) % 101) as f32 / 50.0 - 1.0
    }

    /// A safetensors file with one layer stored both ways, `torch` and `conv1d`, and a bias for each.
    fn checkpoint() -> Checkpoint {
        let out_in: Vec<f32> = (0..OUT * IN).map(value).collect();
        let in_out: Vec<f32> = (0..IN * OUT).map(|i| out_in[i % OUT * IN + i / OUT]).collect();
        let bias: Vec<f32> = (0..OUT).map(|i| value(i + 5)).collect();
        let (mut header, mut data) = (String::new(), Vec::new());
        for (name, shape, values) in [
            ("torch.weight", format!("[{OUT},{IN}]"), &out_in),
            ("conv1d.weight", format!("[{IN},{OUT}]"), &in_out),
            ("torch.bias", format!("[{OUT}]"), &bias),
            ("conv1d.bias", format!("[{OUT}]"), &bias),
        ] {
            let start = data.len();
            data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            let comma = if header.is_empty() { "" } else { "," };
            let offsets = format!("[{start},{}]", data.len());
            header +=
                &format!(r#"{comma}"{name}":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#);
        }
        let header = format!("{{{header}}}");
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        Checkpoint::open(vec![Box::new(BytesSource::new("layer.safetensors", file))]).expect("a checkpoint")
    }

    /// The rows in `ranges` of a layer.
    fn layer(name: &str, layout: Layout, ranges: Vec<Range<usize>>) -> Linear {
        let checkpoint = checkpoint();
        let mut progress = |_, _| {};
        let root = Weights::load(&checkpoint, Precision::F32, 0, &mut progress);
        let rows = Rows::all(root.pp(name), OUT).ranges(ranges);
        at_once(Linear::load(&[rows], IN, layout)).expect("a layer")
    }

    /// `seq` rows of input.
    fn input(seq: usize) -> Tensor {
        tensor((0..seq * IN).map(|i| value(i * 3)).collect(), (seq, IN)).expect("an input")
    }

    fn values(x: &Tensor) -> Vec<f32> {
        with_values(x, |x| Ok(x.to_vec())).expect("values")
    }

    /// The output of the rows in `ranges` for `seq` rows of input.
    fn forward(name: &str, layout: Layout, ranges: Vec<Range<usize>>, seq: usize) -> Vec<f32> {
        values(&layer(name, layout, ranges).forward(&input(seq)).expect("an output"))
    }

    #[test]
    fn both_layouts_are_one_layer() {
        for seq in [1, 2, 7] {
            let torch = forward("torch", Layout::OutIn, vec![0..OUT], seq);
            assert_eq!(torch, forward("conv1d", Layout::InOut, vec![0..OUT], seq), "{seq} rows");
        }
    }

    #[test]
    fn a_layer_is_x_times_w_transposed_plus_b() {
        let y = forward("torch", Layout::OutIn, vec![0..OUT], 3);
        for (i, y) in y.iter().enumerate() {
            let (row, out) = (i / OUT, i % OUT);
            let products =
                (0..IN).map(|k| f64::from(value((row * IN + k) * 3)) * f64::from(value(out * IN + k)));
            let expected = products.sum::<f64>() + f64::from(value(out + 5));
            // 21 products of magnitude 1, each rounded once or twice.
            assert!((f64::from(*y) - expected).abs() < 1e-5, "[{row}, {out}]: {y} for {expected}");
        }
    }

    #[test]
    fn a_row_is_the_same_alone_and_among_others() {
        let rows = forward("torch", Layout::OutIn, vec![0..OUT], 3);
        assert_eq!(forward("torch", Layout::OutIn, vec![0..OUT], 1), rows[..OUT]);
    }

    #[test]
    fn a_residual_grows_by_the_output() {
        let layer = layer("torch", Layout::OutIn, vec![0..OUT]);
        for seq in [1, 3] {
            let before: Vec<f32> = (0..seq * OUT).map(|i| value(i + 9) * 1e3).collect();
            let residual = tensor(before.clone(), (seq, OUT)).expect("a residual");
            layer.add_to(&residual, &input(seq)).expect("a sum");
            let output = values(&layer.forward(&input(seq)).expect("an output"));
            let sums: Vec<f32> = before.iter().zip(output).map(|(residual, y)| residual + y).collect();
            assert_eq!(values(&residual), sums, "{seq} rows");
        }
    }

    /// What lets several instances hold a layer together.
    #[test]
    fn two_halves_equal_the_whole_to_the_bit() {
        for (name, layout) in [("torch", Layout::OutIn), ("conv1d", Layout::InOut)] {
            for (seq, cut) in [(1, 19), (5, 19), (1, 16), (5, 3)] {
                let whole = forward(name, layout, vec![0..OUT], seq);
                let low = forward(name, layout, vec![0..cut], seq);
                let high = forward(name, layout, vec![cut..OUT], seq);
                let rows = low.chunks(cut).zip(high.chunks(OUT - cut));
                let joined: Vec<f32> = rows.flat_map(|(low, high)| [low, high].concat()).collect();
                assert_eq!(whole, joined, "{name} cut at {cut}, {seq} rows");
            }
        }
    }

    #[test]
    fn several_ranges_of_one_layer_are_stacked() {
        for (name, layout) in [("torch", Layout::OutIn), ("conv1d", Layout::InOut)] {
            let whole = forward(name, layout, vec![0..OUT], 1);
            let chosen = forward(name, layout, vec![4..9, 20..37], 1);
            assert_eq!(chosen, [&whole[4..9], &whole[20..37]].concat(), "{name}");
        }
    }
}
