//! Integers with scales: what they are worth, and each refusal.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::forge::{open, safetensors};
use super::{STRIP, floats, read, two_files};
use crate::checkpoint::{Checkpoint, DType};

/// A tensor of a forged file: name, dtype, shape, bytes.
type Forged<'a> = (&'a str, &'a str, &'a [usize], &'a [u8]);

fn file(tensors: &[Forged<'_>]) -> Vec<u8> {
    let (mut header, mut data) = (Vec::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        let end = data.len();
        header.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
    }
    safetensors(&format!("{{{}}}", header.join(",")), &data)
}

fn integer(element: usize) -> i8 {
    (element * 37 % 255) as u8 as i8
}

fn integers(n: usize) -> Vec<u8> {
    (0..n).map(|element| integer(element) as u8).collect()
}

/// Powers of two, negative ones and zero: products with them are exact, and f16 and bf16 hold them.
fn scale(index: usize) -> f32 {
    [0.5, -2.0, 0.25, 0.0, 4.0, -0.125, 1.0][index % 7]
}

fn scales(n: usize) -> Vec<f32> {
    (0..n).map(scale).collect()
}

/// The tensor `w` of this shape, with `w_scale` of that one.
pub(super) fn scaled_file(shape: &[usize], scale_shape: &[usize]) -> Vec<u8> {
    let [n, n_scales] = [shape, scale_shape].map(|shape| shape.iter().product());
    let (integers, scales) = (integers(n), floats(&scales(n_scales)));
    file(&[("w", "I8", shape, &integers), ("w_scale", "F32", scale_shape, &scales)])
}

fn checkpoint(shape: &[usize], scale_shape: &[usize]) -> Checkpoint {
    open(scaled_file(shape, scale_shape)).unwrap()
}

#[test]
fn neighbours_along_the_shorter_axis_share_a_scale() {
    // For each shape of scales the scale of element `i`.
    type Case<'a> = (&'a [usize], &'a [usize], &'a dyn Fn(usize) -> usize);
    let cases: [Case<'_>; 10] = [
        (&[3, 64], &[3, 2], &|i| i / 32),
        (&[3, 70], &[3, 3], &|i| i / 70 * 3 + i % 70 / 32),
        (&[64, 5], &[2, 5], &|i| i / 160 * 5 + i % 5),
        (&[70, 5], &[3, 5], &|i| i / 160 * 5 + i % 5),
        (&[40], &[2], &|i| i / 32),
        (&[2, 33, 3], &[2, 2, 3], &|i| i / 99 * 6 + i % 99 / 96 * 3 + i % 3),
        (&[1, 9], &[1, 9], &|i| i), // a block of one row
        (&[9, 1], &[9, 1], &|i| i),
        (&[1, 1], &[1, 1], &|i| i),
        (&[0, 7], &[0, 1], &|i| i),
    ];
    for (shape, scale_shape, scale_of) in cases {
        let checkpoint = checkpoint(shape, scale_shape);
        let n = shape.iter().product();
        let expected: Vec<f32> = (0..n).map(|i| f32::from(integer(i)) * scale(scale_of(i))).collect();
        assert_eq!(read(&checkpoint, "w"), expected, "{shape:?} by {scale_shape:?}");
        let tensor = checkpoint.get("w").unwrap();
        for start in 0..n {
            for end in [start, start + 1, (start + 33).min(n), n] {
                let mut out = vec![f32::NAN; end - start];
                checkpoint.read_f32(tensor, start as u64, &mut out).unwrap();
                assert_eq!(out, expected[start..end], "{start}..{end} of {shape:?} by {scale_shape:?}");
            }
        }
    }
}

#[test]
fn scales_are_read_over_strips() {
    let width = 1000;
    let height = STRIP / width + 100;
    for (scale_shape, by_row) in [([height, 32], true), ([height.div_ceil(32), width], false)] {
        let checkpoint = checkpoint(&[height, width], &scale_shape);
        let scale_of = |i: usize| match by_row {
            true => i / width * 32 + i % width / 32,
            false => i / width / 32 * width + i % width,
        };
        let found = read(&checkpoint, "w");
        let wrong = (0..found.len()).find(|&i| found[i] != f32::from(integer(i)) * scale(scale_of(i)));
        assert_eq!((found.len(), wrong), (height * width, None));
    }
}

#[test]
fn scales_of_every_float_are_part_of_their_tensor() {
    let values = scales(6);
    let f16: Vec<u8> = values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
    let bf16: Vec<u8> = values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
    let expected = read(&checkpoint(&[3, 64], &[3, 2]), "w");
    for (dtype, scales) in [("F32", floats(&values)), ("F16", f16), ("BF16", bf16)] {
        // In a file of their own, as in a checkpoint of several shards.
        let (weights, scale_file) = (
            file(&[("w", "I8", &[3, 64], &integers(192))]),
            file(&[("w_scale", dtype, &[3, 2], &scales), ("w_scale_of_something", "F32", &[], &[0; 4])]),
        );
        let checkpoint = two_files(weights, scale_file).unwrap();
        assert_eq!(read(&checkpoint, "w"), expected, "{dtype}");
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w", "w_scale_of_something"]);
        let tensor = checkpoint.get("w").unwrap();
        assert!(matches!(tensor.dtype, DType::I8(_)) && tensor.dtype.to_string() == "I8");
        assert_eq!((tensor.elements(), tensor.bytes()), (192, 192 + scales.len() as u64));
        let parts: Vec<u64> = [0, 64, 100, 192].map(|n| tensor.bytes_of_first(n)).to_vec();
        assert_eq!([parts[0], parts[3]], [0, tensor.bytes()]);
        assert!(parts[1] == tensor.bytes() / 3 && parts.is_sorted(), "{parts:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (integers, zeros) = (integers(30 * 90), [0; 4 * 2700]);
    let with = |others: &[Forged<'_>]| {
        let tensors = [&[("w", "I8", &[30, 90][..], &integers[..])], others].concat();
        open(file(&tensors)).err().map(|error| (error.code(), error.to_string()))
    };
    let refused = |others: &[Forged<'_>], expected: &str| {
        let (code, text) = with(others).expect(expected);
        assert_eq!((code, text.as_str()), ("bad-tensor", expected));
    };
    for (shape, found) in [
        (&[30, 90][..], "[30, 90]"),
        (&[30, 2], "[30, 2]"),
        (&[3, 30], "[3, 30]"),
        (&[30], "[30]"),
        (&[30, 3, 1], "[30, 3, 1]"),
        (&[1], "[1]"),
        (&[], "[]"),
        (&[1, 3], "[1, 3]"),
    ] {
        let n: usize = shape.iter().product();
        let expected =
            "`w_scale`: expected a scale for 32 neighbours of [30, 90]: [1, 90] or [30, 3], found ";
        refused(&[("w_scale", "F32", shape, &zeros[..4 * n])], &format!("{expected}{found}"));
    }
    for dtype in ["I8", "F8_E4M3", "U8"] {
        refused(
            &[("w_scale", dtype, &[30, 3], &zeros[..90])],
            &format!("`w_scale`: expected F32, F16 or BF16, found {dtype}"),
        );
    }
    let scales = ("w_scale", "F16", &[1, 90][..], &zeros[..180]);
    for (name, bytes) in [("w_zero_point", 90), ("w_g_idx", 90)] {
        refused(
            &[scales, (name, "I8", &[1, 90], &zeros[..bytes])],
            &format!("`w`: expected 8 bits with scales alone, found `{name}`"),
        );
    }
    assert_eq!(with(&[scales]), None);
}

#[test]
fn integers_alone_and_scales_alone_are_tensors_like_others() {
    let checkpoint = open(file(&[
        ("a", "I8", &[2], &[1, 2]),
        ("b", "U8", &[2], &[1, 2]),
        ("b_scale", "F32", &[1], &[0; 4]),
    ]))
    .unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "b_scale"]);
    let error = checkpoint.read_f32(checkpoint.get("a").unwrap(), 0, &mut [0.; 2]).unwrap_err();
    assert_eq!(error.to_string(), "`a`: expected F32, F16, BF16, or I8 with `a_scale`, found I8");
}

#[test]
fn scales_that_are_no_numbers_are_refused() {
    for value in [f32::NAN, f32::INFINITY] {
        let scales = floats(&[1.0, 1.0, value]);
        let checkpoint =
            open(file(&[("w", "I8", &[3, 32], &[0; 96]), ("w_scale", "F32", &[3, 1], &scales)])).unwrap();
        let tensor = checkpoint.get("w").unwrap();
        checkpoint.read_f32(tensor, 0, &mut [0.; 64]).unwrap();
        let error = checkpoint.read_f32(tensor, 32, &mut [0.; 64]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`w_scale`: expected finite numbers, found {value} at element 2")
        );
    }
}
