//! What kind of file is this? Decided by its first bytes; a file that cannot be read is named as what it is.
//!
//! Not responsible for whether the rest of the file keeps the promise of its first bytes.

use super::Source;
use crate::{Error, Result};

/// The formats with a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Safetensors,
    /// A zip archive, as `torch.save` writes since PyTorch 1.6.
    Torch,
}

/// As many bytes as any decision needs.
const HEAD: u64 = 64;

/// Sniffs `source`.
pub(super) fn format(source: &dyn Source) -> Result<Format> {
    let head = super::source::read_range(source, 0, source.len().min(HEAD))?;
    let refuse = |problem: &str| Err(Error::file(source.name(), problem));

    if head.is_empty() {
        return refuse("the file is empty; download it again");
    }
    if let Some(problem) = known_stranger(&head) {
        return refuse(problem);
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Ok(Format::Torch);
    }
    // Last, since only its ninth byte is fixed: a length of 8 bytes, then a JSON object.
    match head.first_chunk::<9>() {
        Some([length @ .., b'{']) if !is_text(length) => Ok(Format::Safetensors),
        _ if is_text(&head) => refuse("this is a text file; expected model.safetensors or pytorch_model.bin"),
        _ => refuse(
            "neither a safetensors file nor one that torch.save wrote; expected model.safetensors or \
             pytorch_model.bin",
        ),
    }
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == b'\t' || byte == b'\n' || byte == b'\r' || (b' '..=b'~').contains(&byte))
}

/// Files that people drop by mistake, with what to do next.
fn known_stranger(head: &[u8]) -> Option<&'static str> {
    let text = head.trim_ascii_start().to_ascii_lowercase();
    Some(match head {
        _ if head.starts_with(b"GGUF") => {
            "this is a GGUF file, which this build does not read; take the model's .safetensors files instead"
        }
        _ if head.starts_with(b"version https://git-lfs") => {
            "this is a git-lfs pointer, not the weights; run `git lfs pull`, or download the file itself"
        }
        _ if text.starts_with(b"<!doctype") || text.starts_with(b"<html") || text.starts_with(b"<?xml") => {
            "this is a web page, not the weights: the download probably failed or asked for a login"
        }
        [0x80, 2..=5, ..] => {
            "this is a bare pickle, as torch.save wrote before PyTorch 1.6, which is not read; convert \
             it once with `torch.save(torch.load(path, map_location=\"cpu\", weights_only=True), path)` in a \
             recent PyTorch"
        }
        [0x1f, 0x8b, ..] => "this is a gzip archive; unpack it, and give the files inside",
        _ if head.starts_with(b"\x89HDF\r\n") => {
            "this is an HDF5 file (Keras, TensorFlow); take model.safetensors or pytorch_model.bin instead"
        }
        _ => return None,
    })
}
