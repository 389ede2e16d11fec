//! The tokens that the model has read, and the cache that remembers them.

use crate::error::Result;
use crate::layers::Cache;
use crate::models::{Model, Observer};
use candle_core::Tensor;

/// A cache and the ids that it was filled with; the two always agree.
#[derive(Debug)]
pub struct Sequence {
    ids: Vec<u32>,
    cache: Cache,
}

impl Sequence {
    /// An empty sequence.
    pub fn new(cache: Cache) -> Self {
        Self { ids: Vec::new(), cache }
    }

    /// Tokens read.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether nothing has been read.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Bytes that the cache takes now.
    pub fn bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Keeps the beginning that `prompt` shares with what was read, but for `prompt`'s last token: the model must
    /// read that one again, to say what follows.
    pub fn keep_common_prefix(&mut self, prompt: &[u32]) {
        let common = self.ids.iter().zip(prompt).take_while(|(read, asked)| read == asked).count();
        self.truncate(common.min(prompt.len().saturating_sub(1)));
    }

    /// Has the model read `ids`; the result is what its head sees, `[ids.len(), features]`. On an error the
    /// sequence is as it was.
    ///
    /// # Errors
    /// Those of [`Model::forward`].
    pub fn extend(&mut self, model: &dyn Model, ids: &[u32]) -> Result<Tensor> {
        self.extend_observed(model, ids, &mut |_, _| {})
    }

    /// [`Sequence::extend`], with every named activation shown to `observe`.
    ///
    /// # Errors
    /// Those of [`Model::forward`].
    pub fn extend_observed(
        &mut self,
        model: &dyn Model,
        ids: &[u32],
        observe: Observer<'_>,
    ) -> Result<Tensor> {
        match model.forward(ids, &mut self.cache, observe) {
            Ok(hidden) => {
                self.ids.extend_from_slice(ids);
                Ok(hidden)
            }
            Err(error) => {
                self.cache.truncate(self.ids.len());
                Err(error)
            }
        }
    }

    fn truncate(&mut self, len: usize) {
        self.ids.truncate(len);
        self.cache.truncate(len);
    }
}
