//! The committed checkpoints of `tests/fixtures/` (see `make_fixtures.py`), embedded: a test in a browser has no files.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use candle_core::{Device, Tensor};
use serde::Deserialize;
use std::collections::HashMap;
use vitrine::checkpoint::{BytesSource, Source};
use vitrine::{Candidate, Files, Precision, Session};

/// One checkpoint and what the reference implementation computes from it.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    pub(crate) files: &'static [(&'static str, &'static [u8])],
    expected_json: &'static str,
    expected_tensors: &'static [u8],
}

macro_rules! fixture {
    ($folder:literal, $($file:literal),+) => {
        Fixture {
            name: $folder,
            files: &[$(($file, include_bytes!(concat!("fixtures/", $folder, "/", $file)))),+],
            expected_json: include_str!(concat!("fixtures/", $folder, "/expected.json")),
            expected_tensors: include_bytes!(concat!("fixtures/", $folder, "/expected.tensors")),
        }
    };
}

/// The layout of openai-community/gpt2: f32 safetensors, bare names, mask buffers, tied head, tokenizer.json.
pub(crate) static GPT2_A: Fixture =
    fixture!("gpt2-tiny-a", "config.json", "tokenizer.json", "model.safetensors");
/// Every config variant: `n_inner`, erf GELU, scaling by layer, own head; bf16, prefixed names, vocab and merges.
pub(crate) static GPT2_B: Fixture =
    fixture!("gpt2-tiny-b", "config.json", "vocab.json", "merges.txt", "model.safetensors");
/// The layout of facebook/opt-125m: f16 pickle, pre-norm.
pub(crate) static OPT_A: Fixture =
    fixture!("opt-tiny-a", "config.json", "vocab.json", "merges.txt", "pytorch_model.bin");
/// The form of facebook/opt-350m: post-norm, projected embeddings, no final norm.
pub(crate) static OPT_B: Fixture =
    fixture!("opt-tiny-b", "config.json", "vocab.json", "merges.txt", "pytorch_model.bin");

#[derive(Deserialize)]
pub(crate) struct Expected {
    pub(crate) parameters: u64,
    /// How far the reference's own f32 lies from f64, relative to the largest value of a tensor.
    pub(crate) reference_error: f32,
    pub(crate) short: Input,
    pub(crate) long: Input,
    pub(crate) greedy: Greedy,
    pub(crate) stop: Stop,
    pub(crate) score: Scored,
    /// Changes to `config.json`, by name.
    pub(crate) variants: HashMap<String, serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
pub(crate) struct Input {
    pub(crate) ids: Vec<u32>,
    /// The positions whose values are kept; all of them if absent.
    pub(crate) positions: Option<Vec<usize>>,
}

impl Input {
    pub(crate) fn positions(&self) -> Vec<usize> {
        self.positions.clone().unwrap_or_else(|| (0..self.ids.len()).collect())
    }
}

/// A greedy continuation until the context is full.
#[derive(Deserialize)]
pub(crate) struct Greedy {
    pub(crate) prompt: String,
    pub(crate) prompt_ids: Vec<u32>,
    pub(crate) ids: Vec<u32>,
    pub(crate) logprobs: Vec<f32>,
    pub(crate) text: String,
    pub(crate) smallest_gap: f32,
}

/// A greedy continuation that ends with end-of-text.
#[derive(Deserialize)]
pub(crate) struct Stop {
    pub(crate) prompt: String,
    pub(crate) ids: Vec<u32>,
    pub(crate) text: String,
}

#[derive(Deserialize)]
pub(crate) struct Scored {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
    /// Of every token but the first.
    pub(crate) logprobs: Vec<f32>,
    pub(crate) perplexity: f64,
    pub(crate) bits_per_byte: f64,
}

impl Fixture {
    pub(crate) fn expected(&self) -> Expected {
        serde_json::from_str(self.expected_json).expect("expected.json")
    }

    /// The expected tensors by name: `short.h.0`, `long.logits`, ...
    pub(crate) fn tensors(&self) -> HashMap<String, Tensor> {
        candle_core::safetensors::load_buffer(self.expected_tensors, &Device::Cpu).expect("expected.tensors")
    }

    pub(crate) fn load(&self) -> Session {
        load(self.with(&[])).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The content of `file`.
    pub(crate) fn bytes(&self, file: &str) -> &'static [u8] {
        self.files.iter().find(|(name, _)| *name == file).expect(file).1
    }

    /// The files, of which those named in `changes` are replaced, added, or (`None`) left out.
    pub(crate) fn with(&self, changes: &[(&str, Option<Vec<u8>>)]) -> Files {
        let kept = self.files.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        let kept = kept.map(|&(name, bytes)| source(name, bytes));
        let changed = changes.iter().filter_map(|(name, bytes)| Some(source(name, bytes.clone()?)));
        Files::new(kept.chain(changed).collect())
    }

    /// The files, with `change` made to `config.json`.
    pub(crate) fn with_config(
        &self,
        change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
    ) -> Files {
        let mut config = serde_json::from_slice(self.bytes("config.json")).expect("config.json");
        change(&mut config);
        self.with(&[("config.json", Some(serde_json::to_vec(&config).expect("JSON")))])
    }
}

pub(crate) fn source(name: &str, bytes: impl AsRef<[u8]> + 'static) -> Box<dyn Source> {
    Box::new(BytesSource::new(name, bytes))
}

pub(crate) fn load(files: Files) -> vitrine::Result<Session> {
    Candidate::open(files)?.load(Precision::F32, &mut |_, _| {})
}
