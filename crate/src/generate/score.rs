//! How surprised a model is by a text.

use super::{Parts, chunk_end, finite};
use crate::error::{Error, Result};
use crate::kernels::{VectorKernel, WHOLE_TILES};
use crate::layers::with_values;
use serde::Serialize;

/// Rows of logits that a score computes at a time: enough for the head to be bounded by arithmetic, few enough that a
/// vocabulary of 250,000 takes 24 MB.
pub(crate) const LOGIT_ROWS: usize = 24;
const _: () = assert!(LOGIT_ROWS.is_multiple_of(WHOLE_TILES));

/// One token of a scored text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoredToken {
    /// The token's id.
    pub id: u32,
    /// Its part of the text.
    pub text: String,
    /// Natural logarithm of its probability given the tokens before it; `None` for the first.
    pub logprob: Option<f32>,
}

/// The score of a whole text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Score {
    /// Every token, one that the family puts in front included.
    pub tokens: Vec<ScoredToken>,
    /// `exp` of the mean negative log-probability of the scored tokens.
    pub perplexity: f64,
    /// Bits of the scored tokens over the bytes of their text.
    pub bits_per_byte: f64,
}

/// A score in progress.
#[derive(Debug)]
pub struct Scoring {
    ids: Vec<u32>,
    logprobs: Vec<Option<f32>>,
}

impl Scoring {
    /// A score of `ids`.
    pub(crate) fn new(ids: Vec<u32>, parts: &mut Parts<'_>) -> Result<Self> {
        if ids.len() < 2 {
            let problem = "a text to score needs at least two tokens: the first has nothing before it";
            return Err(Error::Request(problem.to_owned()));
        }
        parts.check_ids(&ids)?;
        if ids.len() > parts.context {
            return Err(Error::Context { tokens: ids.len(), context: parts.context });
        }
        parts.sequence.clear();
        Ok(Self { ids, logprobs: vec![None] })
    }

    /// Reads one chunk of the text. The result is the tokens read so far, of how many.
    pub(crate) fn step(
        &mut self,
        parts: &mut Parts<'_>,
        vector: &dyn VectorKernel,
    ) -> Result<(usize, usize)> {
        let start = parts.sequence.len();
        let end = chunk_end(start, self.ids.len());
        if start < end {
            let hidden = parts.sequence.extend(parts.model, &self.ids[start..end])?;
            let following = &self.ids[start + 1..self.ids.len().min(end + 1)];
            for (block, following) in following.chunks(LOGIT_ROWS).enumerate() {
                let rows = hidden.narrow(0, block * LOGIT_ROWS, following.len())?;
                let logits = parts.model.logits(&rows)?; // [following.len(), vocabulary]
                let vocabulary = logits.dims2()?.1;
                with_values(&logits, |logits| {
                    for (row, &id) in logits.chunks_exact(vocabulary).zip(following) {
                        let log_total = finite(vector.log_sum_exp(row))?;
                        self.logprobs.push(Some(row[id as usize] - log_total));
                    }
                    Ok(())
                })?;
            }
        }
        Ok((end, self.ids.len()))
    }

    /// The score, once every token has been read.
    pub(crate) fn finish(&self, parts: &Parts<'_>) -> Result<Score> {
        let pieces = parts.tokenizer.pieces(&self.ids)?;
        let tokens: Vec<_> = pieces
            .into_iter()
            .zip(&self.logprobs)
            .map(|(piece, &logprob)| ScoredToken { id: piece.id, text: piece.text, logprob })
            .collect();
        let scored = || tokens.iter().filter_map(|token| Some((token.text.len(), f64::from(token.logprob?))));
        let nats: f64 = -scored().map(|(_, logprob)| logprob).sum::<f64>();
        let (count, bytes) = (scored().count(), scored().map(|(bytes, _)| bytes).sum::<usize>());
        let perplexity = (nats / count as f64).exp();
        Ok(Score { perplexity, bits_per_byte: nats / std::f64::consts::LN_2 / bytes.max(1) as f64, tokens })
    }
}
