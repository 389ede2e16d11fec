//! `cargo xtask env`: the exports with which bare `wasm-pack`, `wasm-bindgen` and `geckodriver` work.

use crate::{needs, project, tools, wasm};
use anyhow::Result;

/// Installs what is missing (saying so on standard error) and prints shell exports.
pub(crate) fn print() -> Result<()> {
    needs::add_wasm_target()?;
    tools::install(&[tools::wasm_pack(), tools::wasm_bindgen()?, tools::geckodriver()])?;
    tools::node_packages("xtask")?;
    let folders = project::tool_folders().map(|folder| format!("'{}'", folder.display()));
    println!("export PATH={}:\"$PATH\"", folders.join(":"));
    println!("export WASM_BINDGEN_TEST_TIMEOUT={}", wasm::TEST_TIMEOUT_SECONDS);
    // These would replace the flags in .cargo/config.toml, and the wasm would silently be built without SIMD.
    println!("unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS");
    Ok(())
}
