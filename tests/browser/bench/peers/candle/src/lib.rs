//! candle's own matrix products over the matrices of a model, with the weights that the other engines get.

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{DType, Device, Module, Result, Tensor};
use wasm_bindgen::prelude::*;

/// How far a quantised product may lie from the exact one, relative to its largest value.
const TOLERANCE: f32 = 0.2;

enum Matrix {
    Quantised(QMatMul),
    /// `[in, out]`, the transposed view that `candle_nn::Linear` multiplies with.
    Float(Tensor),
}

impl Matrix {
    fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Quantised(matrix) => matrix.forward(x),
            Self::Float(matrix) => x.matmul(matrix),
        }
    }
}

/// Every matrix of a model, in one precision.
#[wasm_bindgen]
pub struct Matrices {
    dtype: Option<GgmlDType>,
    /// With the inputs of each, and whether only the last token of a prompt is multiplied with it.
    matrices: Vec<(Matrix, usize, bool)>,
}

#[wasm_bindgen]
impl Matrices {
    /// `precision` is `F32`, `Q8_0` or `Q4_0`.
    #[wasm_bindgen(constructor)]
    pub fn new(precision: &str) -> std::result::Result<Matrices, JsError> {
        let dtype = match precision {
            "F32" => None,
            "Q8_0" => Some(GgmlDType::Q8_0),
            "Q4_0" => Some(GgmlDType::Q4_0),
            _ => return Err(JsError::new(&format!("no such precision: {precision}"))),
        };
        Ok(Self { dtype, matrices: Vec::new() })
    }

    /// Adds a matrix: `[rows, columns]` is `[out, in]` for a table, else `[in, out]`. The result is how far a product lies
    /// from the exact one, relative to its largest value.
    pub fn add(
        &mut self,
        values: Vec<f32>,
        rows: usize,
        columns: usize,
        is_table: bool,
    ) -> std::result::Result<f32, JsError> {
        Ok(self.try_add(values, rows, columns, is_table)?)
    }

    fn try_add(&mut self, values: Vec<f32>, rows: usize, columns: usize, is_table: bool) -> Result<f32> {
        let stored = Tensor::from_vec(values, (rows, columns), &Device::Cpu)?;
        let (inputs, weight) = match is_table {
            true => (columns, stored),
            false => (rows, stored.t()?.contiguous()?),
        };
        let x: Vec<f32> = (0..inputs).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
        let x = Tensor::from_vec(x, (1, inputs), &Device::Cpu)?;
        let exact = weight.broadcast_mul(&x)?.sum(1)?;
        let matrix = match self.dtype {
            Some(dtype) => Matrix::Quantised(QMatMul::from_qtensor(QTensor::quantize(&weight, dtype)?)?),
            None => Matrix::Float(weight.t()?),
        };
        let found = matrix.multiply(&x)?.squeeze(0)?;
        let worst = (found - &exact)?.abs()?.max(0)?.to_scalar::<f32>()?;
        let error = worst / exact.abs()?.max(0)?.to_scalar::<f32>()?;
        if error > TOLERANCE {
            candle_core::bail!("a product of [{rows}, {columns}] is wrong by {error}");
        }
        self.matrices.push((matrix, inputs, is_table));
        Ok(error)
    }

    /// The products of so many tokens.
    pub fn multiply(&self, tokens: usize) -> std::result::Result<f32, JsError> {
        Ok(self.try_multiply(tokens)?)
    }

    fn try_multiply(&self, tokens: usize) -> Result<f32> {
        let mut sum = 0.0;
        for (matrix, inputs, last_only) in &self.matrices {
            let x = Tensor::ones((if *last_only { 1 } else { tokens }, *inputs), DType::F32, &Device::Cpu)?;
            sum += matrix.multiply(&x)?.get(0)?.get(0)?.to_scalar::<f32>()?;
        }
        Ok(sum)
    }
}
