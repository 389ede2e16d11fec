//! `cargo xtask bench`
use anyhow::Result;
use std::path::PathBuf;
pub(crate) fn run(_model: Option<PathBuf>, _browser: Option<&str>) -> Result<()> {
    Ok(())
}
