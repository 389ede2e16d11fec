//! Text to token ids and back: the checkpoint's own tokenizer, and a decoder for text that arrives token by token.
//!
//! Not responsible for what a model family adds around a prompt beyond its tokenizer files, but for the one
//! convention that files cannot tell: OPT's leading `</s>` ([`Tokenizer::with_bos`]).

use crate::error::{Error, Result};
use ahash::AHashMap;
use serde::Serialize;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, step_decode_stream};

/// What the name of a special token inside a text means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Plain characters: a prompt that quotes `<|endoftext|>` cannot end the text.
    #[default]
    AsText,
    /// The token itself.
    Recognised,
}

/// A tokenizer as published beside a checkpoint.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    bytes: u64,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] with the position and the reason.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|error| Error::Tokenizer(format!("tokenizer.json: {error}")))?;
        // Left over from training, where batches have one length; a prompt is neither cut nor filled up.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| Error::Tokenizer(format!("tokenizer.json: {error}")))?;
        Ok(Self { inner, bos: None, bytes: json.len() as u64 })
    }

    /// Builds the byte-level BPE of GPT-2 and OPT from a `vocab.json` (token to id) and a `merges.txt` (one pair a
    /// line). The entries of the vocabulary with an id in `special_ids` are special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] with the file, the line and the reason.
    pub fn from_vocab_and_merges(vocab: &[u8], merges: &[u8], special_ids: &[u32]) -> Result<Self> {
        let bytes = (vocab.len() + merges.len()) as u64;
        let vocab: AHashMap<String, u32> = serde_json::from_slice::<std::collections::HashMap<_, _>>(vocab)
            .map_err(|error| Error::Tokenizer(format!("vocab.json: {error}")))?
            .into_iter()
            .collect();
        let merges = parse_merges(merges)?;
        let mut special: Vec<_> = special_ids.iter().filter_map(|id| token_of(&vocab, *id)).collect();
        special.dedup();
        let model = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .build()
            .map_err(|error| Error::Tokenizer(format!("vocab.json and merges.txt: {error}")))?;
        let byte_level = ByteLevel::new(false, true, true);
        let mut inner = tokenizers::Tokenizer::new(model);
        inner.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
        inner
            .add_special_tokens(special.into_iter().map(|token| AddedToken::from(token, true)))
            .map_err(|error| Error::Tokenizer(format!("vocab.json: {error}")))?;
        Ok(Self { inner, bos: None, bytes })
    }

    /// The same tokenizer, which puts the token `bos` once in front of every text.
    pub fn with_bos(self, bos: Option<u32>) -> Self {
        Self { bos, ..self }
    }

    /// The number of entries, added tokens included: ids are below it unless the files leave gaps.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The highest id that the tokenizer can give.
    pub fn highest_id(&self) -> u32 {
        self.inner.get_vocab(true).into_values().max().unwrap_or(0)
    }

    /// The bytes of the files that this tokenizer was read from.
    pub fn file_bytes(&self) -> u64 {
        self.bytes
    }

    /// The ids of `text`, with the tokens that the family puts around a prompt.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer refuses the text.
    pub fn encode(&mut self, text: &str, special: SpecialTokens) -> Result<Vec<u32>> {
        self.inner.set_encode_special_tokens(special == SpecialTokens::AsText);
        let encoding = self.inner.encode_fast(text, true).map_err(failed)?;
        let mut ids = encoding.get_ids().to_vec();
        if let Some(bos) = self.bos
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The text of `ids`, special tokens included by name; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the decoder refuses the ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, false).map_err(failed)
    }

    /// Each id with its text. The pieces joined are the whole text: a token that ends inside a character has an
    /// empty piece, and the token that completes it carries the character.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the decoder refuses the ids.
    pub fn pieces(&self, ids: &[u32]) -> Result<Vec<Piece>> {
        let mut decoder = StreamDecoder::default();
        let mut pieces = Vec::with_capacity(ids.len());
        for &id in ids {
            pieces.push(Piece { id, text: decoder.push(self, id)? });
        }
        if let Some(last) = pieces.last_mut() {
            last.text.push_str(&decoder.finish(self)?);
        }
        Ok(pieces)
    }
}

/// One token and its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// The token's id.
    pub id: u32,
    /// What it adds to the text.
    pub text: String,
}

/// Turns ids into text as they arrive. It never splits a character and never loses a space: what cannot be shown
/// yet is held until the token that completes it, and the pieces joined are the text of all ids.
#[derive(Clone, Debug, Default)]
pub struct StreamDecoder {
    ids: Vec<u32>,
    prefix: String,
    prefix_index: usize,
}

impl StreamDecoder {
    /// The text that `id` completes; empty while it ends inside a character.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the decoder refuses the ids.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String> {
        let Self { ids, prefix, prefix_index } = self;
        let text = step_decode_stream(&tokenizer.inner, vec![id], false, ids, prefix, prefix_index);
        Ok(text.map_err(failed)?.unwrap_or_default())
    }

    /// The text that was still held, with U+FFFD for a character that never ended.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the decoder refuses the ids.
    pub fn finish(self, tokenizer: &Tokenizer) -> Result<String> {
        let text = tokenizer.decode(&self.ids)?;
        Ok(text.strip_prefix(&self.prefix).unwrap_or_default().to_owned())
    }
}

fn token_of(vocab: &AHashMap<String, u32>, id: u32) -> Option<String> {
    vocab.iter().find(|(_, entry)| **entry == id).map(|(token, _)| token.clone())
}

/// The pairs of a `merges.txt`, whose first line may name a version.
fn parse_merges(merges: &[u8]) -> Result<Vec<(String, String)>> {
    let text = std::str::from_utf8(merges)
        .map_err(|error| Error::Tokenizer(format!("merges.txt: not UTF-8 ({error})")))?;
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
    lines
        .map(|(index, line)| match line.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
            _ => Err(Error::Tokenizer(format!(
                "merges.txt, line {}: expected two tokens, found `{}`",
                index + 1,
                line.chars().take(40).collect::<String>()
            ))),
        })
        .collect()
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const JSON: &str = include_str!("../../www/models/storyteller/tokenizer.json");

    #[test]
    fn truncation_and_padding_left_over_from_training_are_not_obeyed() {
        const TEXT: &str = "Once upon a time there was a little rabbit who lived in a wood.";
        let mut batched: serde_json::Value = serde_json::from_str(JSON).unwrap();
        batched["truncation"] = serde_json::json!({
            "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
        });
        batched["padding"] = serde_json::json!({
            "strategy": { "Fixed": 64 }, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"
        });
        let encode =
            |json: &[u8]| Tokenizer::from_json(json).unwrap().encode(TEXT, SpecialTokens::AsText).unwrap();
        let plain = encode(JSON.as_bytes());
        assert!(plain.len() > 3 && plain.len() < 64);
        assert_eq!(encode(batched.to_string().as_bytes()), plain);
    }
}
