//! Everything that people hand in by mistake is refused with a stable code and a message that says what, where, what
//! was expected and what was found; and whatever was refused, the next good model loads and writes.

mod fixture;
#[path = "bad_input/weights.rs"]
mod weights;

use fixture::{GPT2_A, OPT_A, load};
use serde_json::{Value, json};
use vitrine::{Candidate, Files, GenerateOptions, Precision, Result, Sampling, Session};
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
        let files = GPT2_A.with(&[("model.safetensors", Some(bytes.to_vec()))]);
        refuses(files, "bad-file", &["model.safetensors", word]);
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

#[test]
fn a_beginning_of_text_beyond_the_vocabulary() {
    for bos in [4_000_000_000_u32, u32::MAX] {
        let mut config: Value = serde_json::from_slice(OPT_A.bytes("config.json")).expect("config.json");
        config["bos_token_id"] = json!(bos);
        let files = OPT_A.with(&[("config.json", Some(config.to_string().into()))]);
        refuses(files, "bad-config", &["bos_token_id", &bos.to_string()]);
    }
}

#[test]
fn a_tokenizer_whose_template_adds_an_id_beyond_the_vocabulary() {
    let mut tokenizer: Value =
        serde_json::from_slice(GPT2_A.bytes("tokenizer.json")).expect("tokenizer.json");
    tokenizer["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{ "SpecialToken": { "id": "<far>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
        "special_tokens": { "<far>": { "id": "<far>", "ids": [4_000_000_000_u32], "tokens": ["<far>"] } }
    });
    let files = GPT2_A.with(&[("tokenizer.json", Some(tokenizer.to_string().into()))]);
    let candidate = Candidate::open(files).expect("its own ids are in range");
    let mut session = candidate.load(Precision::F32, &mut |_, _| {}).expect("a session");
    let words = ["4000000000", "333"];
    assert_refused(session.generate("the", &greedy()).map(|_| ()), "bad-tokenizer", &words);
    assert_refused(session.score("the end of it").map(|_| ()), "bad-tokenizer", &words);
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
