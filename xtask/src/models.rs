//! The models in `www/models`: which there are, and what the site ships of them.

use crate::size::megabytes;
use crate::{project, site};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A model's files may have so many bytes: what a visitor's first text waits for.
const LIMIT: usize = 8_000_000;

/// The files of `www` that the site does not ship as they are, by their path in it: the weights of every folder of `models` with a
/// config.json, as [`shipped`] has them.
pub(crate) fn converted(www: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut converted = BTreeMap::new();
    for folder in project::folders_in(&www.join("models"))? {
        let (config, file) = (folder.join("config.json"), folder.join("model.safetensors"));
        if !config.is_file() {
            continue;
        }
        let failed = || format!("converting {}", file.display());
        let source = fs::read(&file).with_context(failed)?;
        let weights = shipped::convert(&project::read(&config)?, &source).with_context(failed)?;
        let name = folder.file_name().unwrap_or_default().display();
        let bytes = weights.len() + beside(www, &folder, &file)?;
        println!(
            "{name}: {} of weights are shipped as {}, {} with the files beside them",
            megabytes(source.len()),
            megabytes(weights.len()),
            megabytes(bytes)
        );
        if bytes > LIMIT {
            bail!(
                "the model {name} is too large: {}, and the limit is {}",
                megabytes(bytes),
                megabytes(LIMIT)
            );
        }
        converted.insert(file.strip_prefix(www)?.to_owned(), weights);
    }
    Ok(converted)
}

/// Bytes of the files in `folder` that are shipped as they are.
fn beside(www: &Path, folder: &Path, weights: &Path) -> Result<usize> {
    let mut bytes = 0;
    for file in project::files_below(folder)? {
        if file != weights && site::belongs(file.strip_prefix(www)?) {
            bytes += fs::metadata(&file).with_context(|| format!("looking at {}", file.display()))?.len();
        }
    }
    Ok(bytes as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `www` with one model, whose weights are one row of so many numbers, and whose tokenizer has so many bytes.
    fn www(name: &str, n_weights: usize, tokenizer: usize) -> Result<PathBuf> {
        let www = std::env::temp_dir().join(format!("vitrine-models-{}-{name}", std::process::id()));
        let folder = www.join("models").join(name);
        let bytes = 2 * n_weights;
        let header = format!(
            r#"{{"wte.weight":{{"dtype":"F16","shape":[1,{n_weights}],"data_offsets":[0,{bytes}]}}}}"#
        );
        project::write(&folder.join("config.json"), r#"{"model_type":"gpt2"}"#)?;
        project::write(&folder.join("tokenizer.json"), " ".repeat(tokenizer))?;
        project::write(&folder.join("expected.json"), " ".repeat(10_000_000))?;
        project::write(&www.join("models/recipe/train.py"), "not a model")?;
        let weights = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; bytes]].concat();
        fs::write(folder.join("model.safetensors"), weights)?;
        Ok(www)
    }

    #[test]
    fn every_model_is_converted_and_nothing_else() -> Result<()> {
        let www = www("small", 1000, 10)?;
        let converted = converted(&www)?;
        let [(file, weights)] = converted.iter().collect::<Vec<_>>()[..] else {
            bail!("{} files", converted.len())
        };
        assert_eq!(file, Path::new("models/small/model.safetensors"));
        let integers_and_scales = 1000 + 2 * 32;
        assert!(
            (integers_and_scales..integers_and_scales + 400).contains(&weights.len()),
            "{}",
            weights.len()
        );
        Ok(fs::remove_dir_all(www)?)
    }

    #[test]
    fn a_model_beyond_the_limit_is_refused_with_both_figures() -> Result<()> {
        let www = www("large", 1000, LIMIT)?;
        let error = converted(&www).unwrap_err().to_string();
        assert!(error.contains("the model large") && error.contains("8.00 MB"), "{error}");
        Ok(fs::remove_dir_all(www)?)
    }

    #[test]
    fn a_model_that_cannot_be_converted_is_named() -> Result<()> {
        let www = www("broken", 1000, 10)?;
        fs::write(www.join("models/broken/model.safetensors"), "not weights")?;
        let error = format!("{:#}", converted(&www).unwrap_err());
        assert!(error.contains("broken/model.safetensors") && error.contains("header"), "{error}");
        Ok(fs::remove_dir_all(www)?)
    }
}
