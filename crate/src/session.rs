//! From a set of files to a model that writes: what the browser boundary, the examples and the tests call.

use crate::checkpoint::{BytesSource, Checkpoint, Source};
use crate::error::{Error, Result};
use crate::generate::{
    GenerateOptions, PREFILL_CHUNK, Parts, Reason, Run, Sampler, Score, Scoring, Sequence, Step, Token,
};
use crate::layers::{Cache, Kernels, Precision, STRIP_VALUES, Weights};
use crate::memory;
use crate::models::{self, Configured, Model, Shape};
use crate::text::{Piece, SpecialTokens, Tokenizer};
use candle_core::Tensor;

/// The files of a checkpoint as published: `config.json`, a tokenizer, weights.
#[derive(Default)]
pub struct Files {
    files: Vec<Box<dyn Source>>,
}

impl Files {
    /// A set of files. Their names may be paths; only those in the folder of the topmost `config.json` count.
    pub fn new(files: Vec<Box<dyn Source>>) -> Self {
        Self { files }
    }

    /// Files in memory, by name.
    pub fn from_bytes(files: &[(&str, &'static [u8])]) -> Self {
        let source = |(name, bytes): &(&str, &'static [u8])| {
            Box::new(BytesSource::new(*name, *bytes)) as Box<dyn Source>
        };
        Self::new(files.iter().map(source).collect())
    }

    /// The files of a folder.
    ///
    /// # Errors
    /// [`Error::Read`] where the folder or a file cannot be opened.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn from_directory(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |problem: std::io::Error| Error::Read {
            file: path.display().to_string(),
            offset: 0,
            problem: problem.to_string(),
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            if file.is_file() {
                files.push(Box::new(crate::checkpoint::FileSource::open(file)?) as Box<dyn Source>);
            }
        }
        Ok(Self::new(files))
    }

    /// The files in the folder of the topmost `config.json`: a repository's subfolders hold exports for other
    /// programs, with a tokenizer and weights of their own.
    fn beside_config(mut self) -> Result<Self> {
        let configs = self.files.iter().map(|file| folder_and_name(file.name()));
        let configs = configs.filter(|(_, name)| *name == "config.json");
        let Some((folder, _)) = configs.min_by_key(|(folder, _)| folder.matches('/').count()) else {
            let names = self.names();
            return Err(Error::MissingFile(format!("no config.json among the files ({names})")));
        };
        let folder = folder.to_owned();
        self.files.retain(|file| folder_and_name(file.name()).0 == folder);
        Ok(self)
    }

    /// The content of the file called `name`, if there is one, which must not be longer than `limit`.
    fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let called = self.files.iter().find(|file| folder_and_name(file.name()).1 == name);
        let Some(file) = called else { return Ok(None) };
        if file.len() > limit {
            let problem = format!("expected at most {limit} bytes, found {}", file.len());
            return Err(Error::file(file.name(), problem));
        }
        let mut bytes = vec![0; file.len() as usize];
        file.read_at(0, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// The files that hold weights: the safetensors files, or else the PyTorch ones.
    fn into_weights(self) -> Result<Vec<Box<dyn Source>>> {
        let names = self.names();
        for [start, end] in
            [["model", ".safetensors"], ["", ".safetensors"], ["pytorch_model", ".bin"], ["", ".bin"]]
        {
            let is_weights = |file: &dyn Source| {
                let (_, name) = folder_and_name(file.name());
                name.starts_with(start) && name.ends_with(end)
            };
            if self.files.iter().any(|file| is_weights(file.as_ref())) {
                return Ok(self.files.into_iter().filter(|file| is_weights(file.as_ref())).collect());
            }
        }
        let problem = "no weights: expected model.safetensors or pytorch_model.bin";
        Err(Error::MissingFile(format!("{problem} among the files ({names})")))
    }

    fn names(&self) -> String {
        const SHOWN: usize = 8;
        let mut names: Vec<_> = self.files.iter().take(SHOWN).map(|file| file.name()).collect();
        if self.files.len() > SHOWN {
            names.push("…");
        }
        if names.is_empty() { "none were given".to_owned() } else { names.join(", ") }
    }
}

/// `a/b/c` as `a/b/` and `c`.
fn folder_and_name(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |slash| slash + 1))
}

/// Bytes of memory that a model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelBytes {
    /// Packed weights, norms, biases and position tables.
    pub weights: u64,
    /// Keys and values: of a full context in a plan, of the pages in use in a session.
    pub cache: u64,
    /// The largest activations, and the strip of the file that is being packed.
    pub scratch: u64,
    /// The tokenizer's tables, estimated from its vocabulary.
    pub tokenizer: u64,
}

impl ModelBytes {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.cache + self.scratch + self.tokenizer
    }
}

/// What loading a candidate would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The precision that was planned for.
    pub precision: Precision,
    /// Numbers in the weights.
    pub parameters: u64,
    /// Bytes in memory, with the cache of a full context.
    pub bytes: ModelBytes,
    /// Bytes of the weight files that will be read.
    pub read_bytes: u64,
    /// Bytes of memory that can still be had, at most.
    pub available: u64,
}

/// A checkpoint whose config, tokenizer and headers have been read and checked, but none of its weights.
pub struct Candidate {
    architecture: &'static str,
    configured: Box<dyn Configured>,
    shape: Shape,
    tokenizer: Tokenizer,
    checkpoint: Checkpoint,
}

impl Candidate {
    /// Reads `config.json`, the tokenizer and the headers of the weight files.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Config`], [`Error::Architecture`], [`Error::Tokenizer`], [`Error::File`],
    /// [`Error::Read`].
    pub fn open(files: Files) -> Result<Self> {
        const CONFIG_LIMIT: u64 = 1 << 20;
        let files = files.beside_config()?;
        let config = files.read("config.json", CONFIG_LIMIT)?.unwrap_or_default();
        let config = String::from_utf8(config).map_err(|error| Error::Config(error.to_string()))?;
        let (architecture, configured) = models::configure(&config)?;
        let shape = configured.shape();
        let tokenizer = read_tokenizer(&files, &shape)?;
        let checkpoint = Checkpoint::open(files.into_weights()?)?;
        Ok(Self { architecture, configured, shape, tokenizer, checkpoint })
    }

    /// The `model_type` of `config.json`.
    pub fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// The model's dimensions.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Checks every tensor's name, shape and dtype, and that the model fits into memory, without reading a weight.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Tensor`], [`Error::Memory`] with the figures.
    pub fn plan(&self, precision: Precision) -> Result<Plan> {
        let mut ignore_progress = |_, _| {};
        let weights = Weights::plan(&self.checkpoint, precision, &mut ignore_progress);
        self.configured.build(&weights)?;
        let shape = &self.shape;
        let bytes = ModelBytes {
            weights: weights.resident_bytes(),
            cache: Cache::bytes_for(shape.layers, shape.heads, shape.head_dim, shape.context),
            scratch: scratch_bytes(shape),
            tokenizer: tokenizer_bytes(&self.tokenizer),
        };
        let available = memory::available();
        if bytes.total() > available {
            return Err(Error::Memory(format!(
                "this model needs {} in {} (weights {}, a full context {}), and a page can still have {}; \
                 choose a smaller model",
                memory::shown(bytes.total()),
                precision.name(),
                memory::shown(bytes.weights),
                memory::shown(bytes.cache),
                memory::shown(available),
            )));
        }
        let read_bytes = weights.read_bytes();
        Ok(Plan { precision, parameters: weights.parameters(), bytes, read_bytes, available })
    }

    /// Reads and packs the weights. `progress` is told how many bytes of the weight files have been read, of how many.
    ///
    /// # Errors
    /// Those of [`Candidate::plan`], and [`Error::Read`].
    pub fn load(self, precision: Precision, progress: &mut dyn FnMut(u64, u64)) -> Result<Session> {
        let plan = self.plan(precision)?;
        memory::reserve(plan.bytes.weights + plan.bytes.scratch)?;
        let weights = Weights::load(&self.checkpoint, precision, plan.read_bytes, progress);
        let model = self.configured.build(&weights)?;
        let ignored = weights.ignored();
        let kernels = weights.kernels();
        drop(weights);
        let cache = Cache::new(self.shape.layers, self.shape.heads, self.shape.head_dim);
        Ok(Session {
            architecture: self.architecture,
            shape: self.shape,
            model,
            tokenizer: self.tokenizer,
            sequence: Sequence::new(cache),
            kernels,
            plan,
            ignored,
            run: 0,
        })
    }
}

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
    architecture: &'static str,
    shape: Shape,
    model: Box<dyn Model>,
    tokenizer: Tokenizer,
    sequence: Sequence,
    kernels: Kernels,
    plan: Plan,
    ignored: Vec<String>,
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
    /// What this session runs.
    pub fn info(&self) -> Info {
        Info {
            architecture: self.architecture,
            shape: self.shape.clone(),
            parameters: self.plan.parameters,
            precision: self.plan.precision,
            bytes: ModelBytes { cache: self.sequence.bytes(), ..self.plan.bytes },
            kernel: self.kernels.f32.name(),
            ignored: self.ignored.clone(),
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&mut self) -> &mut Tokenizer {
        &mut self.tokenizer
    }

    /// The tokens of `text`, with those that the family puts around a prompt.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn tokenize(&mut self, text: &str) -> Result<Vec<Piece>> {
        let ids = self.tokenizer.encode(text, SpecialTokens::AsText)?;
        self.tokenizer.pieces(&ids)
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
        let ids = self.tokenizer.encode(prompt, options.special_tokens)?;
        let sampler = Sampler::new(options.sampling.clone(), self.kernels);
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
        run.inner.finish(&self.tokenizer)
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
        let ids = self.tokenizer.encode(text, SpecialTokens::AsText)?;
        let inner = Scoring::new(ids, &mut self.parts())?;
        Ok(self.ticket(inner))
    }

    /// Reads one chunk of the text; the result is the tokens read so far, of how many.
    ///
    /// # Errors
    /// [`Error::Request`] where another run has started since.
    pub fn step_score(&mut self, scoring: &mut Ticket<Scoring>) -> Result<(usize, usize)> {
        self.check(scoring)?;
        let vector = self.kernels.vector;
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
    /// tokens. `observe` is given every named activation of every chunk, `[seq of the chunk, features]`.
    ///
    /// # Errors
    /// [`Error::Request`] for an id beyond the vocabulary, [`Error::Context`] for too many.
    pub fn trace(
        &mut self,
        ids: &[u32],
        chunk: usize,
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Tensor> {
        if ids.len() > self.shape.context {
            return Err(Error::Context { tokens: ids.len(), context: self.shape.context });
        }
        self.run += 1;
        self.sequence.clear();
        let mut logits = Vec::new();
        for chunk in ids.chunks(chunk) {
            let hidden = self.sequence.extend_observed(self.model.as_ref(), chunk, observe)?;
            logits.push(self.model.logits(&hidden)?);
        }
        Ok(Tensor::cat(&logits, 0)?)
    }

    fn parts(&mut self) -> Parts<'_> {
        Parts {
            model: self.model.as_ref(),
            sequence: &mut self.sequence,
            tokenizer: &self.tokenizer,
            context: self.shape.context,
            end_of_text: &self.shape.end_of_text,
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
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

/// `tokenizer.json`, or else `vocab.json` and `merges.txt`.
fn read_tokenizer(files: &Files, shape: &Shape) -> Result<Tokenizer> {
    const LIMIT: u64 = 64 << 20;
    let tokenizer = if let Some(json) = files.read("tokenizer.json", LIMIT)? {
        Tokenizer::from_json(&json)?
    } else {
        match (files.read("vocab.json", LIMIT)?, files.read("merges.txt", LIMIT)?) {
            (Some(vocab), Some(merges)) => Tokenizer::from_vocab_and_merges(&vocab, &merges, &shape.special)?,
            _ => {
                let problem = "no tokenizer: expected tokenizer.json, or vocab.json and merges.txt,";
                let names = files.names();
                return Err(Error::MissingFile(format!("{problem} among the files ({names})")));
            }
        }
    };
    if tokenizer.highest_id() as usize >= shape.vocabulary {
        return Err(Error::Tokenizer(format!(
            "it gives ids up to {}, but the model's vocabulary has {} entries: do the files belong together?",
            tokenizer.highest_id(),
            shape.vocabulary
        )));
    }
    Ok(tokenizer.with_bos(shape.bos))
}

/// The activations of one chunk, the scores of attention, the logits with their copies in the sampler, and the strip
/// of the file that is being packed beside the bytes that it was read from.
fn scratch_bytes(shape: &Shape) -> u64 {
    let of_a_token = 8 * shape.hidden + 2 * shape.feed_forward + shape.context;
    let values = PREFILL_CHUNK * of_a_token + 6 * shape.vocabulary + 2 * STRIP_VALUES;
    size_of::<f32>() as u64 * values as u64
}

/// Two maps between tokens and ids, and the table of merges: some 200 bytes an entry.
fn tokenizer_bytes(tokenizer: &Tokenizer) -> u64 {
    200 * tokenizer.vocabulary() as u64
}
