//! The form in which the site ships its models: an ordinary safetensors file whose matrices have 8 bits.
//!
//! The repository holds checkpoints as Hugging Face publishes them. A matrix that the engine packs becomes a tensor of `I8` with its own name
//! and shape, and beside it `<name>_scale` holds a scale for each 32 inputs of an output: `[out, in / 32]` beside `[out, in]`, `[in / 32, out]`
//! beside the `[in, out]` of GPT-2's `Conv1D`. Everything else stays as it is. The naming is that of
//! [compressed-tensors](https://github.com/vllm-project/compressed-tensors).
//!
//! The rule of rounding is that of the engine's `q8` (`crate/src/kernels/q8.rs`), and rounding once more changes nothing: in `q8` the shipped
//! file gives the same bits as the one that it was made from. The crate's tests hold both to that.
//!
//! Not responsible for reading that form, nor for where models lie.

use anyhow::{Context, Result, bail};
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Inputs of an output that share a scale.
const BLOCK: usize = 32;

/// The largest integer in use, with either sign.
const LARGEST: f32 = 127.0;

/// A tensor of the shipped file.
struct Shipped {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Turns a `model.safetensors` into the file that the site ships. `config` is the `config.json` beside it.
///
/// # Errors
/// Where either cannot be read, the architecture is unknown, or a matrix holds something else than finite floats.
pub fn convert(config: &str, weights: &[u8]) -> Result<Vec<u8>> {
    let config: serde_json::Value = serde_json::from_str(config).context("reading config.json")?;
    let architecture = config["model_type"].as_str().context("config.json has no `model_type`")?;
    let source = SafeTensors::deserialize(weights).context("reading the header")?;
    let mut shipped = Vec::new();
    for (name, tensor) in source.iter() {
        match inputs_axis(architecture, name)? {
            Some(axis) => shipped.extend(quantise(name, &tensor, axis).context(name.to_owned())?),
            None => shipped.push(Shipped {
                name: name.to_owned(),
                dtype: tensor.dtype(),
                shape: tensor.shape().to_vec(),
                bytes: tensor.data().to_vec(),
            }),
        }
    }
    let views = shipped.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
        Ok((&tensor.name, view.with_context(|| tensor.name.clone())?))
    });
    // Without this entry transformers takes no file.
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    Ok(safetensors::serialize(views.collect::<Result<Vec<_>>>()?, Some(metadata))?)
}

/// Along which axis the inputs of a matrix lie that the engine packs; `None` for every other tensor, position tables among them.
fn inputs_axis(architecture: &str, name: &str) -> Result<Option<usize>> {
    let Some(layer) = name.strip_suffix(".weight") else { return Ok(None) };
    let layer = layer.rsplit('.').next().unwrap_or_default();
    Ok(match architecture {
        "gpt2" => match layer {
            "c_attn" | "c_proj" | "c_fc" => Some(0),
            "wte" | "lm_head" => Some(1),
            _ => None,
        },
        "opt" => match layer {
            "embed_tokens" | "project_in" | "q_proj" | "k_proj" | "v_proj" | "out_proj" | "fc1" | "fc2"
            | "project_out" | "lm_head" => Some(1),
            _ => None,
        },
        _ => bail!("no rule for the matrices of `{architecture}`"),
    })
}

/// The integers of a matrix whose inputs lie along `axis`, and their scales.
fn quantise(name: &str, tensor: &TensorView<'_>, axis: usize) -> Result<[Shipped; 2]> {
    let &[rows, columns] = tensor.shape() else { bail!("expected a matrix, found {:?}", tensor.shape()) };
    let values = floats(tensor)?;
    // Weight `input` of `output` lies at `input * step + output * leap`.
    let (inputs, outputs, step, leap) =
        if axis == 0 { (rows, columns, columns, 1) } else { (columns, rows, 1, columns) };
    let blocks = inputs.div_ceil(BLOCK);
    let mut integers = vec![0; values.len()];
    let mut scales = vec![bf16::ZERO; blocks * outputs];
    for block in 0..blocks {
        for output in 0..outputs {
            let places =
                (block * BLOCK..inputs.min((block + 1) * BLOCK)).map(|input| input * step + output * leap);
            let largest = places.clone().fold(0.0, |largest: f32, place| largest.max(values[place].abs()));
            let scale = nearest_scale(largest / LARGEST);
            let inverse = 1.0 / scale.to_f32();
            let mut all_zero = true;
            for place in places {
                let integer = (values[place] * inverse).round_ties_even().clamp(-LARGEST, LARGEST) as i8;
                integers[place] = integer as u8;
                all_zero &= integer == 0;
            }
            let place = if axis == 0 { block * outputs + output } else { output * blocks + block };
            scales[place] = if all_zero { bf16::ZERO } else { scale };
        }
    }
    let mut shape = vec![rows, columns];
    let integers = Shipped { name: name.to_owned(), dtype: Dtype::I8, shape: shape.clone(), bytes: integers };
    shape[axis] = blocks;
    let bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    Ok([integers, Shipped { name: format!("{name}_scale"), dtype: Dtype::BF16, shape, bytes }])
}

/// The elements of a tensor of floats.
fn floats(tensor: &TensorView<'_>) -> Result<Vec<f32>> {
    let (quads, pairs) = (tensor.data().as_chunks().0.iter(), tensor.data().as_chunks().0.iter());
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => quads.map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => pairs.map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        Dtype::BF16 => pairs.map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        other => bail!("expected F32, F16 or BF16, found {other:?}"),
    };
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        bail!("expected finite numbers, found {value}");
    }
    Ok(values)
}

/// The scale that the engine would take for `value`, which is not negative: the nearest bfloat16 from 2⁻⁶⁴ on. See `Scale` in
/// `crate/src/kernels/quantise.rs`.
fn nearest_scale(value: f32) -> bf16 {
    bf16::from_bits(((value.to_bits() + 0x8000) >> 16).clamp(0x1f80, 0x7f7f) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPT2: &str = r#"{"model_type":"gpt2"}"#;

    /// A file of f32 tensors.
    fn file(tensors: &[(&str, &[usize], Vec<f32>)]) -> Vec<u8> {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, _, values)| values.iter().flat_map(|x| x.to_le_bytes()).collect())
            .collect();
        let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
            (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("a tensor"))
        });
        safetensors::serialize(views, None).expect("a file")
    }

    /// `[n, m]`: distinct numbers, in both layouts the same matrix.
    fn matrix(out: usize, inputs: usize, axis: usize) -> Vec<f32> {
        let value =
            |output: usize, input: usize| ((output * inputs + input) * 37 % 1009) as f32 / 700.0 - 0.7;
        let at = |i: usize| if axis == 0 { value(i % out, i / out) } else { value(i / inputs, i % inputs) };
        (0..out * inputs).map(at).collect()
    }

    #[test]
    fn values_scales_and_shapes_are_the_known_ones() -> Result<()> {
        // 34 inputs: a whole block and one of two.
        let mut row = vec![0.0; 34];
        row[..4].copy_from_slice(&[1.0, -0.5, 0.011_811_024, 0.003_9]);
        row[32..].copy_from_slice(&[-254.0, 3.0]);
        let shipped = convert(GPT2, &file(&[("wte.weight", &[2, 34], [row, vec![0.0; 34]].concat())]))?;
        let shipped = SafeTensors::deserialize(&shipped)?;
        let (integers, scales) = (shipped.tensor("wte.weight")?, shipped.tensor("wte.weight_scale")?);
        assert_eq!((integers.dtype(), integers.shape()), (Dtype::I8, &[2, 34][..]));
        assert_eq!((scales.dtype(), scales.shape()), (Dtype::BF16, &[2, 2][..]));
        // The scale nearest to 1 / 127, which is 2^-7 * 1.00787, is 2^-7 * 129 / 128; the row's numbers are 127.008, -63.504, 1.50009 and
        // 0.4953 of it.
        assert_eq!(floats(&scales)?, [129.0 / 16_384.0, 2.0, 0.0, 0.0]);
        let mut expected = [0i8; 68];
        expected[..4].copy_from_slice(&[127, -64, 2, 0]);
        expected[32..34].copy_from_slice(&[-127, 2]); // 1.5 goes to the even side
        assert_eq!(integers.data(), expected.map(|integer| integer as u8));
        Ok(())
    }

    #[test]
    fn the_axis_of_the_inputs_is_that_of_the_layer() -> Result<()> {
        let (out, inputs) = (6, 70);
        let out_in = file(&[("lm_head.weight", &[out, inputs], matrix(out, inputs, 1))]);
        let in_out = file(&[("h.0.attn.c_attn.weight", &[inputs, out], matrix(out, inputs, 0))]);
        let (out_in, in_out) = (convert(GPT2, &out_in)?, convert(GPT2, &in_out)?);
        let (out_in, in_out) = (SafeTensors::deserialize(&out_in)?, SafeTensors::deserialize(&in_out)?);
        let transposed = |bytes: &[u8], width: usize| -> Vec<u8> {
            (0..width).flat_map(|column| bytes.iter().skip(column).step_by(width).copied()).collect()
        };
        let (linear, conv1d) = (out_in.tensor("lm_head.weight")?, in_out.tensor("h.0.attn.c_attn.weight")?);
        assert_eq!(linear.data(), transposed(conv1d.data(), out));
        let scales = (out_in.tensor("lm_head.weight_scale")?, in_out.tensor("h.0.attn.c_attn.weight_scale")?);
        assert_eq!((scales.0.shape(), scales.1.shape()), (&[out, 3][..], &[3, out][..]));
        let (by_row, by_column) = (floats(&scales.0)?, floats(&scales.1)?);
        assert!((0..3 * out).all(|i| by_row[i] == by_column[i % 3 * out + i / 3]));
        Ok(())
    }

    #[test]
    fn what_the_engine_does_not_pack_stays_as_it_is() -> Result<()> {
        let numbers = |n| matrix(1, n, 1);
        for (config, positions, table) in [
            (GPT2, "wpe.weight", "transformer.wte.weight"),
            (r#"{"model_type":"opt"}"#, "decoder.embed_positions.weight", "decoder.embed_tokens.weight"),
        ] {
            let names = [positions, "h.0.ln_1.weight", "h.0.attn.c_attn.bias", "layers.0.fc1.bias"];
            let mut tensors: Vec<(&str, &[usize], _)> =
                names[1..].iter().map(|name| (*name, &[40][..], numbers(40))).collect();
            tensors.push((names[0], &[2, 20], numbers(40)));
            tensors.push((table, &[1, 40], numbers(40)));
            let source = file(&tensors);
            let (source, shipped) = (SafeTensors::deserialize(&source)?, convert(config, &source)?);
            let shipped = SafeTensors::deserialize(&shipped)?;
            for name in names {
                let (before, after) = (source.tensor(name)?, shipped.tensor(name)?);
                assert!(before == after, "{name} of {config}");
            }
            assert_eq!(shipped.tensor(table)?.dtype(), Dtype::I8);
            assert_eq!(shipped.len(), names.len() + 2);
        }
        Ok(())
    }

    #[test]
    fn a_scale_is_the_engines() {
        for (value, scale) in [
            (1.0, 1.0),
            (1.0 + 0.5f32.powi(8), 1.0 + 0.5f32.powi(7)), // halfway goes up
            (1.003_906, 1.0),
            (0.0, 0.5f32.powi(64)),
            (1e-30, 0.5f32.powi(64)),
            (f32::MAX, bf16::MAX.to_f32()),
        ] {
            assert_eq!(nearest_scale(value).to_f32(), scale, "{value}");
        }
    }

    #[test]
    fn the_same_source_gives_the_same_file() -> Result<()> {
        let names: Vec<String> = (0..20).map(|layer| format!("h.{layer}.mlp.c_fc.weight")).collect();
        let tensors: Vec<(&str, &[usize], _)> =
            names.iter().map(|name| (name.as_str(), &[40, 3][..], matrix(3, 40, 0))).collect();
        let source = file(&tensors);
        let first = convert(GPT2, &source)?;
        assert!((0..5).all(|_| convert(GPT2, &source).is_ok_and(|again| again == first)));
        Ok(())
    }

    #[test]
    fn what_cannot_be_converted_is_named() {
        let refused = |config: &str, weights: &[u8], words: &[&str]| {
            let error = format!("{:#}", convert(config, weights).expect_err("a refusal"));
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        };
        let good = file(&[("wte.weight", &[1, 2], vec![1.0, 2.0])]);
        refused("{", &good, &["config.json"]);
        refused("{}", &good, &["model_type"]);
        refused(r#"{"model_type":"mamba"}"#, &good, &["mamba"]);
        refused(GPT2, &good[..9], &["header"]);
        refused(GPT2, &file(&[("wte.weight", &[2], vec![1.0, 2.0])]), &["wte.weight", "matrix", "[2]"]);
        refused(GPT2, &file(&[("wte.weight", &[1, 2], vec![1.0, f32::NAN])]), &["wte.weight", "NaN"]);
        let twice = convert(GPT2, &good).expect("a file");
        refused(GPT2, &twice, &["wte.weight", "I8"]);
    }
}
