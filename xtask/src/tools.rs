//! The programs that the builds and tests need, installed under `target/tools` and in `node_modules`.

use crate::{command, project};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A program that `cargo install` builds.
pub(crate) struct Tool {
    /// Crate name.
    package: &'static str,
    /// The program that must exist afterwards.
    program: &'static str,
    version: String,
    /// Another version found on PATH does as well.
    any_version: bool,
}

/// Runs cargo, wasm-bindgen and the browsers' tests in the right order.
pub(crate) fn wasm_pack() -> Tool {
    Tool { package: "wasm-pack", program: "wasm-pack", version: "0.15.1".into(), any_version: false }
}

/// The glue generator and the test runner; its version must be the library's to the digit.
pub(crate) fn wasm_bindgen() -> Result<Tool> {
    let version = project::locked_version("wasm-bindgen")?;
    Ok(Tool { package: "wasm-bindgen-cli", program: "wasm-bindgen", version, any_version: false })
}

/// The version of wasm-opt (the npm package binaryen) that the builds use.
pub(crate) fn wasm_opt_version() -> Result<String> {
    let lock: serde_json::Value =
        serde_json::from_str(&project::read(&project::path("xtask/package-lock.json"))?)?;
    let version = lock["packages"]["node_modules/binaryen"]["version"].as_str();
    version.map(str::to_owned).context("xtask/package-lock.json does not hold binaryen")
}

/// Drives Firefox.
pub(crate) fn geckodriver() -> Tool {
    Tool { package: "geckodriver", program: "geckodriver", version: "0.37.1".into(), any_version: true }
}

/// Checks licences, duplicates and sources of the dependencies.
pub(crate) fn cargo_deny() -> Tool {
    Tool { package: "cargo-deny", program: "cargo-deny", version: "0.20.2".into(), any_version: true }
}

/// Installs those of `tools` that are missing.
pub(crate) fn install(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !tool.exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("Installing under target/tools (some minutes, once):");
    // One build folder for all of them: they share many dependencies.
    let build = project::path("target/tools/build");
    for tool in missing {
        tool.install(&build)?;
    }
    fs::remove_dir_all(&build).with_context(|| format!("removing {}", build.display()))
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.package, self.version)
    }
}

impl Tool {
    /// Whether the program is there, in the version asked for.
    fn exists(&self) -> bool {
        let Some(path) = project::find_program(&[self.program]) else { return false };
        let Ok(said) = command::capture(Command::new(path).arg("--version")) else { return false };
        self.any_version || said.split_whitespace().nth(1) == Some(&self.version)
    }

    /// Builds the program with the versions of its lock file; where a registry no longer serves one of those
    /// (a yanked release), with the newest that fit.
    fn install(&self, build: &Path) -> Result<()> {
        if command::run(&mut self.cargo_install(build, true)?).is_ok() {
            return Ok(());
        }
        eprintln!("Its own lock file did not build; trying once more without it.");
        command::run(&mut self.cargo_install(build, false)?)
            .with_context(|| format!("installing {}", self.package))
    }

    fn cargo_install(&self, build: &Path, locked: bool) -> Result<Command> {
        let mut cargo = command::cargo()?;
        cargo.args([
            "install",
            self.package,
            "--version",
            &format!("={}", self.version),
            "--force",
            "--quiet",
        ]);
        cargo.arg("--root").arg(project::path("target/tools")).env("CARGO_TARGET_DIR", build);
        // Lightly optimised: these programs run for seconds, and a full build of them takes twice the minutes.
        for (name, value) in [("OPT_LEVEL", "1"), ("LTO", "off"), ("CODEGEN_UNITS", "16"), ("DEBUG", "0")] {
            cargo.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
        }
        command::without_rust_flags(&mut cargo);
        if locked {
            cargo.arg("--locked");
        }
        Ok(cargo)
    }
}

/// Makes sure that `folder/node_modules` is what the lock file there says: wasm-opt for the builds in `xtask`,
/// TypeScript and the browsers' client in `tests`.
pub(crate) fn node_packages(folder: &str) -> Result<()> {
    node_packages_in(&project::path(folder), &[])
}

/// The same for any folder, with options for npm.
pub(crate) fn node_packages_in(folder: &Path, options: &[&str]) -> Result<()> {
    node()?;
    let changed = |file: &str| fs::metadata(folder.join(file)).and_then(|metadata| metadata.modified());
    let wanted = changed("package-lock.json")
        .with_context(|| format!("{} is missing", folder.join("package-lock.json").display()))?;
    // npm writes this file at the end of an installation.
    if changed("node_modules/.package-lock.json").is_ok_and(|installed| installed >= wanted) {
        return Ok(());
    }
    let mut npm = command::program("npm")?;
    command::run(npm.args(["ci", "--no-audit", "--no-fund"]).args(options).arg("--prefix").arg(folder))
}

/// Makes sure that there is a Node.js that runs the tests: 20.19 is the first to tell modules by their syntax.
fn node() -> Result<()> {
    let wanted = "install Node.js 20.19 or newer (https://nodejs.org)";
    let said = command::capture(command::program("node")?.arg("--version")).context(wanted)?;
    let version = said.trim().trim_start_matches('v');
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < (20, 19) { bail!("Node.js {version} is too old: {wanted}") } else { Ok(()) }
}
