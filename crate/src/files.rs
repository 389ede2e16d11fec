//! The files of a checkpoint, found by name among those that were given.

use crate::checkpoint::{BytesSource, Source};
use crate::error::{Error, Result};

/// The files of a checkpoint as published: `config.json`, a tokenizer, weights.
#[derive(Default)]
pub struct Files {
    files: Vec<Box<dyn Source>>,
}

impl Files {
    /// A set of files. Their names may be paths; only those in the folder of the topmost `config.json` count.
    pub fn new(files: Vec<Box<dyn Source>>) -> Self {
        Self { files }
    }

    /// Files in memory, by name.
    pub fn from_bytes(files: &[(&str, &'static [u8])]) -> Self {
        let source = |(name, bytes): &(&str, &'static [u8])| {
            Box::new(BytesSource::new(*name, *bytes)) as Box<dyn Source>
        };
        Self::new(files.iter().map(source).collect())
    }

    /// The files of a folder.
    ///
    /// # Errors
    /// [`Error::Read`] where the folder or a file cannot be opened.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn from_directory(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |problem: std::io::Error| Error::Read {
            file: path.display().to_string(),
            offset: 0,
            problem: problem.to_string(),
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            if file.is_file() {
                files.push(Box::new(crate::checkpoint::FileSource::open(file)?) as Box<dyn Source>);
            }
        }
        Ok(Self::new(files))
    }

    /// The files in the folder of the topmost `config.json`: a repository's subfolders hold exports for other
    /// programs, with a tokenizer and weights of their own.
    pub(crate) fn beside_config(mut self) -> Result<Self> {
        let configs = self.files.iter().map(|file| folder_and_name(file.name()));
        let configs = configs.filter(|(_, name)| *name == "config.json");
        let Some((folder, _)) = configs.min_by_key(|(folder, _)| folder.matches('/').count()) else {
            let names = self.names();
            return Err(Error::MissingFile(format!("no config.json among the files ({names})")));
        };
        let folder = folder.to_owned();
        self.files.retain(|file| folder_and_name(file.name()).0 == folder);
        Ok(self)
    }

    /// The content of the file called `name`, if there is one, which must not be longer than `limit`.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let called = self.files.iter().find(|file| folder_and_name(file.name()).1 == name);
        let Some(file) = called else { return Ok(None) };
        if file.len() > limit {
            let problem = format!("expected at most {limit} bytes, found {}", file.len());
            return Err(Error::file(file.name(), problem));
        }
        let mut bytes = vec![0; file.len() as usize];
        file.read_at(0, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// The files that hold weights, by the rule of `www/fetching/choose.js`: those of the published names, safetensors
    /// before PyTorch, then whatever shards or single file there is.
    pub(crate) fn into_weights(self) -> Result<Vec<Box<dyn Source>>> {
        let names: Vec<&str> = self.files.iter().map(|file| folder_and_name(file.name()).1).collect();
        let chosen = choose_weights(&names)
            .map_err(|problem| Error::MissingFile(format!("{problem} among the files ({})", self.names())))?;
        let chosen: Vec<bool> = names.iter().map(|name| chosen.contains(name)).collect();
        Ok(self.files.into_iter().zip(chosen).filter_map(|(file, chosen)| chosen.then_some(file)).collect())
    }

    pub(crate) fn names(&self) -> String {
        const SHOWN: usize = 8;
        let mut names: Vec<_> = self.files.iter().take(SHOWN).map(|file| file.name()).collect();
        if self.files.len() > SHOWN {
            names.push("…");
        }
        if names.is_empty() { "none were given".to_owned() } else { names.join(", ") }
    }
}

/// Those of `names` that hold one set of weights; a folder often holds the same weights several times.
fn choose_weights<'a>(names: &[&'a str]) -> std::result::Result<Vec<&'a str>, String> {
    let those = |wanted: &dyn Fn(&str) -> bool| -> Vec<&'a str> {
        names.iter().copied().filter(|name| wanted(name)).collect()
    };
    for (stem, extension) in [("model", ".safetensors"), ("pytorch_model", ".bin")] {
        let whole = those(&|name| name.strip_suffix(extension) == Some(stem));
        let shards = those(&|name| shard_of(name, extension) == Some(stem));
        if let Some(found) = [whole, shards].into_iter().find(|found| !found.is_empty()) {
            return Ok(found);
        }
    }
    for extension in [".safetensors", ".bin"] {
        let shards = those(&|name| shard_of(name, extension).is_some());
        let any = those(&|name| name.ends_with(extension) && !NOT_A_MODEL.contains(&name));
        match (shards.is_empty(), any.len()) {
            (false, _) => return Ok(shards),
            (true, 0) => {}
            (true, 1) => return Ok(any),
            _ => {
                let any = any.join(" and ");
                return Err(format!(
                    "{any} could each be the weights; give only one of them, or name it model{extension}"
                ));
            }
        }
    }
    Err("no weights: expected model.safetensors or pytorch_model.bin".to_owned())
}

/// What a trainer leaves beside the weights.
const NOT_A_MODEL: [&str; 3] = ["training_args.bin", "optimizer.bin", "scheduler.bin"];

/// The name without `-00001-of-00002` and `extension`, if it is the name of a shard.
fn shard_of<'a>(name: &'a str, extension: &str) -> Option<&'a str> {
    let name = name.strip_suffix(extension)?;
    let (name, count) = name.rsplit_once("-of-")?;
    let (stem, index) = name.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(count) && is_number(index)).then_some(stem)
}

/// `a/b/c` as `a/b/` and `c`.
fn folder_and_name(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |slash| slash + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn one_set_of_weights_is_chosen() {
        for (names, chosen) in [
            (
                &["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"][..],
                &["model.safetensors"][..],
            ),
            (&["pytorch_model.bin", "flax.safetensors"], &["pytorch_model.bin"]),
            (
                &[
                    "model-00001-of-00002.safetensors",
                    "model-00002-of-00002.safetensors",
                    "pytorch_model.bin",
                ],
                &["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            ),
            (&["tiny-00001-of-00001.bin", "training_args.bin"], &["tiny-00001-of-00001.bin"]),
            (&["my model.bin", "optimizer.bin", "config.json"], &["my model.bin"]),
        ] {
            assert_eq!(choose_weights(names).expect("weights"), chosen, "{names:?}");
        }
        for (names, said) in [
            (&["a.safetensors", "b.safetensors"][..], "a.safetensors and b.safetensors could each be"),
            (&["training_args.bin", "config.json"], "expected model.safetensors"),
            (&[], "expected model.safetensors"),
        ] {
            let refusal = choose_weights(names).expect_err(said);
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
