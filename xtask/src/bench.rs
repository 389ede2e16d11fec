//! `cargo xtask bench`: the benchmark of the assembled site, in a browser.

use crate::{command, needs, project, site, tools};
use anyhow::Result;
use std::path::PathBuf;

/// What to measure, where, and where to record it; `None` takes the benchmark's own choice.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) model: Option<PathBuf>,
    pub(crate) browser: Option<String>,
    pub(crate) record: Option<PathBuf>,
}

/// Brings the site up to date and measures it.
pub(crate) fn run(options: Options) -> Result<()> {
    needs::require(&["browser"], false)?;
    tools::install(&[tools::geckodriver()])?;
    tools::node_packages("tests")?;
    site::assemble(&site::default_folder())?;
    let mut node = command::program("node")?;
    node.arg(project::path("tests/browser/bench.mjs")).env("VITRINE_SITE", site::default_folder());
    if let Some(model) = options.model {
        node.arg("--model").arg(model.canonicalize()?);
    }
    if let Some(browser) = options.browser {
        node.args(["--browser", &browser]);
    }
    if let Some(record) = options.record {
        node.arg("--record").arg(std::path::absolute(record)?);
    }
    command::run(&mut node)
}
