//! Writing and scoring text: the loop over a model, one step at a time, so that whoever drives it can stop between
//! two steps.
//!
//! Not responsible for tensors or layers (a [`Model`] does that), nor for JavaScript.

mod candidates;
pub mod measure;
mod sampling;
mod score;
mod sequence;
mod stop;

pub use sampling::{Sampler, Sampling};
pub(crate) use score::LOGIT_ROWS;
pub use score::{Score, ScoredToken, Scoring};
pub use sequence::Sequence;

use crate::error::{Error, Result};
use crate::kernels::WHOLE_TILES;
use crate::models::Model;
use crate::text::{SpecialTokens, StreamDecoder, Tokenizer};
use candle_core::Tensor;
use serde::Serialize;
use stop::StopStrings;

/// Tokens of a prompt that are read in one pass, at most: enough for the matrix products to be bounded by arithmetic, and not by the
/// pass over all weights; few enough that a stop is heard soon.
pub const PREFILL_CHUNK: usize = 144;

/// Where the chunk that begins at `start`, at most `tokens`, ends. All but the last are whole tiles, and they are as equally long
/// as that allows: each reads and unpacks all weights, which is too much for a few last tokens.
fn chunk_end(start: usize, tokens: usize) -> usize {
    const { assert!(PREFILL_CHUNK.is_multiple_of(WHOLE_TILES)) };
    let rest = tokens - start;
    let length = rest.div_ceil(rest.div_ceil(PREFILL_CHUNK).max(1));
    tokens.min(start + length.next_multiple_of(WHOLE_TILES))
}

/// How to continue a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Tokens to write at most; at least 1.
    pub max_new_tokens: usize,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Strings that end the text; they are not part of it.
    pub stop: Vec<String>,
    /// What the name of a special token inside the prompt means.
    pub special_tokens: SpecialTokens,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            sampling: Sampling::default(),
            stop: Vec::new(),
            special_tokens: SpecialTokens::AsText,
        }
    }
}

impl GenerateOptions {
    fn check(&self) -> Result<()> {
        if self.max_new_tokens == 0 {
            return Err(Error::Request("max new tokens: expected at least 1, found 0".to_owned()));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::Request("a stop string is empty: leave it out".to_owned()));
        }
        self.sampling.check()
    }
}

/// One token of a continuation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Token {
    /// The token's id.
    pub id: u32,
    /// The text that it lets be shown. Empty while that may become a stop string or ends inside a character; what
    /// was held back comes with a later token.
    pub text: String,
    /// Natural logarithm of its probability under the model, before any sampling rule.
    pub logprob: f32,
}

/// Why a continuation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The model ended the text, or a stop string appeared.
    Stop,
    /// `max_new_tokens` were written.
    Length,
    /// The model's context is full.
    Context,
}

impl Reason {
    /// The name in the JavaScript API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Context => "context",
        }
    }
}

/// What one step of a [`Run`] did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// A part of the prompt was read.
    Prefill {
        /// Tokens of the prompt read so far, those reused from the last run included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was written.
    Token(Token),
    /// Nothing is left to do. Every further step says the same, without text.
    End {
        /// Why.
        reason: Reason,
        /// Text that was held back and turned out to be no stop string.
        text: String,
    },
}

/// A continuation in progress.
#[derive(Debug)]
pub struct Run {
    prompt: Vec<u32>,
    reused: usize,
    max_new_tokens: usize,
    sampler: Sampler,
    stop: StopStrings,
    decoder: StreamDecoder,
    /// The logits after the last token read, `[1, vocabulary]`.
    logits: Option<Tensor>,
    /// The last token written, until the model reads it.
    unread: Option<u32>,
    written: usize,
    end: Option<Reason>,
}

/// `log_total`, the logarithm of a sum over all logits, if that is a number.
fn finite(log_total: f32) -> Result<f32> {
    if log_total.is_finite() {
        return Ok(log_total);
    }
    Err(Error::file("model", "its scores are not numbers: the weights are damaged"))
}

/// What a run works on; the session owns it.
pub(crate) struct Parts<'a> {
    pub(crate) model: &'a dyn Model,
    pub(crate) sequence: &'a mut Sequence,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) context: usize,
    pub(crate) vocabulary: usize,
    pub(crate) end_of_text: &'a [u32],
}

impl Parts<'_> {
    /// Refuses ids that the model has no row for: a tokenizer's template may hold any.
    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let Some(id) = ids.iter().find(|id| **id as usize >= self.vocabulary) else { return Ok(()) };
        let vocabulary = self.vocabulary;
        Err(Error::Tokenizer(format!("it gives the id {id}, beyond the model's vocabulary of {vocabulary}")))
    }
}

impl Run {
    /// A continuation of `prompt`, of which `parts.sequence` may hold a beginning already.
    pub(crate) fn new(
        prompt: Vec<u32>,
        options: &GenerateOptions,
        sampler: Sampler,
        parts: &mut Parts<'_>,
    ) -> Result<Self> {
        options.check()?;
        if prompt.is_empty() {
            return Err(Error::Request("the prompt is empty: write a few words to continue".to_owned()));
        }
        parts.check_ids(&prompt)?;
        if prompt.len() >= parts.context {
            return Err(Error::Context { tokens: prompt.len(), context: parts.context });
        }
        parts.sequence.keep_common_prefix(&prompt);
        Ok(Self {
            reused: parts.sequence.len(),
            sampler: sampler.with_context(&prompt),
            prompt,
            max_new_tokens: options.max_new_tokens,
            stop: StopStrings::new(options.stop.clone()),
            decoder: StreamDecoder::default(),
            logits: None,
            unread: None,
            written: 0,
            end: None,
        })
    }

    /// Tokens of the prompt, those that the family adds included.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt.len()
    }

    /// Tokens of the prompt that the last run had read already.
    pub fn reused_tokens(&self) -> usize {
        self.reused
    }

    /// Reads one chunk of the prompt, or writes one token, or ends.
    pub(crate) fn step(&mut self, parts: &mut Parts<'_>) -> Result<Step> {
        if let Some(reason) = self.end {
            return Ok(Step::End { reason, text: self.take_held_text(parts.tokenizer)? });
        }
        if parts.sequence.len() < self.prompt.len() {
            return self.read_chunk(parts);
        }
        if let Some(id) = self.unread {
            let hidden = parts.sequence.extend(parts.model, &[id])?;
            self.logits = Some(parts.model.logits(&hidden)?);
            self.unread = None;
        }
        let logits = self.logits.as_ref().expect("the prompt has been read");
        let choice = self.sampler.sample(logits)?;
        if parts.end_of_text.contains(&choice.id) {
            return self.end_with(Reason::Stop, parts);
        }
        let (text, stopped) = self.stop.push(&self.decoder.push(parts.tokenizer, choice.id)?);
        self.written += 1;
        self.unread = Some(choice.id);
        self.end = if stopped {
            Some(Reason::Stop)
        } else if self.written == self.max_new_tokens {
            Some(Reason::Length)
        } else if self.prompt.len() + self.written == parts.context {
            Some(Reason::Context)
        } else {
            None
        };
        Ok(Step::Token(Token { id: choice.id, text, logprob: choice.logprob }))
    }

    /// Ends early; the result is the text that was held back.
    pub(crate) fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        self.end.get_or_insert(Reason::Length);
        self.take_held_text(tokenizer)
    }

    fn read_chunk(&mut self, parts: &mut Parts<'_>) -> Result<Step> {
        let start = parts.sequence.len();
        let end = chunk_end(start, self.prompt.len());
        let hidden = parts.sequence.extend(parts.model, &self.prompt[start..end])?;
        if end == self.prompt.len() {
            let last = hidden.narrow(0, end - start - 1, 1)?;
            self.logits = Some(parts.model.logits(&last)?);
        }
        Ok(Step::Prefill { done: end, total: self.prompt.len() })
    }

    fn end_with(&mut self, reason: Reason, parts: &Parts<'_>) -> Result<Step> {
        self.end = Some(reason);
        Ok(Step::End { reason, text: self.take_held_text(parts.tokenizer)? })
    }

    fn take_held_text(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        let (mut text, stopped) = self.stop.push(&std::mem::take(&mut self.decoder).finish(tokenizer)?);
        if !stopped {
            text.push_str(&self.stop.take_held());
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn chunks_are_whole_tiles_of_nearly_one_length() {
        for (tokens, lengths) in
            [(1, &[1][..]), (144, &[144]), (145, &[96, 49]), (256, &[144, 112]), (290, &[120, 96, 74])]
        {
            let mut ends = vec![0];
            while ends[ends.len() - 1] < tokens {
                ends.push(chunk_end(ends[ends.len() - 1], tokens));
            }
            let found: Vec<usize> = ends.windows(2).map(|of| of[1] - of[0]).collect();
            assert_eq!(found, lengths, "{tokens} tokens");
        }
        assert_eq!(chunk_end(7, 7), 7);
    }
}
