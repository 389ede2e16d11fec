//! Weight files that are damaged, hold something else than `config.json` implies, or are too big.

use super::fixture::{GPT2_A, OPT_A, load, source};
use super::{assert_refused, assert_writes, greedy, refuses};
use serde_json::{Value, json};
use vitrine::checkpoint::Source;
#[cfg(target_arch = "wasm32")]
use vitrine::{Candidate, Precision};
use vitrine::{Error, Files, Result};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// GPT-2's files with another `model.safetensors`.
fn with_weights(bytes: Vec<u8>) -> Files {
    GPT2_A.with(&[("model.safetensors", Some(bytes))])
}

/// GPT-2's `model.safetensors` with `change` made to its header. The data stays as it is.
fn with_header(change: impl FnOnce(&mut Value)) -> Files {
    let (mut header, data) = header_and_data();
    change(&mut header);
    with_weights(safetensors(&header, &data))
}

fn header_and_data() -> (Value, Vec<u8>) {
    let bytes = GPT2_A.bytes("model.safetensors");
    let (length, rest) = bytes.split_first_chunk().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    (serde_json::from_slice(header).expect("a header"), data.to_vec())
}

fn safetensors(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

// ---- Tensors that are not what config.json implies ------------------------------------------------------------------

#[test]
fn missing_tensors() {
    for name in ["wte.weight", "wpe.weight", "h.1.attn.c_attn.weight", "h.0.ln_2.bias", "ln_f.weight"] {
        // Its bytes stay, under another name: a file with bytes that belong to no tensor is refused as damaged.
        let files = with_header(|header| {
            let header = header.as_object_mut().expect("an object");
            let tensor = header.remove(name).expect("a tensor");
            header.insert(format!("{name}.old"), tensor);
        });
        refuses(files, "missing-tensor", &[&format!("{name}`"), "["]);
    }
    let files = GPT2_A.with_config(|config| _ = config.insert("n_layer".to_owned(), json!(3)));
    refuses(files, "missing-tensor", &["h.2."]);
}

#[test]
fn a_wrong_shape() {
    // A `torch.nn.Linear` where GPT-2 has a Conv1D.
    let files = with_header(|header| header["h.1.attn.c_attn.weight"]["shape"] = json!([90, 30]));
    refuses(files, "bad-tensor", &["`h.1.attn.c_attn.weight`", "expected [30, 90]", "found [90, 30]"]);
    let files = GPT2_A.with_config(|config| _ = config.insert("n_positions".to_owned(), json!(99)));
    refuses(files, "bad-tensor", &["`wpe.weight`", "[99, 30]", "[100, 30]"]);
}

#[test]
fn a_wrong_dtype() {
    let files = with_header(|header| header["ln_f.bias"]["dtype"] = json!("I32"));
    refuses(files, "bad-tensor", &["`ln_f.bias`", "F32", "I32"]);
}

#[test]
fn integers_without_their_scales() {
    // The first 30 of its 120 bytes; the rest are a tensor that nobody asks for.
    let change = |scales: &'static str| {
        with_header(move |header| {
            let start = header["ln_f.bias"]["data_offsets"][0].as_u64().expect("an offset");
            let tensor = |dtype, shape, from, to| json!({ "dtype": dtype, "shape": [shape], "data_offsets": [start + from, start + to] });
            header["ln_f.bias"] = tensor("I8", 30, 0, 30);
            header[scales] = tensor("BF16", 45, 30, 120);
        })
    };
    refuses(change("ln_f.scales"), "bad-tensor", &["`ln_f.bias`", "`ln_f.bias_scale`", "I8"]);
    refuses(change("ln_f.bias_scale"), "bad-tensor", &["`ln_f.bias_scale`", "expected", "[1]", "found [45]"]);
}

// ---- Weight files that are damaged ----------------------------------------------------------------------------------

#[test]
fn a_truncated_safetensors_file() {
    let bytes = GPT2_A.bytes("model.safetensors");
    for length in [5, 8, 9, 100, bytes.len() / 2] {
        refuses(with_weights(bytes[..length].to_vec()), "bad-file", &["model.safetensors"]);
    }
    let n_data = header_and_data().1.len();
    let (expected, found) = (n_data.to_string(), (n_data - 1).to_string());
    let cut = bytes[..bytes.len() - 1].to_vec();
    refuses(with_weights(cut), "bad-file", &["model.safetensors", "truncated", &expected, &found]);
}

#[test]
fn a_truncated_pickle() {
    let bytes = OPT_A.bytes("pytorch_model.bin");
    for length in [4, 100, bytes.len() / 2, bytes.len() - 1] {
        let files = OPT_A.with(&[("pytorch_model.bin", Some(bytes[..length].to_vec()))]);
        refuses(files, "bad-file", &["pytorch_model.bin"]);
    }
}

#[test]
fn a_header_longer_than_the_file() {
    let (header, data) = header_and_data();
    let mut bytes = safetensors(&header, &data);
    let too_long = bytes.len() as u64 + 1;
    bytes[..8].copy_from_slice(&too_long.to_le_bytes());
    refuses(with_weights(bytes.clone()), "bad-file", &["model.safetensors", &too_long.to_string()]);
    bytes[..8].copy_from_slice(&(u64::MAX - 7).to_le_bytes());
    refuses(with_weights(bytes), "bad-file", &["model.safetensors"]);
}

#[test]
fn a_header_that_is_not_json() {
    let (header, data) = header_and_data();
    let mut bytes = safetensors(&header, &data);
    bytes[20] = b'\\';
    refuses(with_weights(bytes), "bad-file", &["model.safetensors"]);
}

#[test]
fn offsets_out_of_range() {
    let (_, data) = header_and_data();
    let [start, end] = [data.len(), data.len() + 120];
    let files = with_header(|header| header["ln_f.bias"]["data_offsets"] = json!([start, end]));
    refuses(files, "bad-file", &["model.safetensors", "ln_f.bias"]);
    let files = with_header(|header| header["ln_f.bias"]["data_offsets"] = json!([u64::MAX - 119, u64::MAX]));
    refuses(files, "bad-file", &["model.safetensors", "ln_f.bias"]);
    let files = with_header(|header| header["ln_f.bias"]["data_offsets"] = json!([120, 0]));
    refuses(files, "bad-file", &["model.safetensors", "ln_f.bias"]);
    let files = with_header(|header| header["ln_f.bias"]["data_offsets"] = json!([-120, 0]));
    refuses(files, "bad-file", &["model.safetensors"]);
}

#[test]
fn overlapping_offsets() {
    let files = with_header(|header| {
        header["ln_f.bias"]["data_offsets"] = header["ln_f.weight"]["data_offsets"].clone()
    });
    refuses(files, "bad-file", &["model.safetensors", "ln_f."]);
}

#[test]
fn a_size_that_is_not_the_shape_times_the_dtype() {
    let files = with_header(|header| header["ln_f.bias"]["shape"] = json!([31]));
    refuses(files, "bad-file", &["model.safetensors", "ln_f.bias", "124", "120"]);
    let files = with_header(|header| header["ln_f.bias"]["shape"] = json!([u64::MAX, u64::MAX]));
    refuses(files, "bad-file", &["model.safetensors", "ln_f.bias"]);
}

#[test]
fn a_tensor_in_two_files() {
    let whole = || Some(GPT2_A.bytes("model.safetensors").to_vec());
    let [first, second] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let files = GPT2_A.with(&[("model.safetensors", None), (first, whole()), (second, whole())]);
    refuses(files, "bad-file", &[first, second, "h.0."]);
}

#[test]
fn a_pickle_that_names_a_function() {
    // As long as the name that it replaces, so that no length in the archive changes.
    let (rebuild, function) =
        (&b"torch._utils\n_rebuild_tensor_v2\n"[..], &b"distutils.spawn\nfind_executable\n"[..]);
    let mut bytes = OPT_A.bytes("pytorch_model.bin").to_vec();
    let start =
        bytes.windows(rebuild.len()).position(|window| window == rebuild).expect("a pickle of tensors");
    bytes[start..start + rebuild.len()].copy_from_slice(function);
    let files = OPT_A.with(&[("pytorch_model.bin", Some(bytes))]);
    refuses(files, "bad-file", &["pytorch_model.bin", "distutils.spawn.find_executable"]);
}

#[test]
fn weights_that_are_not_numbers() {
    let (header, mut data) = header_and_data();
    let start = header["ln_f.weight"]["data_offsets"][0].as_u64().expect("an offset") as usize;
    data[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    refuses(
        with_weights(safetensors(&header, &data)),
        "bad-tensor",
        &["ln_f.weight", "finite", "NaN at element 0"],
    );
}

/// Numbers that are fine one by one, and beyond f32 together.
#[test]
fn weights_whose_scores_are_not_numbers() {
    let (header, mut data) = header_and_data();
    let start = header["ln_f.weight"]["data_offsets"][0].as_u64().expect("an offset") as usize;
    for value in data[start..start + 64].chunks_exact_mut(4) {
        value.copy_from_slice(&3e38f32.to_le_bytes());
    }
    let mut session = load(with_weights(safetensors(&header, &data))).expect("every weight is a number");
    let first = session.generate("The", &greedy()).expect("a fair request").next().expect("an answer");
    assert_refused(first, "bad-file", &["not numbers"]);
    assert_writes(&mut GPT2_A.load());
}

/// A file whose bytes cannot be had from some offset on, as when a disk is pulled out or a file changes.
struct Failing {
    inner: Box<dyn Source>,
    from: u64,
}

impl Source for Failing {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset + buffer.len() as u64 <= self.from {
            return self.inner.read_at(offset, buffer);
        }
        let problem = "the file could not be read any more".to_owned();
        Err(Error::Read { file: self.name().to_owned(), offset, problem })
    }
}

#[test]
fn a_file_that_cannot_be_read_to_its_end() {
    let bytes = GPT2_A.bytes("model.safetensors");
    for from in [0, 8, bytes.len() as u64 / 2] {
        let weights = Failing { inner: source("model.safetensors", bytes), from };
        let others = ["config.json", "tokenizer.json"].map(|name| source(name, GPT2_A.bytes(name)));
        let files = Files::new(others.into_iter().chain([Box::new(weights) as Box<dyn Source>]).collect());
        refuses(files, "read-failed", &["model.safetensors", "at byte", "could not be read any more"]);
    }
}

// ---- Memory ---------------------------------------------------------------------------------------------------------

/// A file of any length that holds a header and then nothing but zeros.
#[cfg(target_arch = "wasm32")]
struct Sparse {
    start: Vec<u8>,
    length: u64,
}

#[cfg(target_arch = "wasm32")]
impl Source for Sparse {
    fn name(&self) -> &str {
        "model.safetensors"
    }

    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let start = self.start.get(offset as usize..).unwrap_or_default();
        let n_given = start.len().min(buffer.len());
        buffer[..n_given].copy_from_slice(&start[..n_given]);
        buffer[n_given..].fill(0);
        Ok(())
    }
}

/// Said from the headers alone, with the figures. Only a wasm memory has a size that is known beforehand.
#[test]
#[cfg(target_arch = "wasm32")]
fn a_model_too_big_for_memory() {
    const HIDDEN: u64 = 8190;
    let (header, _) = header_and_data();
    let (mut big, mut end) = (serde_json::Map::new(), 0u64);
    for (name, tensor) in header.as_object().expect("an object") {
        if name == "__metadata__" || name.ends_with(".attn.bias") {
            continue;
        }
        let extent = |extent: &Value| match extent.as_u64().expect("an extent") {
            width @ (30 | 90 | 120) => width / 30 * HIDDEN,
            other => other,
        };
        let shape: Vec<u64> = tensor["shape"].as_array().expect("a shape").iter().map(extent).collect();
        let start = end;
        end += 4 * shape.iter().product::<u64>();
        big.insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] }));
    }
    let start = safetensors(&Value::Object(big), &[]);
    let weights = Sparse { length: start.len() as u64 + end, start };
    let mut files: Vec<Box<dyn Source>> =
        vec![Box::new(weights), source("tokenizer.json", GPT2_A.bytes("tokenizer.json"))];
    let mut config: Value = serde_json::from_slice(GPT2_A.bytes("config.json")).expect("config.json");
    config["n_embd"] = json!(HIDDEN);
    files.push(source("config.json", config.to_string().into_bytes()));
    let candidate = Candidate::open(Files::new(files)).expect("the headers are in order");
    assert_refused(candidate.plan(Precision::F32), "out-of-memory", &["6.4", "GB", "f32"]);
    assert_refused(candidate.load(Precision::F32, &mut |_, _| {}), "out-of-memory", &["GB"]);
    assert_writes(&mut GPT2_A.load());
}
