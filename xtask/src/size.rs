//! How large the shipped wasm is, and how large it may be.

use crate::wasm::Variant;
use anyhow::{Context, Result, bail};
use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::io::Write;

/// A build's wasm may be this long gzipped, as servers send it: the page promises a visitor a megabyte of engine.
const GZIPPED_LIMIT: usize = 1_000_000;

/// How large the wasm of a build is.
pub(crate) struct Size {
    pub(crate) build: &'static str,
    bytes: usize,
    gzipped: usize,
}

impl Size {
    /// Of a build as it lies in `pkg/`.
    pub(crate) fn of(variant: Variant) -> Result<Self> {
        let file = variant.package().join("vitrine_bg.wasm");
        let wasm = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&wasm)?;
        Ok(Self { build: variant.name(), bytes: wasm.len(), gzipped: gzip.finish()?.len() })
    }

    /// For a benchmark's record.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({ "bytes": self.bytes, "gzipped": self.gzipped })
    }

    /// Fails for a build that is longer than the limit.
    pub(crate) fn check(&self) -> Result<()> {
        if self.gzipped > GZIPPED_LIMIT {
            bail!("the wasm is too large: {self}, and the limit is {} gzipped", megabytes(GZIPPED_LIMIT));
        }
        Ok(())
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}, gzipped {}", self.build, megabytes(self.bytes), megabytes(self.gzipped))
    }
}

/// For people.
pub(crate) fn megabytes(bytes: usize) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_beyond_the_limit_is_refused_with_both_figures() {
        let size = |gzipped| Size { build: "relaxed", bytes: 3_210_000, gzipped };
        assert!(size(GZIPPED_LIMIT).check().is_ok());
        let error = size(GZIPPED_LIMIT + 20_000).check().unwrap_err().to_string();
        assert!(error.contains("relaxed: 3.21 MB, gzipped 1.02 MB") && error.contains("1.00 MB"), "{error}");
    }
}
