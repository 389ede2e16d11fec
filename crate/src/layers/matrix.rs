//! A packed matrix of any precision.

use super::{Kernels, Precision};
use crate::error::Result;
use crate::kernels::{Block, CacheFormat, Entry, Packed, Q4Block, Q8Block};
use std::ops::Range;

/// The packed weights of a linear layer or an embedding.
#[derive(Debug)]
pub(super) enum Matrix {
    F32(Packed<Entry>),
    Q8(Packed<Q8Block>),
    Q4(Packed<Q4Block>),
}

/// Runs `$do` on the matrix that there is, whatever its blocks.
macro_rules! with {
    ($matrix:expr, $packed:ident => $do:expr) => {
        match $matrix {
            Matrix::F32($packed) => $do,
            Matrix::Q8($packed) => $do,
            Matrix::Q4($packed) => $do,
        }
    };
}

impl Matrix {
    /// A matrix of zeros.
    pub(super) fn new(precision: Precision, rows: usize, columns: usize) -> Result<Self> {
        Ok(match precision {
            Precision::F32 => Self::F32(Packed::new(rows, columns)?),
            Precision::Q8 => Self::Q8(Packed::new(rows, columns)?),
            Precision::Q4 => Self::Q4(Packed::new(rows, columns)?),
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
        with!(self, packed => packed.set_rows(row, rows));
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
        with!(self, packed => packed.set_columns(column, row, strip, width, outputs));
    }

    /// See [`Packed::row`].
    pub(super) fn row(&self, row: usize, out: &mut [f32]) {
        with!(self, packed => packed.row(row, out));
    }

    /// `y = bias + x Wᵀ`, or `y += x Wᵀ`: `x` is `[seq, columns]`, `bias` is `[rows]`, `y` is `[seq, rows]`.
    pub(super) fn multiply(
        &self,
        kernels: Kernels,
        seq: usize,
        x: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
    ) {
        match self {
            Self::F32(packed) => packed.matmul(kernels.f32, seq, x, bias, y),
            Self::Q8(packed) => packed.matmul(kernels.q8, seq, x, bias, y),
            Self::Q4(packed) => packed.matmul(kernels.q4, seq, x, bias, y),
        }
    }
}

impl Precision {
    /// How keys and values are held beside such weights: exact ones in full, and others as coarsely as costs nothing beside them.
    pub(super) fn cache_format(self) -> CacheFormat {
        match self {
            Self::F32 => CacheFormat::F32,
            Self::Q8 | Self::Q4 => CacheFormat::Q8,
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
