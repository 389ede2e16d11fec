//! A packed matrix of any precision.

use super::{Kernels, Precision};
use crate::error::Result;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
use crate::kernels::Q8QuadBlock;
use crate::kernels::calibrate::Q8Kernel;
use crate::kernels::{Block, CacheFormat, Entry, MatrixKernel, Packed, Q4Block, Q8Block};
use std::ops::Range;

/// The packed weights of a linear layer or an embedding, each with the kernel that reads them as they are packed.
#[derive(Debug)]
pub(super) enum Matrix {
    F32(Product<Entry>),
    Q8(Product<Q8Block>),
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    Q8Quads(Product<Q8QuadBlock>),
    Q4(Product<Q4Block>),
}

/// A packed matrix with its kernel.
pub(super) struct Product<B: 'static> {
    packed: Packed<B>,
    kernel: &'static dyn MatrixKernel<B>,
}

impl<B: Block> Product<B> {
    fn new(kernel: &'static dyn MatrixKernel<B>, rows: usize, columns: usize) -> Result<Self> {
        Ok(Self { packed: Packed::new(rows, columns)?, kernel })
    }
}

impl<B: Block> std::fmt::Debug for Product<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (n, k) = (self.packed.n(), self.packed.k());
        write!(f, "{} [{n}, {k}] on {}", B::NAME, self.kernel.name())
    }
}

/// Runs `$do` on the product that there is, whatever its blocks.
macro_rules! with {
    ($matrix:expr, $product:ident => $do:expr) => {
        match $matrix {
            Matrix::F32($product) => $do,
            Matrix::Q8($product) => $do,
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Matrix::Q8Quads($product) => $do,
            Matrix::Q4($product) => $do,
        }
    };
}

impl Matrix {
    /// A matrix of zeros for the kernel of that precision.
    pub(super) fn new(kernels: Kernels, precision: Precision, rows: usize, columns: usize) -> Result<Self> {
        Ok(match precision {
            Precision::F32 => Self::F32(Product::new(kernels.f32, rows, columns)?),
            Precision::Q8 => match kernels.q8 {
                Q8Kernel::Pairs(kernel) => Self::Q8(Product::new(kernel, rows, columns)?),
                #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
                Q8Kernel::Quads(kernel) => Self::Q8Quads(Product::new(kernel, rows, columns)?),
            },
            Precision::Q4 => Self::Q4(Product::new(kernels.q4, rows, columns)?),
        })
    }

    /// Bytes that a matrix of this shape takes.
    pub(super) fn bytes(precision: Precision, rows: usize, columns: usize) -> u64 {
        match precision {
            Precision::F32 => Packed::<Entry>::bytes(rows, columns),
            Precision::Q8 => Packed::<Q8Block>::bytes(rows, columns),
            Precision::Q4 => Packed::<Q4Block>::bytes(rows, columns),
        }
    }

    /// See [`Packed::set_rows`].
    pub(super) fn set_rows(&mut self, row: usize, rows: &[f32]) {
        with!(self, product => product.packed.set_rows(row, rows));
    }

    /// See [`Packed::set_columns`].
    pub(super) fn set_columns(
        &mut self,
        column: usize,
        row: usize,
        strip: &[f32],
        width: usize,
        outputs: Range<usize>,
    ) {
        with!(self, product => product.packed.set_columns(column, row, strip, width, outputs));
    }

    /// See [`Packed::row`].
    pub(super) fn row(&self, row: usize, out: &mut [f32]) {
        with!(self, product => product.packed.row(row, out));
    }

    /// `y = bias + x Wᵀ`, or `y += x Wᵀ`: `x` is `[seq, columns]`, `bias` is `[rows]`, `y` is `[seq, rows]`.
    pub(super) fn multiply(&self, seq: usize, x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        with!(self, product => product.packed.matmul(product.kernel, seq, x, bias, y));
    }
}

impl Precision {
    /// How keys and values are held beside such weights: exact ones in full, and others as coarsely as costs nothing beside them.
    pub(super) fn cache_format(self) -> CacheFormat {
        match self {
            Self::F32 => CacheFormat::F32,
            Self::Q8 | Self::Q4 => CacheFormat::integers(),
        }
    }

    /// Columns of a matrix that share a scale, or 1.
    pub(super) fn depth(self) -> usize {
        match self {
            Self::F32 => Entry::DEPTH,
            Self::Q8 => Q8Block::DEPTH,
            Self::Q4 => Q4Block::DEPTH,
        }
    }
}
