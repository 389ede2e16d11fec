//! A loaded model that writes: what the browser boundary, the examples and the tests call.

use crate::candidate::{Loaded, ModelBytes};
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Parts, Reason, Run, Sampler, Score, Scoring, Sequence, Step, Token};
use crate::layers::{Cache, Precision};
use crate::models::Shape;
use crate::text::{Piece, SpecialTokens, Tokenizer};
use candle_core::Tensor;
use std::fmt::Display;

/// What a session runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The `model_type` of `config.json`.
    pub architecture: &'static str,
    /// The model's dimensions and special tokens.
    pub shape: Shape,
    /// Numbers in the weights.
    pub parameters: u64,
    /// How the matrices are held.
    pub precision: Precision,
    /// Bytes of memory, with the cache as it is now.
    pub bytes: ModelBytes,
    /// The kernel that multiplies the matrices.
    pub kernel: &'static str,
    /// Tensors of the checkpoint that the model does not need.
    pub ignored: Vec<String>,
}

/// A loaded model, its tokenizer, and the text that it has read so far.
pub struct Session {
    loaded: Loaded,
    sequence: Sequence,
    /// The number of the latest run: only that one may step.
    run: u64,
}

/// A [`Run`] of one session, or the score of a text in progress.
#[derive(Debug)]
pub struct Ticket<T> {
    number: u64,
    inner: T,
}

impl<T> std::ops::Deref for Ticket<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl Session {
    pub(crate) fn new(loaded: Loaded) -> Self {
        let shape = &loaded.shape;
        let sequence =
            Sequence::new(Cache::new(loaded.plan.precision, shape.layers, shape.heads, shape.head_dim));
        Self { loaded, sequence, run: 0 }
    }

    /// What this session runs.
    pub fn info(&self) -> Info {
        Info {
            architecture: self.loaded.architecture,
            shape: self.loaded.shape.clone(),
            parameters: self.loaded.plan.parameters,
            precision: self.loaded.plan.precision,
            bytes: ModelBytes { cache: self.sequence.bytes(), ..self.loaded.plan.bytes },
            kernel: self.loaded.kernels.name(self.loaded.plan.precision),
            ignored: self.loaded.ignored.clone(),
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&mut self) -> &mut Tokenizer {
        &mut self.loaded.tokenizer
    }

    /// The tokens of `text`, with those that the family puts around a prompt.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn tokenize(&mut self, text: &str) -> Result<Vec<Piece>> {
        let ids = self.loaded.tokenizer.encode(text, SpecialTokens::AsText)?;
        self.loaded.tokenizer.pieces(&ids)
    }

    /// Continues `prompt`: an iterator over tokens.
    ///
    /// # Errors
    /// [`Error::Request`] for an empty prompt or absurd options, [`Error::Context`] for a prompt that leaves no room.
    pub fn generate(&mut self, prompt: &str, options: &GenerateOptions) -> Result<Generation<'_>> {
        let run = self.start(prompt, options)?;
        Ok(Generation { session: self, run, end: None })
    }

    /// Starts to continue `prompt`, for a caller that steps by itself ([`Session::step`]). An earlier run or score
    /// ends with it.
    ///
    /// # Errors
    /// Those of [`Session::generate`].
    pub fn start(&mut self, prompt: &str, options: &GenerateOptions) -> Result<Ticket<Run>> {
        if prompt.is_empty() {
            return Err(Error::Request("the prompt is empty: write a few words to continue".to_owned()));
        }
        let ids = self.loaded.tokenizer.encode(prompt, options.special_tokens)?;
        let sampler = Sampler::new(options.sampling.clone(), self.loaded.kernels);
        let inner = Run::new(ids, options, sampler, &mut self.parts())?;
        Ok(self.ticket(inner))
    }

    /// Takes the next step of `run`: a chunk of the prompt, a token, or the end.
    ///
    /// # Errors
    /// [`Error::Request`] where another run has started since, [`Error::Memory`] where the cache cannot grow.
    pub fn step(&mut self, run: &mut Ticket<Run>) -> Result<Step> {
        self.check(run)?;
        run.inner.step(&mut self.parts())
    }

    /// Ends `run` early; the result is the text that it held back.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn finish(&mut self, run: &mut Ticket<Run>) -> Result<String> {
        run.inner.finish(&self.loaded.tokenizer)
    }

    /// How surprised the model is by `text`.
    ///
    /// # Errors
    /// [`Error::Request`] for a text of fewer than two tokens, [`Error::Context`] for one beyond the context.
    pub fn score(&mut self, text: &str) -> Result<Score> {
        let mut scoring = self.start_score(text)?;
        loop {
            let (done, total) = self.step_score(&mut scoring)?;
            if done == total {
                return self.finish_score(&scoring);
            }
        }
    }

    /// Starts to score `text`, for a caller that steps by itself.
    ///
    /// # Errors
    /// Those of [`Session::score`].
    pub fn start_score(&mut self, text: &str) -> Result<Ticket<Scoring>> {
        let ids = self.loaded.tokenizer.encode(text, SpecialTokens::AsText)?;
        let inner = Scoring::new(ids, &mut self.parts())?;
        Ok(self.ticket(inner))
    }

    /// Reads one chunk of the text; the result is the tokens read so far, of how many.
    ///
    /// # Errors
    /// [`Error::Request`] where another run has started since.
    pub fn step_score(&mut self, scoring: &mut Ticket<Scoring>) -> Result<(usize, usize)> {
        self.check(scoring)?;
        let vector = self.loaded.kernels.vector;
        scoring.inner.step(&mut self.parts(), vector)
    }

    /// The score, once every token has been read.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn finish_score(&mut self, scoring: &Ticket<Scoring>) -> Result<Score> {
        scoring.inner.finish(&self.parts())
    }

    /// The logits of every position of `ids`, `[seq, vocabulary]`, read from the beginning in chunks of `chunk`
    /// tokens. `observe` is given every named activation of every chunk, `[seq of the chunk, features]`, to read or copy: the model writes
    /// over it.
    ///
    /// # Errors
    /// [`Error::Request`] for no ids, an id beyond the vocabulary, or an empty chunk; [`Error::Context`] for too many.
    pub fn trace(
        &mut self,
        ids: &[u32],
        chunk: usize,
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Tensor> {
        if ids.is_empty() || chunk == 0 {
            let problem =
                format!("a trace needs ids and a chunk: given {} ids in chunks of {chunk}", ids.len());
            return Err(Error::Request(problem));
        }
        if ids.len() > self.loaded.shape.context {
            return Err(Error::Context { tokens: ids.len(), context: self.loaded.shape.context });
        }
        self.run += 1;
        self.sequence.clear();
        let mut observe = |name: &dyn Display, x: &Tensor| observe(&name.to_string(), x);
        let mut logits = Vec::new();
        for chunk in ids.chunks(chunk) {
            let hidden = self.sequence.extend_observed(self.loaded.model.as_ref(), chunk, &mut observe)?;
            logits.push(self.loaded.model.logits(&hidden)?);
        }
        Ok(Tensor::cat(&logits, 0)?)
    }

    fn parts(&mut self) -> Parts<'_> {
        Parts {
            model: self.loaded.model.as_ref(),
            sequence: &mut self.sequence,
            tokenizer: &self.loaded.tokenizer,
            context: self.loaded.shape.context,
            vocabulary: self.loaded.shape.vocabulary,
            end_of_text: &self.loaded.shape.end_of_text,
        }
    }

    fn ticket<T>(&mut self, inner: T) -> Ticket<T> {
        self.run += 1;
        Ticket { number: self.run, inner }
    }

    fn check<T>(&self, ticket: &Ticket<T>) -> Result<()> {
        if ticket.number == self.run {
            return Ok(());
        }
        Err(Error::Request("this run has ended: another one has started since".to_owned()))
    }
}

/// The tokens of a continuation.
pub struct Generation<'s> {
    session: &'s mut Session,
    run: Ticket<Run>,
    end: Option<(Reason, String)>,
}

impl Generation<'_> {
    /// Why the continuation ended, and the text that was held back until then; `None` before the end.
    pub fn end(&self) -> Option<(Reason, &str)> {
        self.end.as_ref().map(|(reason, text)| (*reason, text.as_str()))
    }

    /// The whole continuation and why it ended.
    ///
    /// # Errors
    /// Those of [`Session::step`].
    pub fn text(mut self) -> Result<(String, Reason)> {
        let mut text = String::new();
        for token in &mut self {
            text.push_str(&token?.text);
        }
        let (reason, held) = self.end.expect("the iterator has ended");
        Ok((text + &held, reason))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Token>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.end.is_none() {
            match self.session.step(&mut self.run) {
                Ok(Step::Prefill { .. }) => {}
                Ok(Step::Token(token)) => return Some(Ok(token)),
                Ok(Step::End { reason, text }) => self.end = Some((reason, text)),
                Err(error) => {
                    // What failed once would fail again: the iterator ends with it.
                    self.end = Some((Reason::Stop, String::new()));
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
