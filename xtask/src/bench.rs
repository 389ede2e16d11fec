//! `cargo xtask bench`: a whole model natively and on the assembled site in a browser, beside the machine's limits; with
//! `--peers` beside other engines.

use crate::{command, needs, project, site, tools};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// What to measure, where, and where to record it; `None` takes the benchmark's own choice.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) model: Option<PathBuf>,
    /// Passed on as they are: `--browser`, `--rounds`, `--machine`.
    pub(crate) passed_on: Vec<String>,
    pub(crate) record: Option<PathBuf>,
    pub(crate) no_record: bool,
}

/// Brings the site up to date and measures: first natively, then in a browser, in one record.
pub(crate) fn run(options: &Options) -> Result<()> {
    needs::require(&["browser"], false)?;
    tools::install(&[tools::geckodriver()])?;
    tools::node_packages("tests")?;
    let sizes = site::assemble(&site::default_folder())?;

    let model = match &options.model {
        Some(model) => model.canonicalize()?,
        None => random_model()?,
    };
    let native = project::path("target/bench/native.json");
    let mut cargo = command::cargo()?;
    cargo.args(["bench", "--locked", "--package", "vitrine", "--bench", "session", "--"]);
    command::run(cargo.arg(&model).arg("--json").arg(&native).args(rounds(&options.passed_on)))?;

    let mut node = script("tests/browser/bench.mjs", options)?;
    if options.model.is_some() {
        node.arg("--model").arg(&model);
    }
    let sizes: serde_json::Map<_, _> =
        sizes.iter().map(|size| (size.build.to_owned(), size.json())).collect();
    node.arg("--native").arg(native).arg("--sizes").arg(serde_json::Value::Object(sizes).to_string());
    command::run(&mut node)
}

/// One of the benchmarks' programs, with the options that all of them have.
pub(crate) fn script(path: &str, options: &Options) -> Result<std::process::Command> {
    let mut node = command::program("node")?;
    node.arg(project::path(path)).env("VITRINE_SITE", site::default_folder()).args(&options.passed_on);
    if let Some(record) = &options.record {
        node.arg("--record").arg(std::path::absolute(record)?);
    }
    if options.no_record {
        node.arg("--no-record");
    }
    Ok(node)
}

/// A GPT-2 124M of random weights, made once.
fn random_model() -> Result<PathBuf> {
    let folder = project::path("target/bench/gpt2-124m");
    let script = project::path("tests/browser/bench/weights.mjs");
    command::run(command::program("node")?.arg(script).arg(Path::new(&folder)))?;
    Ok(folder)
}

/// `--rounds N`, where it was given.
fn rounds(passed_on: &[String]) -> &[String] {
    match passed_on.iter().position(|option| option == "--rounds") {
        Some(at) => &passed_on[at..at + 2],
        None => &[],
    }
}
