#![doc = include_str!("../ARCHITECTURE.md")]
#![deny(unsafe_code)]

mod candidate;
pub mod checkpoint;
mod error;
mod files;
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

pub use candidate::{Candidate, ModelBytes, Plan, estimate};
pub use error::{Error, Result};
pub use files::Files;
pub use generate::{GenerateOptions, Reason, Sampling, Score, ScoredToken, Step, Token};
pub use layers::Precision;
pub use session::{Generation, Info, Session, Ticket};
pub use text::{Piece, SpecialTokens, StreamDecoder, Tokenizer};
