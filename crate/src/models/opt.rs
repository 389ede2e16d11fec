//! OPT (Zhang et al., 2022, "OPT: Open Pre-trained Transformer Language Models").
//!
//! Reference: Hugging Face transformers, `models/opt/modeling_opt.py`.
//!
//! Quirks:
//! - Every text starts with `</s>`, the `bos_token_id` of `config.json`.
//! - Learned positions start at row 2 of their table.
//! - ReLU between the feed-forward layers.
//! - opt-350m alone normalises after each residual sum, has no final norm, and projects embeddings of width 512 to
//!   1,024 features and back.
//! - Names come with `model.decoder.` in front, or with `decoder.`.

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

/// Rows of the position table before position 0.
const POSITION_OFFSET: usize = 2;

/// `torch.nn.LayerNorm`'s default, which OPT does not override.
const LAYER_NORM_EPSILON: f32 = 1e-5;

/// This architecture's line in the registry.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "opt",
    configure: |config| {
        let config: Config = parse_config(config)?;
        config.check()?;
        Ok(Box::new(config))
    },
};

/// The fields of `config.json` that matter, with the defaults of `OPTConfig`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    ffn_dim: usize,
    max_position_embeddings: usize,
    do_layer_norm_before: bool,
    #[serde(rename = "_remove_final_layer_norm")]
    remove_final_layer_norm: bool,
    word_embed_proj_dim: Option<usize>,
    num_attention_heads: usize,
    activation_function: String,
    enable_bias: bool,
    layer_norm_elementwise_affine: bool,
    tie_word_embeddings: bool,
    bos_token_id: Option<u32>,
    eos_token_id: TokenIds,
    pad_token_id: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 50272,
            hidden_size: 768,
            num_hidden_layers: 12,
            ffn_dim: 3072,
            max_position_embeddings: 2048,
            do_layer_norm_before: true,
            remove_final_layer_norm: false,
            word_embed_proj_dim: None,
            num_attention_heads: 12,
            activation_function: "relu".to_owned(),
            enable_bias: true,
            layer_norm_elementwise_affine: true,
            tie_word_embeddings: true,
            bos_token_id: Some(2),
            eos_token_id: TokenIds::One(2),
            pad_token_id: Some(1),
        }
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        check_dimensions(
            ("num_hidden_layers", self.num_hidden_layers),
            &[
                ("vocab_size", self.vocab_size),
                ("hidden_size", self.hidden_size),
                ("ffn_dim", self.ffn_dim),
                ("max_position_embeddings", self.max_position_embeddings),
                ("word_embed_proj_dim", self.embedding_size()),
                ("num_attention_heads", self.num_attention_heads),
            ],
        )?;
        head_dim(self.hidden_size, self.num_attention_heads).map(|_| ())
    }

    fn embedding_size(&self) -> usize {
        self.word_embed_proj_dim.unwrap_or(self.hidden_size)
    }

    fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    fn rows<'a>(&self, weights: Weights<'a>, out_features: usize) -> Rows<'a> {
        let rows = Rows::all(weights, out_features);
        if self.enable_bias { rows } else { rows.without_bias() }
    }

    async fn norm(&self, weights: &Weights<'_>) -> Result<LayerNorm> {
        if self.layer_norm_elementwise_affine {
            LayerNorm::load(weights, self.hidden_size, LAYER_NORM_EPSILON).await
        } else {
            Ok(LayerNorm::plain(weights, self.hidden_size, LAYER_NORM_EPSILON))
        }
    }
}

impl Configured for Config {
    fn shape(&self) -> Shape {
        let end_of_text = self.eos_token_id.to_vec();
        let named = [self.bos_token_id, self.pad_token_id].into_iter().flatten();
        let special = named.chain(end_of_text.iter().copied()).collect();
        Shape {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            head_dim: self.head_dim(),
            feed_forward: self.ffn_dim,
            context: self.max_position_embeddings,
            vocabulary: self.vocab_size,
            bos: self.bos_token_id,
            end_of_text,
            special,
        }
    }

    fn build<'a>(&'a self, weights: &'a Weights<'_>) -> Awaited<'a, Result<Box<dyn Model>>> {
        Box::pin(async { Ok(Box::new(Opt::load(self, weights).await?) as _) })
    }
}

struct Opt {
    embed_tokens: Embedding,
    project_in: Option<Linear>,
    embed_positions: PositionEmbedding,
    layers: Vec<DecoderLayer>,
    final_layer_norm: Option<LayerNorm>,
    project_out: Option<Linear>,
    lm_head: Linear,
}

impl Opt {
    async fn load(config: &Config, root: &Weights<'_>) -> Result<Self> {
        let weights = root.pp_that_has(&["model.decoder", "decoder", ""], "embed_tokens.weight");
        let (hidden, embedding) = (config.hidden_size, config.embedding_size());
        let (embed_tokens, tied_head) =
            Embedding::load(&weights.pp("embed_tokens"), config.vocab_size, embedding).await?;
        let lm_head = if config.tie_word_embeddings {
            tied_head
        } else {
            let rows = Rows::all(root.pp("lm_head"), config.vocab_size).without_bias();
            Linear::load(&[rows], embedding, Layout::OutIn).await?
        };
        let project = async |name, from, to| -> Result<Option<Linear>> {
            if embedding == hidden {
                return Ok(None);
            }
            let rows = Rows::all(weights.pp(name), to).without_bias();
            Ok(Some(Linear::load(&[rows], from, Layout::OutIn).await?))
        };
        let project_in = project("project_in", embedding, hidden).await?;
        let (positions, place) = (config.max_position_embeddings, weights.pp("embed_positions"));
        let embed_positions = PositionEmbedding::load(&place, positions, hidden, POSITION_OFFSET).await?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for layer in 0..config.num_hidden_layers {
            layers.push(DecoderLayer::load(config, &weights.pp("layers").pp(layer)).await?);
        }
        let final_layer_norm = if config.do_layer_norm_before && !config.remove_final_layer_norm {
            Some(config.norm(&weights.pp("final_layer_norm")).await?)
        } else {
            None
        };
        let project_out = project("project_out", hidden, embedding).await?;
        Ok(Self { embed_tokens, project_in, embed_positions, layers, final_layer_norm, project_out, lm_head })
    }
}

impl Model for Opt {
    fn forward(&self, ids: &[u32], cache: &mut Cache, observe: Observer<'_>) -> Result<Tensor> {
        let mut x = self.embed_tokens.forward(ids)?; // [seq, word_embed_proj_dim]
        if let Some(project_in) = &self.project_in {
            x = project_in.forward(&x)?; // [seq, hidden_size]
        }
        self.embed_positions.add_to(&x, cache.len())?;
        observe(&"embed", &x);
        for (index, (layer, cache)) in self.layers.iter().zip(cache.layers_mut()).enumerate() {
            x = layer.forward(x, cache)?;
            observe(&format_args!("layers.{index}"), &x);
        }
        if let Some(norm) = &self.final_layer_norm {
            x = norm.forward(&x)?;
            observe(&"final_layer_norm", &x);
        }
        if let Some(project_out) = &self.project_out {
            x = project_out.forward(&x)?; // [seq, word_embed_proj_dim]
            observe(&"project_out", &x);
        }
        Ok(x)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.lm_head.forward(hidden)
    }
}

struct DecoderLayer {
    norm_before: bool,
    self_attn_layer_norm: LayerNorm,
    self_attn: SelfAttention,
    final_layer_norm: LayerNorm,
    feed_forward: FeedForward,
}

impl DecoderLayer {
    async fn load(config: &Config, weights: &Weights<'_>) -> Result<Self> {
        Ok(Self {
            norm_before: config.do_layer_norm_before,
            self_attn_layer_norm: config.norm(&weights.pp("self_attn_layer_norm")).await?,
            self_attn: SelfAttention::load(config, &weights.pp("self_attn")).await?,
            final_layer_norm: config.norm(&weights.pp("final_layer_norm")).await?,
            feed_forward: FeedForward::load(config, weights).await?,
        })
    }

    /// `x` is `[seq, hidden_size]`, and is written over; so is the result, which may be the same tensor.
    fn forward(&self, mut x: Tensor, cache: &mut LayerCache) -> Result<Tensor> {
        let (norm_1, norm_2) = (&self.self_attn_layer_norm, &self.final_layer_norm);
        if self.norm_before {
            self.self_attn.add_to(&x, &norm_1.forward(&x)?, cache)?;
            self.feed_forward.add_to(&x, &norm_2.forward(&x)?)?;
        } else {
            self.self_attn.add_to(&x, &x, cache)?;
            x = norm_1.forward(&x)?;
            self.feed_forward.add_to(&x, &x)?;
            x = norm_2.forward(&x)?;
        }
        Ok(x)
    }
}

struct SelfAttention {
    /// `q_proj`, `k_proj` and `v_proj`, stacked.
    qkv_proj: Linear,
    attention: Attention,
    out_proj: Linear,
}

impl SelfAttention {
    async fn load(config: &Config, weights: &Weights<'_>) -> Result<Self> {
        let hidden = config.hidden_size;
        let rows = |name| config.rows(weights.pp(name), hidden);
        let qkv = [rows("q_proj"), rows("k_proj"), rows("v_proj")];
        let scale = 1.0 / (config.head_dim() as f32).sqrt();
        Ok(Self {
            qkv_proj: Linear::load(&qkv, hidden, Layout::OutIn).await?,
            attention: Attention::new(config.num_attention_heads, config.head_dim(), scale, weights),
            out_proj: Linear::load(&[rows("out_proj")], hidden, Layout::OutIn).await?,
        })
    }

    /// `residual` and `x` are `[seq, hidden_size]`, and may be the same tensor.
    fn add_to(&self, residual: &Tensor, x: &Tensor, cache: &mut LayerCache) -> Result<()> {
        let qkv = self.qkv_proj.forward(x)?; // [seq, 3 * hidden_size]
        self.out_proj.add_to(residual, &self.attention.forward(&qkv, cache)?)
    }
}

struct FeedForward {
    fc1: Linear,
    act: Nonlinearity,
    fc2: Linear,
}

impl FeedForward {
    async fn load(config: &Config, weights: &Weights<'_>) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.ffn_dim);
        let load = async |name, from, to| {
            Linear::load(&[config.rows(weights.pp(name), to)], from, Layout::OutIn).await
        };
        Ok(Self {
            fc1: load("fc1", hidden, inner).await?,
            act: Nonlinearity::named(&config.activation_function, weights)?,
            fc2: load("fc2", inner, hidden).await?,
        })
    }

    /// `residual` and `x` are `[seq, hidden_size]`, and may be the same tensor.
    fn add_to(&self, residual: &Tensor, x: &Tensor) -> Result<()> {
        let x = self.act.forward(self.fc1.forward(x)?)?; // [seq, ffn_dim]
        self.fc2.add_to(residual, &x)
    }
}
