//! The third-party notices of the site: every crate whose code is in the wasm, with its licence texts.

use crate::{command, project};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

const INTRODUCTION: &str = "\
Third-party notices
===================

The WebAssembly files of Vitrine contain code of the crates below and of the Rust standard library.
After the list stand the licence files that these crates publish; a text that several share is printed once.
";

/// The Rust standard library is linked into every wasm, but is no crate of the dependency tree.
const STANDARD_LIBRARY: &str = "the Rust standard library: MIT OR Apache-2.0, https://github.com/rust-lang/rust \
                                (the text of the Apache License is in LICENSE-APACHE.txt beside this file)";

/// A crate in the wasm.
struct Package {
    /// `name version: licence expression, repository`
    title: String,
    /// The licence files in its published source.
    texts: Vec<String>,
}

/// The whole file.
pub(crate) fn text() -> Result<String> {
    let arguments =
        ["metadata", "--format-version", "1", "--filter-platform", "wasm32-unknown-unknown", "--locked"];
    let metadata: Value = serde_json::from_str(&command::capture(command::cargo()?.args(arguments))?)
        .context("reading what cargo metadata printed")?;
    let packages = linked(&metadata)?.into_iter().map(package).collect::<Result<Vec<_>>>()?;
    render(&packages)
}

/// The packages that the engine links: reached from it by normal dependencies, procedural macros left out (they run in the compiler).
fn linked(metadata: &Value) -> Result<Vec<&Value>> {
    let id = |value: &Value| value["id"].as_str().unwrap_or_default().to_owned();
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let nodes: BTreeMap<String, Vec<Value>> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (id(node), list(&node["deps"]))).collect();
    let packages: BTreeMap<String, &Value> = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?
        .iter()
        .map(|p| (id(p), p))
        .collect();
    let root =
        packages.iter().find(|(_, package)| package["name"] == "vitrine").context("no crate `vitrine`")?.0;

    let mut found = BTreeSet::new();
    let mut waiting = vec![root.clone()];
    while let Some(current) = waiting.pop() {
        for dependency in nodes.get(&current).into_iter().flatten() {
            let normal = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let package = dependency["pkg"].as_str().unwrap_or_default();
            let target_kinds =
                packages.get(package).map(|package| list(&package["targets"])).unwrap_or_default();
            let macros =
                target_kinds.iter().any(|target| list(&target["kind"]).contains(&"proc-macro".into()));
            if normal && !macros && found.insert(package.to_owned()) {
                waiting.push(package.to_owned());
            }
        }
    }
    Ok(packages.into_iter().filter(|(id, _)| found.contains(id)).map(|(_, package)| package).collect())
}

/// Reads a package's licence files from its published source.
fn package(metadata: &Value) -> Result<Package> {
    let field = |name: &str| metadata[name].as_str().unwrap_or_default();
    let folder = Path::new(field("manifest_path")).parent().context("a manifest without a folder")?;
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        let licence = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
        if path.is_file() && licence.iter().any(|start| name.starts_with(start)) {
            texts.push(project::read(&path)?.replace("\r\n", "\n").trim().to_owned());
        }
    }
    texts.sort();
    let repository = field("repository");
    let source = if repository.is_empty() {
        format!("https://crates.io/crates/{}", field("name"))
    } else {
        repository.into()
    };
    Ok(Package {
        title: format!("{} {}: {}, {source}", field("name"), field("version"), field("license")),
        texts,
    })
}

/// The list of crates, then each licence text once, under the crates that it covers.
fn render(packages: &[Package]) -> Result<String> {
    let mut out = format!("{INTRODUCTION}\n- {STANDARD_LIBRARY}\n");
    let mut titles_by_text: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let note = if package.texts.is_empty() { " (publishes no licence file)" } else { "" };
        writeln!(out, "- {}{note}", package.title)?;
        for text in &package.texts {
            titles_by_text.entry(text).or_default().push(&package.title);
        }
    }
    for (text, titles) in titles_by_text {
        writeln!(out, "\n{}\n{}\n\n{text}", "-".repeat(100), titles.join("\n"))?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_text_is_printed_once() -> Result<()> {
        let package = |title: &str, texts: &[&str]| Package {
            title: title.into(),
            texts: texts.iter().map(|&text| text.into()).collect(),
        };
        let text = render(&[
            package("a 1", &["MIT text"]),
            package("b 2", &["MIT text", "Zlib text"]),
            package("c 3", &[]),
        ])?;
        assert_eq!(text.matches("MIT text").count(), 1);
        assert!(text.contains("a 1\nb 2\n\nMIT text"));
        assert!(text.contains("- c 3 (publishes no licence file)"));
        Ok(())
    }
}
