//! Files that open, files that are refused, and what is read from them.

mod forge;
#[cfg(not(target_arch = "wasm32"))]
mod mutations;
mod safetensors;
mod scaled;
mod strangers;
mod torch;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{BytesSource, Checkpoint, DType, STRIP, Source};
use crate::{Error, Result};
use forge::open;

/// All of a tensor, as f32.
fn read(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let info = checkpoint.get(name).unwrap();
    let mut out = vec![f32::NAN; info.elements() as usize];
    checkpoint.read_f32(info, 0, &mut out).unwrap();
    out
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn one_tensor(name: &str, values: &[f32]) -> Vec<u8> {
    let (n, bytes) = (values.len(), 4 * values.len());
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[{n}],"data_offsets":[0,{bytes}]}}}}"#);
    forge::safetensors(&header, &floats(values))
}

fn two_files(first: Vec<u8>, second: Vec<u8>) -> Result<Checkpoint> {
    Checkpoint::open(vec![
        Box::new(BytesSource::new("first", first)),
        Box::new(BytesSource::new("second", second)),
    ])
}

#[test]
fn a_checkpoint_needs_a_file() {
    assert_eq!(Checkpoint::open(Vec::new()).err().unwrap().code(), "missing-file");
}

#[test]
fn shards_are_one_checkpoint() {
    let pickled = forge::torch_file(&forge::state_dict(&[forge::WEIGHT]), &floats(&[1., 2., 3., 4., 5., 6.]));
    let checkpoint = two_files(one_tensor("bias", &[7., 8.]), pickled.finish()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["bias", "weight"]);
    assert_eq!(checkpoint.tensors().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["bias", "weight"]);
    assert_eq!(checkpoint.bytes(), 8 * 4);
    assert_eq!(read(&checkpoint, "bias"), [7., 8.]);
    assert_eq!(read(&checkpoint, "weight"), [1., 2., 3., 4., 5., 6.]);
    assert!(checkpoint.get("absent").is_none());
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let error = two_files(one_tensor("wte", &[1.]), one_tensor("wte", &[1.])).err().unwrap();
    assert_eq!(error.to_string(), "second: the tensor `wte` is also in first; give one copy of the weights");
}

#[test]
fn a_range_of_a_tensor_is_read_over_strips() {
    let values: Vec<f32> = (0..2 * STRIP + 10).map(|i| i as f32).collect();
    let checkpoint = open(one_tensor("long", &values)).unwrap();
    let info = checkpoint.get("long").unwrap();
    for (start, length) in
        [(0, values.len()), (3, 0), (5, STRIP), (5, STRIP + 1), (values.len(), 0), (STRIP - 1, 2)]
    {
        let mut out = vec![f32::NAN; length];
        checkpoint.read_f32(info, start as u64, &mut out).unwrap();
        assert_eq!(out, values[start..start + length], "{length} from {start}");
    }
}

#[cfg(not(target_arch = "wasm32"))] // where a panic ends the instance
#[test]
#[should_panic(expected = "`short`: 2 elements asked for at 1, but it has 2")]
fn a_range_beyond_the_tensor_is_a_defect() {
    let checkpoint = open(one_tensor("short", &[1., 2.])).unwrap();
    let info = checkpoint.get("short").unwrap();
    drop(checkpoint.read_f32(info, 1, &mut [0.; 2]));
}

#[test]
fn integers_are_listed_but_not_read_as_floats() {
    let header = r#"{"ids":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}}"#;
    let checkpoint = open(forge::safetensors(header, &[0; 16])).unwrap();
    let info = checkpoint.get("ids").unwrap();
    assert_eq!((&info.dtype, info.elements(), info.bytes()), (&DType::Other("I64".into()), 2, 16));
    let error = checkpoint.read_f32(info, 0, &mut [0.; 2]).unwrap_err();
    assert_eq!(error.to_string(), "`ids`: expected F32, F16, BF16, or I8 with `ids_scale`, found I64");
}

/// A file whose storage fails after it was opened, as a browser's file does when it is changed on disk.
struct Failing(BytesSource, std::cell::Cell<bool>);

impl Source for Failing {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if self.1.replace(true) && offset > 100 {
            return Err(Error::Read { file: self.name().into(), offset, problem: "gone".into() });
        }
        self.0.read_at(offset, buffer)
    }
}

#[test]
fn a_failing_read_is_passed_on() {
    let bytes = one_tensor("wte", &[1.; 100]);
    let source = Failing(BytesSource::new("weights", bytes), false.into());
    let checkpoint = Checkpoint::open(vec![Box::new(source)]).unwrap();
    let info = checkpoint.get("wte").unwrap();
    let error = checkpoint.read_f32(info, 90, &mut [0.; 10]).unwrap_err();
    assert_eq!(error.code(), "read-failed");
    assert!(error.to_string().ends_with(": gone"), "{error}");
}

#[test]
fn names_in_messages_are_short_and_printable() {
    assert_eq!(super::escaped("h.0.attn"), "h.0.attn");
    assert_eq!(super::escaped("a\nb\u{1b}é"), "a\\nb\\u{1b}é");
    assert_eq!(super::escaped(&"x".repeat(1000)), "x".repeat(200) + "...");
}
