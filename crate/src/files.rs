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

    /// The files that hold weights: the safetensors files, or else the PyTorch ones.
    pub(crate) fn into_weights(self) -> Result<Vec<Box<dyn Source>>> {
        let names = self.names();
        for [start, end] in
            [["model", ".safetensors"], ["", ".safetensors"], ["pytorch_model", ".bin"], ["", ".bin"]]
        {
            let is_weights = |file: &dyn Source| {
                let (_, name) = folder_and_name(file.name());
                name.starts_with(start) && name.ends_with(end)
            };
            if self.files.iter().any(|file| is_weights(file.as_ref())) {
                return Ok(self.files.into_iter().filter(|file| is_weights(file.as_ref())).collect());
            }
        }
        let problem = "no weights: expected model.safetensors or pytorch_model.bin";
        Err(Error::MissingFile(format!("{problem} among the files ({names})")))
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

/// `a/b/c` as `a/b/` and `c`.
fn folder_and_name(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |slash| slash + 1))
}
