//! Everything that people hand in by mistake is refused with a stable code and a message that says what, where, what
//! was expected and what was found; and whatever was refused, the next good model loads and writes.

mod fixture;

use fixture::{GPT2_A, OPT_A, load, source};
use serde_json::{Value, json};
use vitrine::checkpoint::Source;
use vitrine::{Candidate, Error, Files, GenerateOptions, Precision, Result, Sampling, Session};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_dedicated_worker);

/// Panics unless `result` is the error `code` with every one of `words` in its message.
fn assert_refused<T>(result: Result<T>, code: &str, words: &[&str]) {
    let Err(error) = result else { panic!("accepted; expected `{code}`") };
    let message = error.to_string();
    assert_eq!(error.code(), code, "{message}");
    for word in words {
        assert!(message.contains(word), "expected `{word}` in: {message}");
    }
}

/// Loading `files` is refused, and a good model loads and writes afterwards.
fn refuses(files: Files, code: &str, words: &[&str]) {
    assert_refused(load(files), code, words);
    assert_writes(&mut GPT2_A.load());
}

fn assert_writes(session: &mut Session) {
    let expected = GPT2_A.expected().greedy;
    let run = session.generate(&expected.prompt, &greedy()).expect("a fair request");
    let ids: Vec<u32> = run.map(|token| token.expect("a token").id).collect();
    assert_eq!(ids, expected.ids[..4]);
}

fn greedy() -> GenerateOptions {
    GenerateOptions { max_new_tokens: 4, sampling: Sampling::greedy(), ..GenerateOptions::default() }
}

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

// ---- Files that are missing or are something else -------------------------------------------------------------------

#[test]
fn no_config() {
    let files = GPT2_A.with(&[("config.json", None)]);
    refuses(files, "missing-file", &["config.json", "tokenizer.json", "model.safetensors"]);
}

#[test]
fn no_files_at_all() {
    refuses(Files::new(Vec::new()), "missing-file", &["config.json"]);
}

#[test]
fn no_weights() {
    let files = GPT2_A.with(&[("model.safetensors", None)]);
    refuses(files, "missing-file", &["model.safetensors", "pytorch_model.bin", "config.json"]);
}

#[test]
fn no_tokenizer() {
    refuses(
        GPT2_A.with(&[("tokenizer.json", None)]),
        "missing-file",
        &["tokenizer.json", "vocab.json", "merges.txt"],
    );
    refuses(
        OPT_A.with(&[("merges.txt", None)]),
        "missing-file",
        &["tokenizer.json", "vocab.json", "merges.txt"],
    );
}

#[test]
fn a_file_that_is_not_a_model() {
    let strangers: [(&[u8], &str); 7] = [
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 548105171\n", "git-lfs"),
        (b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0", "GGUF"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0", "safetensors"),
        (b"Dear diary, today I made a model.\n", "text"),
        (b"", "empty"),
    ];
    for (bytes, word) in strangers {
        refuses(with_weights(bytes.to_vec()), "bad-file", &["model.safetensors", word]);
    }
}

// ---- config.json ----------------------------------------------------------------------------------------------------

#[test]
fn a_broken_config() {
    for (config, words) in [
        ("{\"model_type\": \"gpt2\", ", ["config.json", "line 1"]),
        ("", ["config.json", "EOF"]),
        ("[]", ["config.json", "expected"]),
        ("{}", ["config.json", "model_type"]),
        ("{\"model_type\": \"gpt2\", \"n_layer\": \"two\"}", ["config.json", "two"]),
        ("{\"model_type\": \"gpt2\", \"n_layer\": -1}", ["config.json", "-1"]),
    ] {
        refuses(GPT2_A.with(&[("config.json", Some(config.into()))]), "bad-config", &words);
    }
    refuses(GPT2_A.with(&[("config.json", Some(vec![0xff, 0xfe, 0]))]), "bad-config", &["config.json"]);
}

#[test]
fn a_config_that_contradicts_itself() {
    for (key, value, words) in [
        ("n_head", json!(4), ["30", "4"]),
        ("n_head", json!(0), ["n_head", "0"]),
        ("n_layer", json!(0), ["n_layer", "0"]),
        ("n_embd", json!(1u64 << 30), ["n_embd", "1073741824"]),
        ("n_embd", json!(1u64 << 40), ["config.json", "1099511627776"]),
        ("n_inner", json!(0), ["n_inner", "0"]),
        ("n_positions", json!(0), ["n_positions", "0"]),
        ("vocab_size", json!(0), ["vocab_size", "0"]),
        ("activation_function", json!("sine"), ["sine", "gelu_new"]),
    ] {
        let files = GPT2_A.with_config(|config| _ = config.insert(key.to_owned(), value));
        refuses(files, "bad-config", &words);
    }
}

#[test]
fn an_unknown_architecture() {
    let files = GPT2_A.with_config(|config| _ = config.insert("model_type".to_owned(), json!("mamba")));
    refuses(files, "unknown-architecture", &["mamba", "gpt2", "opt"]);
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
    refuses(files, "bad-tensor", &["`ln_f.bias`", "f32", "I32"]);
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
    let second = GPT2_A.bytes("model.safetensors").to_vec();
    let files = GPT2_A.with(&[("model-copy.safetensors", Some(second))]);
    refuses(files, "bad-file", &["model-copy.safetensors", "model.safetensors", "h.0."]);
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
    let mut session =
        load(with_weights(safetensors(&header, &data))).expect("nothing looks at the values yet");
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

// ---- Tokenizers -----------------------------------------------------------------------------------------------------

#[test]
fn a_broken_tokenizer_json() {
    for content in ["", "{", "{}", "[1]", "{\"version\": \"1.0\", \"model\": {\"type\": \"Riddle\"}}"] {
        let files = GPT2_A.with(&[("tokenizer.json", Some(content.into()))]);
        refuses(files, "bad-tokenizer", &["tokenizer.json"]);
    }
    let cut = GPT2_A.bytes("tokenizer.json");
    let files = GPT2_A.with(&[("tokenizer.json", Some(cut[..cut.len() / 2].to_vec()))]);
    refuses(files, "bad-tokenizer", &["tokenizer.json"]);
}

#[test]
fn broken_vocab_or_merges() {
    let with = |name, content: &str| OPT_A.with(&[(name, Some(content.into()))]);
    refuses(with("vocab.json", "{\"a\": "), "bad-tokenizer", &["vocab.json"]);
    refuses(with("vocab.json", "{\"a\": -1}"), "bad-tokenizer", &["vocab.json"]);
    refuses(
        with("merges.txt", "#version: 0.2\nĠ t\nlonely\n"),
        "bad-tokenizer",
        &["merges.txt", "line 3", "lonely"],
    );
    refuses(with("merges.txt", "#version: 0.2\nno such\n"), "bad-tokenizer", &["merges.txt", "no"]);
    let files = OPT_A.with(&[("merges.txt", Some(vec![0xff; 9]))]);
    refuses(files, "bad-tokenizer", &["merges.txt", "UTF-8"]);
}

#[test]
fn a_tokenizer_of_another_model() {
    let mut tokenizer: Value =
        serde_json::from_slice(GPT2_A.bytes("tokenizer.json")).expect("tokenizer.json");
    tokenizer["added_tokens"][0]["content"] = json!("<|far|>");
    tokenizer["added_tokens"][0]["id"] = json!(50256);
    tokenizer["model"]["vocab"]["<|far|>"] = json!(50256);
    let files = GPT2_A.with(&[("tokenizer.json", Some(tokenizer.to_string().into()))]);
    refuses(files, "bad-tokenizer", &["50256", "333"]);
}

// ---- Requests -------------------------------------------------------------------------------------------------------

/// `prompt` is refused with these options, and the same session writes afterwards.
fn refuses_request(prompt: &str, options: &GenerateOptions, code: &str, words: &[&str]) {
    let mut session = GPT2_A.load();
    assert_refused(session.generate(prompt, options).map(|_| ()), code, words);
    assert_writes(&mut session);
}

#[test]
fn an_empty_prompt() {
    refuses_request("", &greedy(), "bad-request", &["prompt", "empty"]);
    // OPT puts a token in front, but nothing was asked all the same.
    assert_refused(OPT_A.load().generate("", &greedy()).map(|_| ()), "bad-request", &["prompt", "empty"]);
}

#[test]
fn a_prompt_longer_than_the_context() {
    // "x" is one token of its own here, so that the count is known.
    refuses_request(&"x".repeat(101), &greedy(), "context-exceeded", &["101", "100"]);
    // A full context leaves no room for a new token.
    refuses_request(&"x".repeat(100), &greedy(), "context-exceeded", &["100"]);
    let mut session = GPT2_A.load();
    let run = session.generate(&"x".repeat(99), &greedy()).expect("one token fits");
    assert_eq!(run.count(), 1);
}

#[test]
fn absurd_sampling_values() {
    let usual = Sampling::default;
    let nan = f32::NAN;
    for (sampling, words) in [
        (Sampling { temperature: -0.5, ..usual() }, ["temperature", "-0.5"]),
        (Sampling { temperature: nan, ..usual() }, ["temperature", "NaN"]),
        (Sampling { temperature: f32::INFINITY, ..usual() }, ["temperature", "inf"]),
        (Sampling { top_k: Some(0), ..usual() }, ["top-k", "0"]),
        (Sampling { top_p: Some(0.0), ..usual() }, ["top-p", "0"]),
        (Sampling { top_p: Some(1.5), ..usual() }, ["top-p", "1.5"]),
        (Sampling { top_p: Some(nan), ..usual() }, ["top-p", "NaN"]),
        (Sampling { min_p: Some(-0.1), ..usual() }, ["min-p", "-0.1"]),
        (Sampling { min_p: Some(1.1), ..usual() }, ["min-p", "1.1"]),
        (Sampling { repetition_penalty: 0.0, ..usual() }, ["repetition penalty", "0"]),
        (Sampling { repetition_penalty: nan, ..usual() }, ["repetition penalty", "NaN"]),
    ] {
        let options = GenerateOptions { sampling, ..greedy() };
        refuses_request("The", &options, "bad-request", &words);
    }
    refuses_request(
        "The",
        &GenerateOptions { max_new_tokens: 0, ..greedy() },
        "bad-request",
        &["max new tokens", "0"],
    );
    let stop = vec!["\n".to_owned(), String::new()];
    refuses_request("The", &GenerateOptions { stop, ..greedy() }, "bad-request", &["stop string", "empty"]);
}

#[test]
fn a_text_that_cannot_be_scored() {
    let mut session = GPT2_A.load();
    assert_refused(session.score(""), "bad-request", &["two tokens"]);
    assert_refused(session.score("x"), "bad-request", &["two tokens"]);
    assert_refused(session.score(&"x".repeat(101)), "context-exceeded", &["101", "100"]);
    assert_writes(&mut session);
}

#[test]
fn ids_beyond_the_vocabulary() {
    let mut session = GPT2_A.load();
    assert_refused(session.trace(&[1, 333], 2, &mut |_, _| {}), "bad-request", &["333"]);
    assert_refused(session.trace(&[1; 101], 64, &mut |_, _| {}), "context-exceeded", &["101", "100"]);
    assert_writes(&mut session);
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

/// What loads can be planned before: the figures of the plan are those of the loaded model.
#[test]
fn a_plan_says_what_a_load_takes() {
    let candidate = Candidate::open(GPT2_A.with(&[])).expect("a good model");
    let plan = candidate.plan(Precision::F32).expect("it fits");
    let (mut last, mut total) = (0, 0);
    let session = candidate
        .load(Precision::F32, &mut |done, of| {
            assert!(done >= last && done <= of, "progress went from {last} to {done} of {of}");
            (last, total) = (done, of);
        })
        .expect("a good model");
    assert_eq!((last, total), (plan.read_bytes, plan.read_bytes), "every byte planned was read");
    assert_eq!(session.info().bytes.weights, plan.bytes.weights);
    assert_eq!(session.info().parameters, plan.parameters);
}
