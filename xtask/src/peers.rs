//! `cargo xtask bench --peers`: the engines that this one is compared with, installed from their registries below
//! `target/peers`, and the comparison.

use crate::{bench, command, needs, project, site, tools, wasm};
use anyhow::{Context, Result};
use std::fs;

/// The package that multiplies with candle.
const CANDLE: &str = "tests/browser/bench/peers/candle/Cargo.toml";

/// Brings the site and the peers up to date and runs all of them, in turn, in one browser.
pub(crate) fn run(options: &bench::Options) -> Result<()> {
    needs::require(&["browser"], false)?;
    tools::install(&[tools::geckodriver(), tools::wasm_bindgen()?])?;
    tools::node_packages("tests")?;
    site::assemble(&site::default_folder())?;
    packages()?;
    candle()?;
    command::run(&mut bench::script("tests/browser/bench/peers.mjs", options)?)
}

/// wllama and onnxruntime-web, as `peers/package-lock.json` pins them; their scripts are not run.
fn packages() -> Result<()> {
    let folder = project::path("target/peers/npm");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    for file in ["package.json", "package-lock.json"] {
        let wanted = project::read(&project::path("tests/browser/bench/peers").join(file))?;
        project::write_changed(&folder.join(file), &wanted)?;
    }
    tools::node_packages_in(&folder, &["--ignore-scripts"])
}

/// candle's matrix products as wasm, by the compiler and the tools that build this project's engine, but without the flags that
/// were chosen for its kernels.
fn candle() -> Result<()> {
    let folder = project::path("target/peers/candle");
    needs::add_wasm_target()?;
    tools::node_packages("xtask")?;
    let mut cargo = command::cargo()?;
    cargo.args(["build", "--release", "--locked", "--target", needs::WASM_TARGET, "--manifest-path"]);
    cargo.arg(project::path(CANDLE)).arg("--target-dir").arg(folder.join("target"));
    command::run(command::without_rust_flags(&mut cargo).env("RUSTFLAGS", "-Ctarget-feature=+simd128"))?;
    let built = folder.join("target").join(needs::WASM_TARGET).join("release/candle_matmuls.wasm");
    let package = folder.join("pkg");
    let mut bindgen = command::program("wasm-bindgen")?;
    command::run(bindgen.args(["--target", "web", "--no-typescript", "--out-dir"]).arg(&package).arg(built))?;
    let shipped = package.join("candle_matmuls_bg.wasm");
    command::run(&mut wasm::optimiser(wasm::Variant::Simd128, &shipped, &shipped)?)
}
