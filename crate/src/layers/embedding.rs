//! Tables of vectors, one for each token or position.

use super::matrix::Matrix;
use super::{Layout, Linear, Rows, Weights, add, tensor, write_values};
use crate::error::{Error, Result};
use candle_core::Tensor;
use std::rc::Rc;

/// One vector for each token of the vocabulary, held packed, so that a tied head can share it.
#[derive(Debug)]
pub struct Embedding {
    packed: Rc<Matrix>,
    vocabulary: usize,
    size: usize,
}

impl Embedding {
    /// Reads `weight`, `[vocabulary, size]`. The second result is the head tied to the table: a linear layer of
    /// the same weights, in the same memory.
    ///
    /// # Errors
    /// Those of [`Linear::load`].
    pub async fn load(weights: &Weights<'_>, vocabulary: usize, size: usize) -> Result<(Self, Linear)> {
        let rows = Rows::all(weights.clone(), vocabulary).without_bias();
        let head = Linear::load(&[rows], size, Layout::OutIn).await?;
        Ok((Self { packed: Rc::clone(head.packed()), vocabulary, size }, head))
    }

    /// The vectors of `ids`, `[seq, size]`.
    ///
    /// # Errors
    /// [`Error::Request`] for an id beyond the vocabulary.
    pub fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        let mut rows = vec![0.0; ids.len() * self.size];
        for (&id, row) in ids.iter().zip(rows.chunks_exact_mut(self.size)) {
            if id as usize >= self.vocabulary {
                let vocabulary = self.vocabulary;
                return Err(Error::Request(format!("token {id} is beyond the vocabulary of {vocabulary}")));
            }
            self.packed.row(id as usize, row);
        }
        tensor(rows, (ids.len(), self.size))
    }
}

/// One learned vector for each position.
#[derive(Debug)]
pub struct PositionEmbedding {
    table: Vec<f32>,
    size: usize,
    offset: usize,
}

impl PositionEmbedding {
    /// Reads `weight`, `[offset + positions, size]`; position 0 is row `offset`.
    ///
    /// # Errors
    /// Those of [`Weights::values`].
    pub async fn load(weights: &Weights<'_>, positions: usize, size: usize, offset: usize) -> Result<Self> {
        let table = weights.values("weight", &[offset + positions, size]).await?;
        Ok(Self { table, size, offset })
    }

    /// Adds the vectors of the positions from `start` on to `x`, `[seq, size]`, in place.
    ///
    /// # Panics
    /// Beyond the positions that the table holds.
    ///
    /// # Errors
    /// [`Error::Candle`] where `x` cannot be written to.
    pub fn add_to(&self, x: &Tensor, start: usize) -> Result<()> {
        let start = (self.offset + start) * self.size;
        write_values(x, |x| add(x, &self.table[start..start + x.len()]))
    }
}
