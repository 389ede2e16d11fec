//! The two builds of the engine: `pkg/simd128` and `pkg/relaxed`, by wasm-pack and then wasm-opt.

use crate::{command, needs, project, tools};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A test binary of the wasm tests may run this long; wasm-bindgen's own limit is 20 seconds.
pub(crate) const TEST_TIMEOUT_SECONDS: u32 = 600;

/// What the release profile of wasm-opt may use: the features that rustc enables by default, and SIMD.
const WASM_OPT_FEATURES: [&str; 8] = [
    "--enable-simd",
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-mutable-globals",
    "--enable-multivalue",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];

/// One of the two builds.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Variant {
    /// WebAssembly 128-bit SIMD: every browser that the page supports.
    Simd128,
    /// The same with relaxed SIMD.
    Relaxed,
}

impl Variant {
    pub(crate) const ALL: [Self; 2] = [Self::Simd128, Self::Relaxed];

    /// The folder's name below `pkg/`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Simd128 => "simd128",
            Self::Relaxed => "relaxed",
        }
    }

    /// Options for cargo that make this build. `.cargo/config.toml` already says `+simd128`; `--config` adds to it.
    pub(crate) fn cargo_options(self) -> &'static [&'static str] {
        match self {
            Self::Simd128 => &[],
            Self::Relaxed => &[
                "--config",
                "target.wasm32-unknown-unknown.rustflags=['-Ctarget-feature=+simd128,+relaxed-simd']",
            ],
        }
    }

    /// Each release build has its own folder, so that the two can run side by side. (The tests of both share the
    /// workspace's: cargo keeps artifacts of different flags apart, and builds procedural macros once.)
    fn target_folder(self) -> PathBuf {
        project::path("target/wasm").join(self.name())
    }

    /// Where the build lies.
    pub(crate) fn package(self) -> PathBuf {
        project::path("pkg").join(self.name())
    }
}

/// Brings both builds up to date and returns their build id. A build whose id is that of the sources is kept.
pub(crate) fn build() -> Result<String> {
    note_rust_flags();
    let id = build_id()?;
    let stale = |variant: &Variant| {
        fs::read_to_string(variant.package().join("build-id")).ok().as_ref() != Some(&id)
            || !variant.package().join("vitrine_bg.wasm").is_file()
    };
    let variants: Vec<Variant> = Variant::ALL.into_iter().filter(stale).collect();
    if variants.is_empty() {
        eprintln!("pkg/ is up to date (build {id})");
        return Ok(id);
    }
    needs::add_wasm_target()?;
    tools::install(&[tools::wasm_pack(), tools::wasm_bindgen()?])?;
    tools::node_packages("xtask")?;
    eprintln!("Building the engine (build {id}); the first time takes some minutes");
    // Linking with fat LTO keeps one core busy: the two builds run side by side.
    command::run_together(variants.iter().map(|variant| pack(*variant, &id)).collect::<Result<_>>()?)?;
    command::run_together(variants.iter().map(|variant| optimise(*variant)).collect::<Result<_>>()?)?;
    for variant in variants {
        let (optimised, shipped) =
            (variant.package().join("optimised.wasm"), variant.package().join("vitrine_bg.wasm"));
        fs::rename(&optimised, &shipped).with_context(|| format!("replacing {}", shipped.display()))?;
        project::write(&variant.package().join("build-id"), &id)?;
    }
    Ok(id)
}

/// wasm-pack: cargo, then wasm-bindgen.
fn pack(variant: Variant, id: &str) -> Result<Command> {
    let mut wasm_pack = command::program("wasm-pack")?;
    wasm_pack.args([
        "build",
        "crate",
        "--release",
        "--target",
        "web",
        "--no-pack",
        "--no-opt",
        "--no-gitignore",
    ]);
    wasm_pack.args(["--out-name", "vitrine", "--out-dir"]).arg(variant.package());
    wasm_pack.args(["--", "--locked"]).args(variant.cargo_options());
    wasm_pack.env("CARGO_TARGET_DIR", variant.target_folder()).env("VITRINE_BUILD_ID", id);
    command::without_rust_flags(&mut wasm_pack);
    Ok(wasm_pack)
}

/// wasm-opt, beside the file that wasm-bindgen wrote.
fn optimise(variant: Variant) -> Result<Command> {
    let package = variant.package();
    optimiser(variant, &package.join("vitrine_bg.wasm"), &package.join("optimised.wasm"))
}

/// wasm-opt, as it optimises this build.
pub(crate) fn optimiser(variant: Variant, from: &Path, to: &Path) -> Result<Command> {
    let mut wasm_opt = command::program("wasm-opt")?;
    // rustc has inlined and unrolled what is worth it: more passes take twice as long, for the same speed and more to
    // download.
    wasm_opt.arg("-O1").args(WASM_OPT_FEATURES);
    if variant == Variant::Relaxed {
        wasm_opt.arg("--enable-relaxed-simd");
    }
    wasm_opt.arg(from).arg("-o").arg(to);
    Ok(wasm_opt)
}

/// A hash of everything that shapes the wasm: sources, dependencies, flags, compiler, and the tools after it. Equal
/// inputs give an equal id on every machine, and nothing is rebuilt while it stays the same.
fn build_id() -> Result<String> {
    let mut files =
        vec!["Cargo.toml", "Cargo.lock", "crate/Cargo.toml", ".cargo/config.toml", "xtask/src/wasm.rs"]
            .into_iter()
            .map(project::path)
            .collect::<Vec<_>>();
    files.extend(project::files_below(&project::path("crate/src"))?);
    let compiler = command::capture(command::program("rustc")?.arg("--version"))?;
    let mut hash = Fnv::new();
    hash.update(compiler.as_bytes());
    for tool in [tools::wasm_pack(), tools::wasm_bindgen()?] {
        hash.update(tool.to_string().as_bytes());
    }
    hash.update(format!("wasm-opt {}", tools::wasm_opt_version()?).as_bytes());
    for file in files {
        let name = file.strip_prefix(project::path("")).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        let content = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        hash.update(name.as_bytes());
        hash.update(&content.len().to_le_bytes());
        hash.update(&content);
    }
    Ok(format!("{:016x}", hash.0))
}

/// The 64-bit FNV-1a hash: enough to tell one state of the sources from another.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Says that RUSTFLAGS is not used, where it is set.
fn note_rust_flags() {
    if let Ok(flags) = std::env::var("RUSTFLAGS") {
        eprintln!(
            "note: RUSTFLAGS ({flags}) would replace the wasm builds' own flags; it is not used for them"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::Fnv;

    #[test]
    fn the_hash_is_fnv_1a() {
        let mut hash = Fnv::new();
        hash.update(b"foobar");
        assert_eq!(hash.0, 0x8594_4171_f739_67e8, "the published value for foobar");
    }
}
