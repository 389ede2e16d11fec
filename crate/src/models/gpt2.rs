//! GPT-2 (Radford et al., 2019, "Language Models are Unsupervised Multitask Learners"), DistilGPT-2 and their kin.
//!
//! Reference: Hugging Face transformers, `models/gpt2/modeling_gpt2.py`.
//!
//! Quirks:
//! - The four matrices of a block are `Conv1D`s: stored `[in, out]`.
//! - `c_attn` holds queries, keys and values beside each other.
//! - The head is tied to `wte`, unless `tie_word_embeddings` is false.
//! - Names come with `transformer.` in front or, as in openai-community/gpt2, without.
//! - `h.N.attn.bias` and `h.N.attn.masked_bias` are mask buffers, not weights.

use super::{
    Architecture, Configured, Model, Observer, Shape, TokenIds, check_dimensions, head_dim, parse_config,
};
use crate::checkpoint::Awaited;
use crate::error::Result;
use crate::layers::{
    Attention, Cache, Embedding, LayerCache, LayerNorm, Layout, Linear, Nonlinearity, PositionEmbedding,
    Rows, Weights,
};
use candle_core::Tensor;

/// This architecture's line in the registry.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "gpt2",
    configure: |config| {
        let config: Config = parse_config(config)?;
        config.check()?;
        Ok(Box::new(config))
    },
};

/// The fields of `config.json` that matter, with the defaults of `GPT2Config`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    n_positions: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_inner: Option<usize>,
    activation_function: String,
    layer_norm_epsilon: f32,
    scale_attn_weights: bool,
    scale_attn_by_inverse_layer_idx: bool,
    tie_word_embeddings: bool,
    bos_token_id: TokenIds,
    eos_token_id: TokenIds,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: "gelu_new".to_owned(),
            layer_norm_epsilon: 1e-5,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            bos_token_id: TokenIds::One(50256),
            eos_token_id: TokenIds::One(50256),
        }
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        check_dimensions(
            ("n_layer", self.n_layer),
            &[
                ("vocab_size", self.vocab_size),
                ("n_positions", self.n_positions),
                ("n_embd", self.n_embd),
                ("n_head", self.n_head),
                ("n_inner", self.inner()),
            ],
        )?;
        head_dim(self.n_embd, self.n_head).map(|_| ())
    }

    fn inner(&self) -> usize {
        self.n_inner.unwrap_or(self.n_embd.saturating_mul(4))
    }

    fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }
}

impl Configured for Config {
    fn shape(&self) -> Shape {
        let end_of_text = self.eos_token_id.to_vec();
        let special = [self.bos_token_id.to_vec(), end_of_text.clone()].concat();
        Shape {
            layers: self.n_layer,
            hidden: self.n_embd,
            heads: self.n_head,
            head_dim: self.head_dim(),
            feed_forward: self.inner(),
            context: self.n_positions,
            vocabulary: self.vocab_size,
            bos: None,
            end_of_text,
            special,
        }
    }

    fn build<'a>(&'a self, weights: &'a Weights<'_>) -> Awaited<'a, Result<Box<dyn Model>>> {
        Box::pin(async { Ok(Box::new(Gpt2::load(self, weights).await?) as _) })
    }
}

struct Gpt2 {
    wte: Embedding,
    wpe: PositionEmbedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
    lm_head: Linear,
}

impl Gpt2 {
    async fn load(config: &Config, root: &Weights<'_>) -> Result<Self> {
        let weights = root.pp_that_has(&["transformer", ""], "wte.weight");
        let (wte, tied_head) = Embedding::load(&weights.pp("wte"), config.vocab_size, config.n_embd).await?;
        let lm_head = if config.tie_word_embeddings {
            tied_head
        } else {
            let rows = Rows::all(root.pp("lm_head"), config.vocab_size).without_bias();
            Linear::load(&[rows], config.n_embd, Layout::OutIn).await?
        };
        let wpe = PositionEmbedding::load(&weights.pp("wpe"), config.n_positions, config.n_embd, 0).await?;
        let mut h = Vec::with_capacity(config.n_layer);
        for layer in 0..config.n_layer {
            h.push(Block::load(config, layer, &weights.pp("h").pp(layer)).await?);
        }
        Ok(Self {
            wte,
            wpe,
            h,
            ln_f: LayerNorm::load(&weights.pp("ln_f"), config.n_embd, config.layer_norm_epsilon).await?,
            lm_head,
        })
    }
}

impl Model for Gpt2 {
    fn forward(&self, ids: &[u32], cache: &mut Cache, observe: Observer<'_>) -> Result<Tensor> {
        let x = self.wte.forward(ids)?; // [seq, n_embd]
        self.wpe.add_to(&x, cache.len())?;
        observe(&"embed", &x);
        for (layer, (block, cache)) in self.h.iter().zip(cache.layers_mut()).enumerate() {
            block.add_to(&x, cache)?;
            observe(&format_args!("h.{layer}"), &x);
        }
        let x = self.ln_f.forward(&x)?;
        observe(&"ln_f", &x);
        Ok(x)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.lm_head.forward(hidden)
    }
}

struct Block {
    ln_1: LayerNorm,
    attn: SelfAttention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    async fn load(config: &Config, layer: usize, weights: &Weights<'_>) -> Result<Self> {
        let norm =
            async |name| LayerNorm::load(&weights.pp(name), config.n_embd, config.layer_norm_epsilon).await;
        Ok(Self {
            ln_1: norm("ln_1").await?,
            attn: SelfAttention::load(config, layer, &weights.pp("attn")).await?,
            ln_2: norm("ln_2").await?,
            mlp: Mlp::load(config, &weights.pp("mlp")).await?,
        })
    }

    /// `x` is `[seq, n_embd]`.
    fn add_to(&self, x: &Tensor, cache: &mut LayerCache) -> Result<()> {
        self.attn.add_to(x, &self.ln_1.forward(x)?, cache)?;
        self.mlp.add_to(x, &self.ln_2.forward(x)?)
    }
}

struct SelfAttention {
    c_attn: Linear,
    attention: Attention,
    c_proj: Linear,
}

impl SelfAttention {
    async fn load(config: &Config, layer: usize, weights: &Weights<'_>) -> Result<Self> {
        let mut scale = 1.0;
        if config.scale_attn_weights {
            scale /= (config.head_dim() as f32).sqrt();
        }
        if config.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f32;
        }
        let n = config.n_embd;
        Ok(Self {
            c_attn: Linear::load(&[Rows::all(weights.pp("c_attn"), 3 * n)], n, Layout::InOut).await?,
            attention: Attention::new(config.n_head, config.head_dim(), scale, weights),
            c_proj: Linear::load(&[Rows::all(weights.pp("c_proj"), n)], n, Layout::InOut).await?,
        })
    }

    /// `residual` and `x` are `[seq, n_embd]`.
    fn add_to(&self, residual: &Tensor, x: &Tensor, cache: &mut LayerCache) -> Result<()> {
        let qkv = self.c_attn.forward(x)?; // [seq, 3 * n_embd]
        self.c_proj.add_to(residual, &self.attention.forward(&qkv, cache)?)
    }
}

struct Mlp {
    c_fc: Linear,
    act: Nonlinearity,
    c_proj: Linear,
}

impl Mlp {
    async fn load(config: &Config, weights: &Weights<'_>) -> Result<Self> {
        let (n, inner) = (config.n_embd, config.inner());
        Ok(Self {
            c_fc: Linear::load(&[Rows::all(weights.pp("c_fc"), inner)], n, Layout::InOut).await?,
            act: Nonlinearity::named(&config.activation_function, weights)?,
            c_proj: Linear::load(&[Rows::all(weights.pp("c_proj"), n)], inner, Layout::InOut).await?,
        })
    }

    /// `residual` and `x` are `[seq, n_embd]`.
    fn add_to(&self, residual: &Tensor, x: &Tensor) -> Result<()> {
        let x = self.act.forward(self.c_fc.forward(x)?)?; // [seq, inner]
        self.c_proj.add_to(residual, &x)
    }
}
