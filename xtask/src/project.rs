//! Where things are: the checkout, its `target` folder, programs on PATH.

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// `relative` inside the checkout.
pub(crate) fn path(relative: &str) -> PathBuf {
    // Cargo sets the variable when it runs this program, so a moved checkout is found again.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().expect("xtask lies inside the workspace").join(relative)
}

/// The folders with this project's own tools, to be put in front of PATH.
pub(crate) fn tool_folders() -> [PathBuf; 2] {
    [path("target/tools/bin"), path("xtask/node_modules/.bin")]
}

/// PATH with this project's own tools in front.
pub(crate) fn search_path() -> Result<OsString> {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let folders = tool_folders().into_iter().chain(std::env::split_paths(&inherited));
    std::env::join_paths(folders).context("a folder on PATH holds a separator")
}

/// The first program called one of `names`, among this project's tools and on PATH.
pub(crate) fn find_program(names: &[&str]) -> Option<PathBuf> {
    let path = search_path().ok()?;
    let file = |folder: &Path, name: &str| folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names.iter().flat_map(|name| folders.iter().map(move |folder| file(folder, name))).find(|f| f.is_file())
}

/// The version of `package` that Cargo.lock holds.
pub(crate) fn locked_version(package: &str) -> Result<String> {
    let lock = read(&path("Cargo.lock"))?;
    let mut lines = lock.lines();
    lines
        .find(|line| *line == format!("name = \"{package}\""))
        .and_then(|_| lines.next())
        .and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .with_context(|| format!("Cargo.lock does not hold {package}"))
}

/// A text file's content; the error names the file.
pub(crate) fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

/// Writes a file, making its folder; the error names the file.
pub(crate) fn write(file: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(file, content).with_context(|| format!("writing {}", file.display()))
}

/// Writes a file unless it holds this content, so that its date says when it changed.
pub(crate) fn write_changed(file: &Path, content: &str) -> Result<()> {
    if fs::read_to_string(file).is_ok_and(|found| found == content) { Ok(()) } else { write(file, content) }
}

/// The folders in `folder`, in a fixed order.
pub(crate) fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = || format!("listing {}", folder.display());
    let entries: Vec<_> =
        fs::read_dir(folder).with_context(listing)?.collect::<std::io::Result<_>>().with_context(listing)?;
    let mut folders: Vec<_> = entries.iter().map(fs::DirEntry::path).filter(|path| path.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

/// Every file below `folder`, in a fixed order.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() { waiting.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}
