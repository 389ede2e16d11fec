//! The safetensors reader: what it reads, and each of its refusals.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::forge::{open, refused, safetensors};
use super::{floats, read};
use crate::checkpoint::DType;

#[test]
fn every_float_is_read_and_the_rest_is_listed() {
    let header = r#"{"__metadata__":{"format":"pt"},
        "b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]},
        "e":{"dtype":"F32","shape":[3,0],"data_offsets":[8,8]},
        "h":{"dtype":"F16","shape":[2],"data_offsets":[12,16]},
        "f":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
        "s":{"shape":[],"data_offsets":[16,20],"dtype":"F32"},
        "n":{"dtype":"F4","shape":[3],"data_offsets":[20,22]},
        "z":{"dtype":"Z7","shape":[3],"data_offsets":[22,23]}}   "#;
    let mut data = floats(&[1.5, -2.0]);
    data.extend_from_slice(&[0xc0, 0x3f, 0x00, 0xc0]); // 1.5 and -2 as bf16
    data.extend_from_slice(&[0x00, 0x3e, 0x00, 0xc0]); // 1.5 and -2 as f16
    data.extend_from_slice(&floats(&[0.25]));
    data.extend_from_slice(&[0; 3]);

    let checkpoint = open(safetensors(header, &data)).unwrap();
    assert_eq!(checkpoint.names().collect::<String>(), "befhnsz");
    for name in ["f", "b", "h"] {
        assert_eq!(read(&checkpoint, name), [1.5, -2.0], "{name}");
    }
    assert_eq!(read(&checkpoint, "s"), [0.25]);
    assert!(read(&checkpoint, "e").is_empty());
    let info = checkpoint.get("b").unwrap();
    assert_eq!(
        (&info.dtype, &info.shape[..], info.elements(), info.bytes()),
        (&DType::BF16, &[1, 2][..], 2, 4)
    );
    assert_eq!(checkpoint.get("z").unwrap().dtype, DType::Other("Z7".into()));
    assert_eq!(checkpoint.bytes(), 23);
}

#[test]
fn a_file_without_tensors_is_a_checkpoint_without_tensors() {
    assert_eq!(open(safetensors("{}", b"")).unwrap().names().len(), 0);
}

#[test]
fn a_wrong_header_is_refused() {
    let mut longer = safetensors(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, b"x");
    longer[0] += 2;
    refused(longer, "the header says that it is 55 bytes long, but only 54 follow: the file is truncated");

    let mut absurd = safetensors("{}", b"");
    absurd[..8].copy_from_slice(&[0xff; 8]);
    refused(absurd, "18446744073709551615 bytes long, but only 2 follow");

    let mut not_text = safetensors(r#"{"ab":1}"#, b"");
    not_text[10] = 0xff;
    refused(not_text, "not UTF-8 at its byte 2");

    for (header, expected) in [
        ("{]", "the header is not valid: key must be a string at line 1 column 2"),
        ("{", "the header is not valid: EOF"),
        ("{}{}", "trailing characters"),
        (r#"{"a":3}"#, "tensor `a`: invalid type: integer"),
        (r#"{"a":{"dtype":"F32","shape":[1]}}"#, "tensor `a`: missing field `data_offsets`"),
        (
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
            "tensor `a`: invalid value: integer `-1`",
        ),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}"#, "tensor `a`: invalid length 1"),
    ] {
        refused(safetensors(header, b""), expected);
    }
    let nested = format!(r#"{{"__metadata__":{}"#, "[".repeat(200_000));
    refused(safetensors(&nested, b""), "the header is not valid");
}

#[test]
fn a_header_beyond_the_limit_is_refused_before_it_is_read() {
    let length = 100_000_001u64;
    let mut head = length.to_le_bytes().to_vec();
    head.push(b'{');
    let source = super::forge::SparseSource { segments: vec![(0, head)], length: 1 << 40 };
    let error = crate::checkpoint::Checkpoint::open(vec![Box::new(source)]).err().unwrap();
    assert!(error.to_string().contains("100000001 bytes long; expected at most 100000000"), "{error}");
}

#[test]
fn wrong_offsets_are_refused() {
    let tensor = |name: &str, shape: &str, start: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let most = u64::MAX;
    for (tensors, expected) in [
        (vec![tensor("a", "[2]", 0, 8)], "the last 8 bytes of the file belong to no tensor"),
        (vec![tensor("a", "[4]", 0, 16), tensor("b", "[1]", 12, 16)], "the tensors `a` and `b` overlap"),
        (vec![tensor("a", "[4]", 0, 16), tensor("b", "[4]", 0, 16)], "the tensors `a` and `b` overlap"),
        (
            vec![tensor("a", "[1]", 0, 4), tensor("b", "[2]", 8, 16)],
            "4 bytes before the tensor `b` belong to no",
        ),
        (vec![tensor("a", "[3]", 4, 16)], "4 bytes before the tensor `a` belong to no"),
        (vec![tensor("a", "[5]", 0, 20)], "`a` ends at byte 20 of the data, but the file holds 16 bytes"),
        (vec![tensor("a", "[1]", most - 4, most)], "`a` ends at byte 18446744073709551615 of the data"),
        (vec![tensor("a", "[1]", 8, 4)], "`a` has offsets [8, 4], which run backwards"),
        (vec![tensor("a", "[2,3]", 0, 16)], "`a` is F32 [2, 3]: expected 24 bytes, found 16"),
        (vec![tensor("a", "[4294967295,4294967295]", 0, 16)], "expected more than any file, found 16"),
        (vec![tensor("a", "[4294967296,4294967296]", 0, 16)], "`a` has more elements than this machine"),
        (vec![tensor("a", "[4294967296,4294967296,0]", 0, 0)], "`a` has more elements than this machine"),
        (vec![tensor("a", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4]", 0, 16)], "`a` has 17 dimensions"),
        (vec![tensor("a", "[4]", 0, 16), tensor("a", "[0]", 0, 0)], "the tensor `a` appears twice"),
    ] {
        refused(safetensors(&format!("{{{}}}", tensors.join(",")), &[0; 16]), expected);
    }
}

#[test]
fn every_truncation_is_refused() {
    let file = super::one_tensor("wte", &[1.0; 4]);
    for length in 0..file.len() {
        assert!(
            open(file[..length].to_vec()).is_err(),
            "opened when cut to {length} of {} bytes",
            file.len()
        );
    }
    refused(file[..file.len() - 1].to_vec(), "truncated");
}
