//! The deployable site: `www/` at its root, its models at 8 bits, with `pkg/`, the licences and `build.json` in it.

use crate::size::Size;
use crate::{models, notices, project, wasm};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the site goes unless another folder is named.
pub(crate) fn default_folder() -> PathBuf {
    project::path("target/site")
}

/// Builds the engine where it is out of date and assembles the site in `out`, replacing an older site there. The
/// result is the size of each build's wasm.
pub(crate) fn assemble(out: &Path) -> Result<Vec<Size>> {
    let id = wasm::build()?;
    let sizes = wasm::Variant::ALL.into_iter().map(Size::of).collect::<Result<Vec<_>>>()?;
    sizes.iter().try_for_each(Size::check)?;
    let www = project::path("www");
    let converted = models::converted(&www)?;
    clear(out)?;
    for file in project::files_below(&www)? {
        let relative = file.strip_prefix(&www)?;
        match converted.get(relative) {
            Some(content) => project::write(&out.join(relative), content)?,
            None if belongs(relative) => copy(&file, &out.join(relative))?,
            None => {}
        }
    }
    for variant in wasm::Variant::ALL {
        for file in ["vitrine.js", "vitrine_bg.wasm", "vitrine.d.ts"] {
            let file = Path::new("pkg").join(variant.name()).join(file);
            copy(&project::path("").join(&file), &out.join(&file))?;
        }
    }
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&project::path(file), &out.join("LICENSES").join(format!("{file}.txt")))?;
    }
    project::write(&out.join("LICENSES/third-party.txt"), &notices::text()?)?;
    let build = serde_json::json!({ "id": id, "version": env!("CARGO_PKG_VERSION") });
    project::write(&out.join("build.json"), format!("{build}\n"))?;
    Ok(sizes)
}

/// Whether a file of `www/` is part of the site. How the models were made, and what the tests expect of them, stays behind.
pub(crate) fn belongs(relative: &Path) -> bool {
    let parts: Vec<_> = relative.iter().filter_map(|part| part.to_str()).collect();
    !matches!(parts.as_slice(), ["models", "recipe", ..] | ["models", _, "expected.json"])
}

/// Empties `out`, but only if it holds a site (or nothing): a mistyped `--out` must not cost anybody a folder.
fn clear(out: &Path) -> Result<()> {
    if !out.exists() {
        return Ok(());
    }
    let empty = fs::read_dir(out).with_context(|| format!("listing {}", out.display()))?.next().is_none();
    if !empty && !out.join("build.json").is_file() {
        bail!("{} is neither empty nor a site made earlier; it is left as it is", out.display());
    }
    // The folder itself stays, for a server or a terminal may stand in it.
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_recipe_and_expectations_stay_behind() {
        for (file, shipped) in [
            ("index.html", true),
            ("models/storyteller/model.safetensors", true),
            ("models/storyteller/README.md", true),
            ("models/storyteller/expected.json", false),
            ("models/recipe/train.py", false),
            ("recipe/index.html", true),
        ] {
            assert_eq!(belongs(Path::new(file)), shipped, "{file}");
        }
    }

    #[test]
    fn only_a_site_is_cleared() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("vitrine-site-{}", std::process::id()));
        project::write(&folder.join("thesis.tex"), "years of work")?;
        assert!(clear(&folder).is_err());
        assert!(folder.join("thesis.tex").exists());
        project::write(&folder.join("build.json"), "{}")?;
        clear(&folder)?;
        assert_eq!(fs::read_dir(&folder)?.count(), 0);
        Ok(fs::remove_dir(&folder)?)
    }
}
