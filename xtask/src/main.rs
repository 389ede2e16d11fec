//! `cargo xtask`: every build step of Vitrine, in Rust. This file reads the arguments; each command has its own file.

mod bench;
mod command;
mod env;
mod models;
mod needs;
mod notices;
mod peers;
mod project;
mod report;
mod serve;
mod site;
mod size;
mod test;
mod tools;
mod wasm;

use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  serve [--port N]          build the site and serve it on this machine (default port 8080, or the next free one)
  site  [--out DIR]         build the deployable site (default target/site)
  test  [--install] [STEP…] run every check and test, or the steps named:
                            fmt clippy doc native deny types engine wasm browser
                            --install: bring what is missing outside the checkout, too: the wasm target, rustfmt
                            and clippy with rustup, browsers and drivers with apt-get (Debian)
  bench [--browser NAME] [--model DIR] [--rounds N] [--machine NAME] [--record FILE | --no-record]
                            measure kernels, load, prefill, decode and memory natively and in a browser, beside the
                            machine's own limits; recorded below crate/benches/record unless --no-record
  bench --peers [--browser NAME] [--rounds N] [--machine NAME] [--record FILE | --no-record]
                            install other engines below target/peers, give each the same weights, and run all of
                            them in turn in one browser; the record says what each was given
  env                       print the exports that make bare wasm-pack, wasm-bindgen and geckodriver work:
                            eval \"$(cargo xtask env)\"

Tools that are missing are installed under target/ and in node_modules/. Outside the checkout, `test` installs
nothing without --install (or CI=true); serve, site, bench and env add Rust's wasm target if it is missing.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command; `false` means that it ran and that something it checked failed.
fn dispatch(mut arguments: Vec<String>) -> Result<bool> {
    if arguments.is_empty() || arguments.iter().any(|a| a == "--help" || a == "-h" || a == "help") {
        println!("{USAGE}");
        return Ok(!arguments.is_empty());
    }
    let name = arguments.remove(0);
    let mut arguments = Arguments(arguments);
    match name.as_str() {
        "serve" => {
            let port = arguments.option("--port")?.map(|port| port.parse()).transpose()?;
            arguments.finish()?;
            site::assemble(&site::default_folder())?;
            serve::serve(&site::default_folder(), port)?;
        }
        "site" => {
            let out = arguments.option("--out")?.map_or_else(site::default_folder, PathBuf::from);
            arguments.finish()?;
            let sizes = site::assemble(&out)?;
            println!("The site is in {}", out.display());
            sizes.iter().for_each(|size| println!("wasm, {size}"));
        }
        "test" => {
            let install = arguments.flag("--install") || std::env::var("CI").is_ok_and(|ci| ci == "true");
            return test::run(install, &arguments.rest()?);
        }
        "bench" => {
            let peers = arguments.flag("--peers");
            let mut passed_on = Vec::new();
            for name in ["--browser", "--rounds", "--machine"] {
                if let Some(value) = arguments.option(name)? {
                    passed_on.extend([name.to_owned(), value]);
                }
            }
            let options = bench::Options {
                model: arguments.option("--model")?.map(PathBuf::from),
                passed_on,
                record: arguments.option("--record")?.map(PathBuf::from),
                no_record: arguments.flag("--no-record"),
            };
            arguments.finish()?;
            if peers {
                if options.model.is_some() {
                    bail!(
                        "--peers compares one model, which it makes for every engine: --model does not go with it"
                    );
                }
                peers::run(&options)?;
            } else {
                bench::run(&options)?;
            }
        }
        "env" => {
            arguments.finish()?;
            env::print()?;
        }
        _ => bail!("no such command: {name}\n\n{USAGE}"),
    }
    Ok(true)
}

/// The words after the command's name.
struct Arguments(Vec<String>);

impl Arguments {
    /// Takes `name` out; whether it was there.
    fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|argument| argument != name);
        self.0.len() < before
    }

    /// Takes `name VALUE` out.
    fn option(&mut self, name: &str) -> Result<Option<String>> {
        let Some(at) = self.0.iter().position(|argument| argument == name) else { return Ok(None) };
        self.0.remove(at);
        if at == self.0.len() {
            bail!("{name} needs a value");
        }
        Ok(Some(self.0.remove(at)))
    }

    /// The words that are left, none of them an option.
    fn rest(self) -> Result<Vec<String>> {
        match self.0.iter().find(|argument| argument.starts_with('-')) {
            Some(unknown) => bail!("unknown option {unknown}\n\n{USAGE}"),
            None => Ok(self.0),
        }
    }

    /// Refuses any word that is left.
    fn finish(self) -> Result<()> {
        match self.0.first() {
            Some(unknown) => bail!("unexpected {unknown}\n\n{USAGE}"),
            None => Ok(()),
        }
    }
}
