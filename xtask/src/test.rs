//! `cargo xtask test`: every check and test, in the order in which a mistake shows soonest.

use crate::report::{Report, Tally};
use crate::{command, needs, project, site, tools, wasm};
use anyhow::{Result, bail};
use std::process::Command;

/// Runs all steps, or the ones named; whether nothing failed.
pub(crate) fn run(install: bool, steps: &[String]) -> Result<bool> {
    let known = needs::STEPS.map(|(step, _)| step);
    if let Some(unknown) = steps.iter().find(|step| !known.contains(&step.as_str())) {
        bail!("no such step: {unknown}; there are {}", known.join(" "));
    }
    let wanted = |step: &str| steps.is_empty() || steps.iter().any(|wanted| wanted == step);
    needs::require(&known.into_iter().filter(|step| wanted(step)).collect::<Vec<_>>(), install)?;

    let mut report = Report::new();
    if wanted("fmt") {
        report.step("fmt", || check(cargo(&["fmt", "--all", "--check"])?));
    }
    if wanted("clippy") {
        report.step("clippy, native", || {
            check(cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-Dwarnings"])?)
        });
        for variant in wasm::Variant::ALL {
            report.step(&format!("clippy, {}", variant.name()), || {
                let mut clippy = wasm_cargo(variant, "clippy")?;
                clippy.args(["--lib", "--tests", "--", "-Dwarnings"]);
                check(clippy)
            });
        }
    }
    if wanted("doc") {
        report.step("rustdoc, native", || {
            let mut doc = cargo(&["doc", "--locked", "--workspace", "--no-deps"])?;
            doc.env("RUSTDOCFLAGS", "-Dwarnings");
            check(doc)
        });
        report.step("rustdoc, wasm", || {
            let mut doc = wasm_cargo(wasm::Variant::Relaxed, "doc")?;
            doc.args(["--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings");
            check(doc)
        });
    }
    if wanted("native") {
        report
            .step("tests, native", || count(cargo(&["test", "--locked", "--workspace", "--no-fail-fast"])?));
    }
    if wanted("deny") {
        report.step("cargo deny", || {
            tools::install(&[tools::cargo_deny()])?;
            check(cargo(&["deny", "--locked", "check", "licenses", "bans", "sources"])?)
        });
    }
    if wanted("types") {
        report.step("types of www/ (tsc)", || check(npm_script("types")?));
    }
    if wanted("engine") {
        report.step("engine.js over a loopback port", || count(npm_script("engine")?));
    }
    if wanted("wasm") {
        report.step("the tools of the wasm tests", || {
            tools::install(&[tools::wasm_pack(), tools::wasm_bindgen()?, tools::geckodriver()])?;
            Ok(Tally::one(true))
        });
        for variant in wasm::Variant::ALL {
            let step = |browser| {
                let name = format!("wasm tests, {}, {browser}", variant.name());
                (name, move || count_as(&format!("{browser}: "), wasm_tests(variant, browser)?))
            };
            report.together(["chrome", "firefox"].map(step).into());
        }
    }
    if wanted("browser") {
        let mut sizes = Vec::new();
        report.step("the site builds", || {
            sizes = site::assemble(&site::default_folder())?;
            Ok(Tally::one(true))
        });
        sizes.iter().for_each(|size| report.note(format!("wasm, {size}")));
        report.step("the site in browsers", || {
            tools::install(&[tools::geckodriver()])?;
            count(browser_tests()?)
        });
    }
    Ok(report.close())
}

/// A step that is one command and one check.
fn check(command: Command) -> Result<Tally> {
    Ok(Tally::one(command::watch(command)?.0))
}

/// A step whose command is a test runner.
fn count(command: Command) -> Result<Tally> {
    count_as("", command)
}

/// `count` for one of several steps at once: each line is shown after `prefix`.
fn count_as(prefix: &str, command: Command) -> Result<Tally> {
    let (success, output) = command::watch_as(prefix, command)?;
    Ok(Tally::of(success, &output))
}

fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut cargo = command::cargo()?;
    cargo.args(arguments);
    Ok(cargo)
}

/// A cargo command over the crate as one of the two wasm builds sees it.
fn wasm_cargo(variant: wasm::Variant, subcommand: &str) -> Result<Command> {
    let mut cargo =
        cargo(&[subcommand, "--locked", "--package", "vitrine", "--target", "wasm32-unknown-unknown"])?;
    cargo.args(variant.cargo_options());
    command::without_rust_flags(&mut cargo);
    Ok(cargo)
}

/// The crate's tests in a dedicated worker of a real browser, through wasm-pack.
fn wasm_tests(variant: wasm::Variant, browser: &str) -> Result<Command> {
    let mut wasm_pack = command::program("wasm-pack")?;
    wasm_pack.args(["test", "--headless", &format!("--{browser}"), "crate", "--locked"]);
    // All but the examples in the documentation, which no browser runs.
    wasm_pack.args(["--lib", "--test", "*"]);
    wasm_pack.args(variant.cargo_options());
    wasm_pack.env("WASM_BINDGEN_TEST_TIMEOUT", wasm::TEST_TIMEOUT_SECONDS.to_string());
    command::without_rust_flags(&mut wasm_pack);
    Ok(wasm_pack)
}

/// A script of tests/package.json.
fn npm_script(name: &str) -> Result<Command> {
    tools::node_packages("tests")?;
    let mut npm = command::program("npm")?;
    npm.args(["run", "--prefix", "tests", "--silent", name]);
    Ok(npm)
}

/// The end-to-end tests, on the site that was just assembled.
fn browser_tests() -> Result<Command> {
    tools::node_packages("tests")?;
    let mut node = command::program("node")?;
    node.args(["--test", "--test-reporter=spec", "--test-concurrency=2"]);
    let files = project::files_below(&project::path("tests/browser"))?;
    node.args(files.iter().filter(|file| file.to_string_lossy().ends_with(".test.mjs")));
    node.env("VITRINE_SITE", site::default_folder());
    Ok(node)
}
