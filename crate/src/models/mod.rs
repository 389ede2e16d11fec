//! The models: one file for each architecture, one line for each in [`REGISTRY`].
//!
//! A model file reads a `config.json`, finds its tensors by the checkpoint's own names, and composes
//! [`crate::layers`]. It names no kernel, no instruction set and no precision.

mod gpt2;
mod opt;

use crate::checkpoint::Awaited;
use crate::error::{Error, Result};
use crate::layers::{Cache, Weights};
use candle_core::Tensor;
use std::fmt::Display;

/// Given the name of a place in the model and the activation there, `[seq, features]`. The model writes over it later: to keep it, copy it.
pub type Observer<'a> = &'a mut dyn FnMut(&dyn Display, &Tensor);

/// A causal language model.
pub trait Model {
    /// Reads `ids` at the positions that follow those in `cache`, and appends to `cache`. The result is what the
    /// head sees, `[seq, features]`.
    ///
    /// # Errors
    /// [`Error::Request`] for an id beyond the vocabulary, [`Error::Memory`] where the cache cannot grow.
    fn forward(&self, ids: &[u32], cache: &mut Cache, observe: Observer<'_>) -> Result<Tensor>;

    /// The head: `hidden` is `[seq, features]`, the result `[seq, vocabulary]`.
    ///
    /// # Errors
    /// [`Error::Candle`] where the result cannot be made a tensor.
    fn logits(&self, hidden: &Tensor) -> Result<Tensor>;
}

/// What a `config.json` says of a model, whatever its architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Blocks.
    pub layers: usize,
    /// Features of the residual stream.
    pub hidden: usize,
    /// Attention heads of a block.
    pub heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Features inside a block's feed-forward.
    pub feed_forward: usize,
    /// Positions that the model can see at once.
    pub context: usize,
    /// Tokens that the head chooses among.
    pub vocabulary: usize,
    /// The token that the family puts once in front of every text, beyond what its tokenizer files say.
    pub bos: Option<u32>,
    /// The tokens that end a text.
    pub end_of_text: Vec<u32>,
    /// Tokens with a meaning of their own, where only `vocab.json` and `merges.txt` are published.
    pub special: Vec<u32>,
}

/// An architecture that this crate can run.
pub struct Architecture {
    /// `model_type` in `config.json`.
    pub name: &'static str,
    /// Reads and checks `config.json`.
    pub configure: fn(&str) -> Result<Box<dyn Configured>>,
}

/// A checked `config.json`, from which the model can be built.
pub trait Configured {
    /// The model's dimensions and special tokens.
    fn shape(&self) -> Shape;

    /// Builds the model from the checkpoint at `weights`.
    ///
    /// # Errors
    /// Those of [`crate::layers::Linear::load`].
    fn build<'a>(&'a self, weights: &'a Weights<'_>) -> Awaited<'a, Result<Box<dyn Model>>>;
}

/// Every architecture, by `model_type`.
pub const REGISTRY: &[Architecture] = &[gpt2::ARCHITECTURE, opt::ARCHITECTURE];

/// Finds the architecture that `config` (the text of a `config.json`) names, and reads the rest of it.
///
/// # Errors
/// [`Error::Config`] where it is not JSON or contradicts itself, [`Error::Architecture`] where nothing here can run it.
pub fn configure(config: &str) -> Result<(&'static str, Box<dyn Configured>)> {
    #[derive(serde::Deserialize)]
    struct Named {
        model_type: Option<String>,
    }
    let named: Named = parse_config(config)?;
    let found = named.model_type.ok_or_else(|| Error::Config("`model_type` is missing".to_owned()))?;
    let Some(architecture) = REGISTRY.iter().find(|architecture| architecture.name == found) else {
        let known = REGISTRY.iter().map(|architecture| architecture.name).collect::<Vec<_>>().join(", ");
        return Err(Error::Architecture { found, known });
    };
    Ok((architecture.name, (architecture.configure)(config)?))
}

/// `config` as `T`.
fn parse_config<'a, T: serde::Deserialize<'a>>(config: &'a str) -> Result<T> {
    serde_json::from_str(config).map_err(|error| Error::Config(error.to_string()))
}

/// The most blocks that a model may have: more than any published one, few enough to plan in no time.
const MOST_LAYERS: usize = 1024;

/// The most of anything else that a config may ask for.
const LARGEST_DIMENSION: usize = 1 << 24;

/// Checks the dimensions of a `config.json`: untrusted, so bounded before anything is computed from them.
fn check_dimensions(layers: (&str, usize), others: &[(&str, usize)]) -> Result<()> {
    let check = |(name, value): (&str, usize), most| {
        if (1..=most).contains(&value) {
            return Ok(());
        }
        Err(Error::Config(format!("`{name}`: expected 1 to {most}, found {value}")))
    };
    check(layers, MOST_LAYERS)?;
    others.iter().try_for_each(|dimension| check(*dimension, LARGEST_DIMENSION))
}

/// The width of one of `heads` heads of `hidden` features.
fn head_dim(hidden: usize, heads: usize) -> Result<usize> {
    if hidden.is_multiple_of(heads) {
        return Ok(hidden / heads);
    }
    Err(Error::Config(format!("{hidden} features cannot be split into {heads} heads")))
}

/// A JSON field that holds one token id, several, or none.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(u32),
    Several(Vec<u32>),
    #[default]
    None,
}

impl TokenIds {
    fn to_vec(&self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![*id],
            Self::Several(ids) => ids.clone(),
            Self::None => Vec::new(),
        }
    }
}
