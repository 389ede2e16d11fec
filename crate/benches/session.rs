//! A whole model through the public [`Session`], natively: load, prefill, decode and memory, beside the machine's limits.
//!
//! ```text
//! cargo bench --bench session -- FOLDER [--json FILE] [--rounds N]
//! ```
//!
//! FOLDER holds a checkpoint; `cargo xtask bench` makes a GPT-2 124M of random weights and names it. The built-in model must
//! first write its expected text. Then every precision of the build is measured in turn, round by round, and the
//! limits before and after. Without FOLDER it measures the built-in model, which is too small to say much.

use serde_json::{Value, json};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vitrine::kernels::measure::{Measurement, Settings, measure};
use vitrine::{Candidate, Files, GenerateOptions, Precision, Sampling, Session};

const STORYTELLER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../www/models/storyteller");

/// As many weights as GPT-2 124M has, in rows of 768.
const LIMIT_ROWS: usize = 161_280;
const LIMIT_ROUNDS: usize = 5;

/// The prompt that is continued, and a longer one that is only read; tokens.
const PROMPTS: [usize; 2] = [64, 256];
const NEW_TOKENS: usize = 128;
/// Times that each precision is loaded; the last one stays.
const LOADS: usize = 3;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    if let Some(precision) = arguments.peak {
        open(&arguments.folder, precision)?;
        println!("{}", process_peak().ok_or("this system does not tell a process's memory")?);
        return Ok(());
    }
    let agreement = Precision::ALL.map(check_storyteller).into_iter();
    let agreement = agreement.collect::<Result<Vec<_>>>()?;
    let before = limits()?;
    let mut subjects = Precision::ALL.map(Subject::new);
    for _ in 0..LOADS {
        for subject in &mut subjects {
            subject.load(&arguments.folder)?;
        }
    }
    for round in 0..arguments.rounds {
        for subject in &mut subjects {
            subject.run(round)?;
        }
    }
    let after = limits()?;
    let models: Vec<Value> = subjects
        .iter()
        .zip(agreement)
        .map(|(subject, same)| subject.report(same, &arguments.folder))
        .collect();
    for model in &models {
        println!("{model:#}");
    }
    let report = json!({
        "build": "native",
        "flags": std::env::var("RUSTFLAGS").unwrap_or_default(),
        "kernels": before.iter().zip(&after).map(|(before, after)| line(before, after)).collect::<Value>(),
        "models": models,
    });
    if let Some(file) = arguments.json {
        std::fs::write(file, format!("{report:#}\n"))?;
    }
    Ok(())
}

struct Arguments {
    folder: PathBuf,
    json: Option<PathBuf>,
    rounds: usize,
    /// Only load, and print the memory that this process took at most.
    peak: Option<Precision>,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut read = Self { folder: STORYTELLER.into(), json: None, rounds: 5, peak: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--bench" => {} // cargo adds it
                "--json" => read.json = Some(value()?.into()),
                "--rounds" => read.rounds = value()?.parse()?,
                "--peak" => read.peak = Precision::from_name(&value()?),
                _ => read.folder = word.into(),
            }
        }
        Ok(read)
    }
}

/// One precision, and what was timed of it, in milliseconds.
struct Subject {
    precision: Precision,
    session: Option<Session>,
    loads: Vec<f64>,
    /// For each of [`PROMPTS`], up to the first token.
    prefills: [Vec<f64>; PROMPTS.len()],
    /// From the first token to the last.
    decodes: Vec<f64>,
}

impl Subject {
    fn new(precision: Precision) -> Self {
        let (loads, prefills, decodes) = Default::default();
        Self { precision, session: None, loads, prefills, decodes }
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        self.session = None;
        let start = Instant::now();
        self.session = Some(open(folder, self.precision)?);
        self.loads.push(milliseconds(start));
        Ok(())
    }

    /// Reads the prompts, and continues the first one.
    fn run(&mut self, round: usize) -> Result<()> {
        let session = self.session.as_mut().expect("it was loaded");
        for (index, &tokens) in PROMPTS.iter().enumerate() {
            let room = session.info().shape.context;
            if tokens + NEW_TOKENS > room {
                continue; // the built-in model's context is short
            }
            let prompt = prompt(session, tokens, round * PROMPTS.len() + index)?;
            let options = GenerateOptions {
                max_new_tokens: if index == 0 { NEW_TOKENS } else { 1 },
                sampling: Sampling::greedy(),
                ..GenerateOptions::default()
            };
            let start = Instant::now();
            let mut first = None;
            for token in session.generate(&prompt, &options)? {
                token?;
                first.get_or_insert_with(Instant::now);
            }
            let first = first.ok_or("nothing was written")?;
            self.prefills[index].push((first - start).as_secs_f64() * 1e3);
            if index == 0 {
                self.decodes.push(milliseconds(first));
            }
        }
        Ok(())
    }

    fn report(&self, storyteller: usize, folder: &Path) -> Value {
        let info = self.session.as_ref().expect("it was loaded").info();
        let pace = |tokens: usize, times: &[f64]| {
            let median = median(times)?;
            Some(json!({ "tokens": tokens, "tokensPerSecond": 1e3 * tokens as f64 / median, "ms": times }))
        };
        json!({
            "precision": self.precision.name(),
            "kernel": info.kernel,
            "parameters": info.parameters,
            "storytellerTokens": storyteller,
            "load": { "ms": self.loads, "median": median(&self.loads) },
            "memory": { "weights": info.bytes.weights, "total": info.bytes.total(), "peak": peak(folder, self.precision) },
            "prefill": PROMPTS.iter().zip(&self.prefills).filter_map(|(&n, times)| pace(n, times)).collect::<Value>(),
            "decode": pace(NEW_TOKENS - 1, &self.decodes),
        })
    }
}

fn open(folder: &Path, precision: Precision) -> Result<Session> {
    Ok(Candidate::open(Files::from_directory(folder)?)?.load(precision, &mut |_, _| {})?)
}

/// A prompt of so many tokens; the next `turn` has another first word, so that nothing of the last cache can be used again.
fn prompt(session: &mut Session, tokens: usize, turn: usize) -> Result<String> {
    const WORDS: [&str; 7] = ["the", "old", "king", "went", "home", "and", "had"];
    let mut text = String::new();
    for word in 0..tokens {
        text += if word == 0 { "" } else { " " };
        text += WORDS[(turn + word + word / WORDS.len()) % WORDS.len()];
        if session.tokenize(&text)?.len() >= tokens {
            break;
        }
    }
    let found = session.tokenize(&text)?.len();
    if found == tokens { Ok(text) } else { Err(format!("a prompt of {tokens} tokens became {found}").into()) }
}

/// What is timed is worth nothing if it is wrong: in f32 the built-in model must write its expected text. The result is
/// how many of the expected tokens were written.
fn check_storyteller(precision: Precision) -> Result<usize> {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(Path::new(STORYTELLER).join("expected.json"))?)?;
    let ids = expected["ids"].as_array().ok_or("expected.json holds no ids")?;
    let mut options = GenerateOptions { max_new_tokens: ids.len(), ..GenerateOptions::default() };
    options.sampling.temperature = 0.0;
    let mut session = open(Path::new(STORYTELLER), precision)?;
    let prompt = expected["prompt"].as_str().ok_or("expected.json holds no prompt")?;
    let written = session.generate(prompt, &options)?.collect::<vitrine::Result<Vec<_>>>()?;
    let same = written.iter().zip(ids).take_while(|(token, id)| id.as_u64() == Some(token.id.into())).count();
    if precision == Precision::F32 && same < ids.len() {
        return Err(format!("the built-in model wrote {same} of its {} expected tokens", ids.len()).into());
    }
    Ok(same)
}

/// The kernels beside the machine's limits.
fn limits() -> Result<Vec<Measurement>> {
    let start = Instant::now();
    Ok(measure(Settings { rows: LIMIT_ROWS, rounds: LIMIT_ROUNDS }, &|| milliseconds(start))?)
}

/// What was measured before and after: the mean of the medians, the best of both.
fn line(before: &Measurement, after: &Measurement) -> Value {
    json!({
        "kernel": before.kernel,
        "operation": before.operation,
        "median": (before.median + after.median) / 2.0,
        "best": if before.unit.ends_with("/s") { before.best.max(after.best) } else { before.best.min(after.best) },
        "unit": before.unit,
        "limit": before.limit,
    })
}

/// Bytes that a process takes at most while it loads the model: one of its own, since an allocator keeps what others gave back.
fn peak(folder: &Path, precision: Precision) -> Option<u64> {
    let mut process = std::process::Command::new(std::env::current_exe().ok()?);
    let output = process.arg(folder).args(["--peak", precision.name()]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// The most memory that this process has had, in bytes; Linux tells it.
fn process_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn median(times: &[f64]) -> Option<f64> {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}
