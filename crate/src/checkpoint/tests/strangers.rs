//! Files that are no checkpoint are named as what they are.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::forge::refused;

#[test]
fn a_stranger_is_named() {
    for (bytes, expected) in [
        (&b""[..], "the file is empty"),
        (b"GGUF\x03\0\0\0{\0\0\0\0\0\0\0", "a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a git-lfs pointer"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"<HTML><head>", "a web page"),
        (b"<?xml version=\"1.0\"?><Error>", "a web page"),
        (b"{\"weight_map\": {}}", "a text file"),
        (b"Entry not found", "a text file"),
        (b"Invalid {username or password}", "a text file"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch.save(torch.load(path"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "a gzip archive"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x08\x07\x12\x07pytorch\x1a\x05", "neither a safetensors file nor"),
        (&[0; 100], "neither a safetensors file nor"),
        (&[0; 3], "neither a safetensors file nor"),
    ] {
        refused(bytes.to_vec(), expected);
    }
    refused(include_bytes!("oracle/legacy.bin").to_vec(), "as torch.save wrote before PyTorch 1.6");
}
