//! Checkpoints whose matrices are integers with scales, as the site ships its models.

use super::{bits, loading, rows};
use crate::fixture::{Fixture, GPT2_A};
use serde_json::{Map, Value, json};
use vitrine::checkpoint::{BytesSource, Checkpoint, TensorInfo};
use vitrine::{Candidate, Files, Precision, Session};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Loads `files` as planned.
fn load(files: Files, precision: Precision) -> Session {
    let candidate = Candidate::open(files).expect("a candidate");
    let plan = candidate.plan(precision).expect("it fits");
    let mut read = (0, 0);
    let session = candidate.load(precision, &mut |done, of| read = (done, of)).expect("a session");
    assert_eq!(read, (plan.read_bytes, plan.read_bytes), "every byte planned was read");
    assert_eq!(session.info().bytes.weights, plan.bytes.weights);
    session
}

fn logits(session: &mut Session, ids: &[u32]) -> Vec<Vec<u32>> {
    bits(&rows(&session.trace(ids, ids.len(), &mut |_, _| {}).expect("the input fits")))
}

/// The fixture with these weights alone.
fn with_weights(fixture: &Fixture, weights: Vec<u8>) -> Files {
    fixture.with(&[("model.safetensors", Some(weights)), ("pytorch_model.bin", None)])
}

/// The weights of a fixture, whatever their format.
fn weights(fixture: &Fixture) -> Checkpoint {
    let is_weights = |name: &str| name.ends_with(".safetensors") || name.ends_with(".bin");
    let (name, bytes) = fixture.files.iter().find(|(name, _)| is_weights(name)).expect("weights");
    Checkpoint::open(vec![Box::new(BytesSource::new(*name, *bytes))]).expect("a checkpoint")
}

fn values(checkpoint: &Checkpoint, tensor: &TensorInfo) -> Vec<f32> {
    let mut values = vec![0.0; tensor.elements() as usize];
    checkpoint.read_f32(tensor, 0, &mut values).expect("floats");
    values
}

/// A safetensors file in the making.
#[derive(Default)]
struct Forged {
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl Forged {
    fn add(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: impl IntoIterator<Item = u8>) {
        let start = self.data.len();
        self.data.extend(bytes);
        let offsets = [start, self.data.len()];
        self.header
            .insert(name.to_owned(), json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
    }

    fn add_f32(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        self.add(name, "F32", shape, values.iter().flat_map(|value| value.to_le_bytes()));
    }

    fn finish(self) -> Vec<u8> {
        let header = Value::Object(self.header).to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &self.data].concat()
    }
}

/// Not the matrices alone: the position table, the norms and the biases too.
#[test]
fn integers_with_scales_are_the_floats_that_they_are_worth() {
    let (mut integers, mut floats) = (Forged::default(), Forged::default());
    let source = weights(&GPT2_A);
    for tensor in source.tensors() {
        let (name, shape) = (&tensor.name, &tensor.shape[..]);
        if shape.len() > 2 {
            continue; // a mask
        }
        let conv1d = name.contains(".c_") && shape.len() == 2;
        let axis = if conv1d { 0 } else { shape.len() - 1 }; // that of the inputs
        let (extent, stride) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        let mut scale_shape = shape.to_vec();
        scale_shape[axis] = extent.div_ceil(32);
        let scales: Vec<f32> =
            (0..scale_shape.iter().product()).map(|i| (1 + i % 5) as f32 / 256.0).collect();
        let scale_of = |i: usize| {
            let (line, column) = (i / stride, i % stride);
            scales[(line / extent * scale_shape[axis] + line % extent / 32) * stride + column]
        };
        let values = values(&source, tensor).into_iter().enumerate();
        let rounded: Vec<i8> = values.map(|(i, value)| (value / scale_of(i)).round() as i8).collect();
        let worth: Vec<f32> = rounded.iter().enumerate().map(|(i, &x)| f32::from(x) * scale_of(i)).collect();
        integers.add(name, "I8", shape, rounded.iter().map(|&integer| integer as u8));
        integers.add_f32(&format!("{name}_scale"), &scale_shape, &scales);
        floats.add_f32(name, shape, &worth);
    }
    let (integers, floats) = (integers.finish(), floats.finish());
    let ids = GPT2_A.expected().long.ids;
    for precision in Precision::ALL {
        let mut of_integers = load(with_weights(&GPT2_A, integers.clone()), precision);
        let mut of_floats = load(with_weights(&GPT2_A, floats.clone()), precision);
        assert!(logits(&mut of_integers, &ids) == logits(&mut of_floats, &ids), "{precision:?}");
        assert_eq!(of_integers.info(), of_floats.info());
        assert_eq!(of_integers.info().ignored, [""; 0]);
        // Their scales, too, are waited for.
        let [config, tokenizer] = ["config.json", "tokenizer.json"].map(|name| (name, GPT2_A.bytes(name)));
        let files = [config, tokenizer, ("model.safetensors", &integers)];
        let (mut late, _) = loading::load(&files, precision);
        assert!(logits(&mut late, &ids) == logits(&mut of_floats, &ids), "{precision:?}, late");
    }
}

/// What the site makes of models, which takes its builder.
#[cfg(not(target_arch = "wasm32"))]
mod made_by_the_site {
    use super::*;
    use crate::fixture::{GPT2_B, OPT_A, OPT_B};
    use crate::quality::{Quality, compare};
    use crate::{fixture, greedy, run};
    use std::path::{Path, PathBuf};
    use vitrine::checkpoint::DType;

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

    const FIXTURES: [&Fixture; 4] = [&GPT2_A, &GPT2_B, &OPT_A, &OPT_B];

    fn json(path: impl AsRef<Path>) -> Value {
        let path = Path::new(ROOT).join(path);
        let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The folders of the built-in models.
    fn models() -> Vec<PathBuf> {
        let folders = std::fs::read_dir(Path::new(ROOT).join("www/models")).expect("models");
        let mut folders: Vec<_> = folders.map(|entry| entry.expect("an entry").path()).collect();
        folders.retain(|folder| folder.join("config.json").is_file());
        assert!(!folders.is_empty());
        folders
    }

    fn name(folder: &Path) -> &str {
        folder.file_name().and_then(|name| name.to_str()).expect("a name")
    }

    /// A built-in model as the repository has it.
    fn source(folder: &Path) -> Files {
        Files::from_directory(folder).expect("a folder")
    }

    fn convert(config: &[u8], weights: &[u8]) -> Vec<u8> {
        shipped::convert(std::str::from_utf8(config).expect("a text"), weights).expect("weights")
    }

    /// A built-in model as the site ships it.
    fn shipped(folder: &Path) -> Files {
        let [config, tokenizer, weights] = ["config.json", "tokenizer.json", "model.safetensors"]
            .map(|name| std::fs::read(folder.join(name)).expect(name));
        let weights = convert(&config, &weights);
        let files = [("config.json", config), ("tokenizer.json", tokenizer), ("model.safetensors", weights)];
        Files::new(files.map(|(name, bytes)| fixture::source(name, bytes)).into())
    }

    /// The weights of a fixture as a safetensors file, as which built-in models come, and what the site would make of it.
    fn source_and_shipped(fixture: &Fixture) -> [Vec<u8>; 2] {
        let (checkpoint, mut source) = (weights(fixture), Forged::default());
        for tensor in checkpoint.tensors().filter(|tensor| !matches!(tensor.dtype, DType::Other(_))) {
            source.add_f32(&tensor.name, &tensor.shape, &values(&checkpoint, tensor));
        }
        let source = source.finish();
        let shipped = convert(fixture.bytes("config.json"), &source);
        [source, shipped]
    }

    /// Both give the same bits in `q8`; in the other precisions they are as large.
    fn assert_same(name: &str, ids: &[u32], source: &dyn Fn() -> Files, shipped: &dyn Fn() -> Files) {
        for precision in Precision::ALL {
            let [mut expected, mut found] = [source(), shipped()].map(|files| load(files, precision));
            assert_eq!(found.info(), expected.info(), "{name}");
            if precision == Precision::Q8 {
                assert!(logits(&mut found, ids) == logits(&mut expected, ids), "{name} differs");
            }
        }
    }

    #[test]
    fn what_is_shipped_gives_the_bits_of_its_source_in_q8() {
        for fixture in FIXTURES {
            let [source, shipped] = source_and_shipped(fixture);
            let files = |weights: &Vec<u8>| with_weights(fixture, weights.clone());
            let ids = fixture.expected().long.ids;
            assert_same(fixture.name, &ids, &|| files(&source), &|| files(&shipped));
        }
        for folder in models() {
            let expected = json(folder.join("expected.json"));
            let ids = ["prompt_ids", "ids"].map(|key| expected[key].as_array().expect(key).clone()).concat();
            let ids: Vec<u32> = serde_json::from_value(ids.into()).expect("ids");
            assert_same(name(&folder), &ids, &|| source(&folder), &|| shipped(&folder));
        }
    }

    /// Of the tensors with two dimensions only the position table is not packed.
    #[test]
    fn what_is_packed_is_what_is_shipped_as_integers() {
        for fixture in FIXTURES {
            let [_, shipped] = source_and_shipped(fixture);
            let shipped = Checkpoint::open(vec![fixture::source("shipped", shipped)]).expect("a checkpoint");
            let is_float = |tensor: &&TensorInfo| tensor.dtype == DType::F32;
            let floats: Vec<_> = shipped.tensors().filter(is_float).collect();
            let tables = floats.iter().filter(|tensor| tensor.shape.len() == 2);
            let tables: Vec<_> = tables.map(|table| table.name.as_str()).collect();
            assert!(
                matches!(tables[..], [name] if name.ends_with("wpe.weight") || name.ends_with("embed_positions.weight")),
                "{}: {tables:?}",
                fixture.name
            );
            let integers = shipped.tensors().filter(|tensor| !is_float(tensor));
            assert!(integers.map(|tensor| tensor.shape.len()).all(|rank| rank == 2), "{}", fixture.name);
        }
    }

    /// In f32 the source writes what the reference implementation does; what the site ships is recorded, for the tests of the page.
    #[test]
    fn built_in_models_write_their_recorded_texts() {
        let recorded = json("tests/fixtures/built_in.json");
        for folder in models() {
            let name = name(&folder);
            let reference = json(folder.join("expected.json"));
            let length = reference["ids"].as_array().expect("ids").len();
            let written = |files, precision| {
                let mut session = load(files, precision);
                run(&mut session, reference["prompt"].as_str().expect("a prompt"), &greedy(length)).2
            };
            assert_eq!(written(source(&folder), Precision::F32), reference["text"], "{name}");
            let texts = Precision::ALL
                .map(|precision| (precision.name().to_owned(), written(shipped(&folder), precision).into()));
            let found = Value::Object(Map::from_iter(texts));
            assert!(found == recorded[name], "{name} is recorded otherwise; it writes now: {found:#}");
        }
    }

    /// The bounds that the README states, on the built-in models and a story that they were not trained on.
    #[test]
    fn the_built_in_models_lose_little() {
        let story = std::fs::read_to_string(format!("{ROOT}/tests/fixtures/story.txt")).expect("the story");
        let found: Vec<Quality> = std::thread::scope(|scope| {
            let compared = models().into_iter().map(|folder| {
                let story = &story;
                scope.spawn(move || {
                    // In q8 the shipped model and its source are the same.
                    let mut sessions = [(source(&folder), Precision::Q8), (shipped(&folder), Precision::Q4)]
                        .map(|(files, precision)| load(files, precision));
                    let mut exact = load(source(&folder), Precision::F32);
                    compare(&mut exact, &mut sessions, story).expect("two comparisons")
                })
            });
            let compared: Vec<_> = compared.collect();
            compared.into_iter().flat_map(|model| model.join().expect("a result")).collect()
        });
        for (quality, (change, divergence, agreement)) in
            found.iter().zip([(0.003, 5e-4, 0.97), (0.05, 0.08, 0.75)].into_iter().cycle())
        {
            assert!(quality.positions > 1000 && quality.perplexity > 1.0, "{quality:?}");
            assert!(quality.perplexity_change.abs() <= change, "{quality:?}");
            assert!(quality.divergence <= divergence, "{quality:?}");
            assert!(quality.top_1_agreement >= agreement, "{quality:?}");
        }
        // One text this short tells a change of perplexity to 0.08 % (the divergence of 0.0004 is twice its variance at a position), so the
        // bound on q8 is on all of them.
        let changes: Vec<f64> = found.iter().step_by(2).map(|q8| q8.perplexity_change).collect();
        let mean = changes.iter().sum::<f64>() / changes.len() as f64;
        assert!(mean.abs() <= 0.001, "q8: {changes:?}");
    }
}
