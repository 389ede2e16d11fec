#![doc = include_str!("../ARCHITECTURE.md")]
#![deny(unsafe_code)]

pub mod checkpoint;
mod error;
pub mod generate;
pub mod kernels;
pub mod layers;
mod memory;
pub mod models;
mod session;
pub mod text;
#[cfg(target_arch = "wasm32")]
mod web;

#[cfg(all(test, target_arch = "wasm32"))]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_dedicated_worker);

pub use error::{Error, Result};
pub use generate::{GenerateOptions, Reason, Sampling, Score, ScoredToken, Step, Token};
pub use layers::Precision;
pub use session::{Candidate, Files, Generation, Info, ModelBytes, Plan, Session, Ticket};
pub use text::{Piece, SpecialTokens, StreamDecoder, Tokenizer};
