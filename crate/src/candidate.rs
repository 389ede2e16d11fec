//! From files to a model that is ready to load: everything is checked, and nothing large is read.

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::generate::{LOGIT_ROWS, PREFILL_CHUNK};
use crate::layers::{Cache, Kernels, Precision, STRIP_VALUES, Weights, at_once};
use crate::memory;
use crate::models::{self, Configured, Model, Shape};
use crate::session::Session;
use crate::text::Tokenizer;

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
        [self.cache, self.scratch, self.tokenizer].into_iter().fold(self.weights, u64::saturating_add)
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
        let weights = Weights::plan(Some(&self.checkpoint), precision, &mut ignore_progress);
        plan(self.configured.as_ref(), &weights, tokenizer_bytes(self.tokenizer.vocabulary()))
    }

    /// Reads and packs the weights. `progress` is told how many bytes of the weight files have been read, of how many.
    ///
    /// # Errors
    /// Those of [`Candidate::plan`], and [`Error::Read`].
    ///
    /// # Panics
    /// Where a source is not [ready](crate::checkpoint::Source::ready); those of this crate always are, natively.
    pub fn load(self, precision: Precision, progress: &mut dyn FnMut(u64, u64)) -> Result<Session> {
        at_once(self.load_when_ready(precision, progress))
    }

    /// What [`Candidate::load`] does, waiting wherever a source is not ready.
    ///
    /// # Errors
    /// Those of [`Candidate::load`].
    pub async fn load_when_ready(
        self,
        precision: Precision,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Session> {
        let mut ignore_progress = |_, _| {};
        let weights = Weights::plan(Some(&self.checkpoint), precision, &mut ignore_progress);
        let tokenizer = tokenizer_bytes(self.tokenizer.vocabulary());
        let plan = plan(self.configured.as_ref(), &weights, tokenizer)?;
        memory::reserve(plan.bytes.weights + plan.bytes.scratch)?;
        weights.expect_reads();
        let weights = Weights::load(&self.checkpoint, precision, plan.read_bytes, progress);
        let model = self.configured.build(&weights).await?;
        let (ignored, kernels) = (weights.ignored(), weights.kernels());
        drop(weights);
        let Self { architecture, shape, tokenizer, .. } = self;
        Ok(Session::new(Loaded { architecture, shape, model, tokenizer, kernels, plan, ignored }))
    }
}

/// What a session is made of.
pub(crate) struct Loaded {
    pub(crate) architecture: &'static str,
    pub(crate) shape: Shape,
    pub(crate) model: Box<dyn Model>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) kernels: Kernels,
    pub(crate) plan: Plan,
    pub(crate) ignored: Vec<String>,
}

/// What loading the model of a `config.json` would take, as far as its text alone tells: that nothing large need be
/// fetched for a model that cannot be loaded.
///
/// # Errors
/// [`Error::Config`], [`Error::Architecture`], [`Error::Memory`] with the figures.
pub fn estimate(config: &str, precision: Precision) -> Result<Plan> {
    let (_, configured) = models::configure(config)?;
    let mut ignore_progress = |_, _| {};
    let weights = Weights::plan(None, precision, &mut ignore_progress);
    plan(configured.as_ref(), &weights, tokenizer_bytes(configured.shape().vocabulary))
}

/// The planning pass, over a checkpoint or over what the config implies.
fn plan(configured: &dyn Configured, weights: &Weights<'_>, tokenizer: u64) -> Result<Plan> {
    at_once(configured.build(weights))?;
    let (precision, shape) = (weights.precision(), configured.shape());
    let bytes = ModelBytes {
        weights: weights.resident_bytes(),
        cache: Cache::bytes_for(precision, shape.layers, shape.heads, shape.head_dim, shape.context),
        scratch: scratch_bytes(&shape),
        tokenizer,
    };
    let available = memory::available();
    if bytes.total() > available {
        return Err(Error::Memory(format!(
            "this model needs {} in {} (weights {}, a full context {}), and a page can still have {}; \
             choose a smaller model{}",
            memory::readable(bytes.total()),
            precision.name(),
            memory::readable(bytes.weights),
            memory::readable(bytes.cache),
            memory::readable(available),
            if precision == Precision::Q4 { "" } else { " or fewer bits" },
        )));
    }
    let (parameters, read_bytes) = (weights.parameters(), weights.read_bytes());
    Ok(Plan { precision, parameters, bytes, read_bytes, available })
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
    if let Some(bos) = shape.bos.filter(|bos| *bos as usize >= shape.vocabulary) {
        let vocabulary = shape.vocabulary;
        return Err(Error::Config(format!("`bos_token_id`: {bos} is beyond the vocabulary of {vocabulary}")));
    }
    Ok(tokenizer.with_bos(shape.bos))
}

/// The activations of one chunk, the scores of attention, a score's logits or one row of them with its copies in the
/// sampler, and the strip of the file that is being packed beside the bytes that it was read from.
fn scratch_bytes(shape: &Shape) -> u64 {
    let wide = |dimension: usize| dimension as u64;
    let of_a_token = 8 * wide(shape.hidden) + 2 * wide(shape.feed_forward) + wide(shape.context);
    let logits = wide(LOGIT_ROWS) * wide(shape.vocabulary);
    let values = wide(PREFILL_CHUNK) * of_a_token + logits + 2 * wide(STRIP_VALUES);
    size_of::<f32>() as u64 * values
}

/// Two maps between tokens and ids, and the table of merges: some 200 bytes an entry.
fn tokenizer_bytes(vocabulary: usize) -> u64 {
    200 * vocabulary as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_config_alone_tells_the_published_sizes() {
        for (config, parameters) in [
            (r#"{"model_type":"gpt2"}"#, 124_439_808),
            (r#"{"model_type":"gpt2","n_layer":6}"#, 81_912_576),
            (r#"{"model_type":"opt"}"#, 125_239_296),
            (
                r#"{"model_type":"opt","hidden_size":1024,"num_hidden_layers":24,"ffn_dim":4096,
                    "num_attention_heads":16,"word_embed_proj_dim":512,"do_layer_norm_before":false}"#,
                331_196_416,
            ),
        ] {
            let plan = estimate(config, Precision::F32).unwrap();
            assert_eq!(plan.parameters, parameters, "{config}");
            // Padding to whole panels is all that f32 adds.
            let exact = 4 * parameters;
            assert!((exact..exact + exact / 1000).contains(&plan.bytes.weights), "{:?}", plan.bytes);
        }
    }

    #[test]
    fn an_estimate_is_refused_as_a_candidate_would_be() {
        let refused = |config| estimate(config, Precision::F32).unwrap_err().code();
        assert_eq!(refused(r#"{"model_type":"gpt2","n_head":7}"#), "bad-config");
        assert_eq!(refused(r#"{"model_type":"mystery"}"#), "unknown-architecture");
    }

    #[cfg(target_arch = "wasm32")]
    #[test]
    fn what_no_wasm_memory_holds_is_refused_with_figures() {
        let xl = r#"{"model_type":"gpt2","n_embd":1600,"n_layer":48,"n_head":25}"#;
        let refusal = estimate(xl, Precision::F32).unwrap_err().to_string();
        assert!(
            refusal.contains("this model needs 6.90 GB in f32 (weights 6.23 GB"),
            "weights and cache of GPT-2 XL: {refusal}"
        );
    }

    #[test]
    fn absurd_dimensions_are_counted_without_overflow() {
        const LARGEST: usize = 1 << 24;
        for config in [
            format!(
                r#"{{"model_type":"gpt2","n_embd":{LARGEST},"n_inner":{LARGEST},"n_head":1,"n_positions":{LARGEST}}}"#
            ),
            format!(
                r#"{{"model_type":"opt","hidden_size":{LARGEST},"vocab_size":{LARGEST},"num_attention_heads":1}}"#
            ),
        ] {
            match estimate(&config, Precision::F32) {
                Ok(plan) => assert!(plan.bytes.total() > 1 << 50, "{plan:?}"),
                Err(error) => assert_eq!(error.code(), "out-of-memory", "{error}"),
            }
        }
        let deep = estimate(r#"{"model_type":"gpt2","n_layer":1000000}"#, Precision::F32);
        assert_eq!(deep.unwrap_err().code(), "bad-config");
    }
}
