//! `pytorch_model.bin`: a zip archive with a pickle in it, and one entry per storage.
//!
//! ```text
//! <any name>/data.pkl        the state dict; its storages are persistent ids that name the entries below
//! <any name>/byteorder       `little`; absent in files of 2022
//! <any name>/data/0, 1, ...  the elements of one storage each, maybe of several tensors
//! ```
//! Format: torch/serialization.py, `_save`, since PyTorch 1.6.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::archive::Archive;
use super::rebuild::{self, NamedTensor};
use super::source::read_range;
use super::{DType, Source, TensorInfo, escaped};
use crate::{Error, Result};

/// Room for more opcodes, names included, than [`super::pickle`] runs.
const MAX_PICKLE: u64 = 16 << 20;

/// The tensors of the file `source`, in the order of its state dict.
pub(super) fn tensors(source: &dyn Source) -> Result<Vec<TensorInfo>> {
    let archive = Archive::open(source)?;
    let refuse = |problem: String| Error::file(source.name(), problem);

    let top = top_folder(&archive).map_err(|problem| refuse(problem.into()))?;
    if let Some(range) = archive.find(&format!("{top}/byteorder"))? {
        let order = read_range(source, range.start, (range.end - range.start).min(16))?;
        if order != b"little" {
            let order = escaped(&String::from_utf8_lossy(&order));
            return Err(refuse(format!("the byte order is `{order}`; expected `little`")));
        }
    }
    let Some(range) = archive.find(&format!("{top}/data.pkl"))? else {
        unreachable!("its folder was just found")
    };
    let length = range.end - range.start;
    if length > MAX_PICKLE {
        return Err(refuse(format!("its data.pkl is {length} bytes long; expected at most {MAX_PICKLE}")));
    }
    let pickle = read_range(source, range.start, length)?;

    let mut storages = BTreeMap::new();
    let mut tensors = Vec::new();
    for tensor in rebuild::state_dict(&pickle).map_err(refuse)? {
        let NamedTensor { name, class, key, .. } = tensor;
        let refuse = |problem: String| refuse(format!("the tensor `{}` {problem}", escaped(name)));
        let storage = match storages.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => match archive.find(&format!("{top}/data/{key}"))? {
                Some(range) => new.insert(range),
                None => {
                    return Err(refuse(format!("is in the storage `{}`, which is missing", escaped(key))));
                }
            },
        };
        let found = storage.end - storage.start;
        if tensor.storage_elements.checked_mul(class.width) != Some(found) {
            let (elements, dtype, width) = (tensor.storage_elements, class.dtype, class.width);
            return Err(refuse(format!(
                "is in the storage `{}`: expected {elements} elements of {dtype}, {width} bytes each, found \
                 {found} bytes",
                escaped(key)
            )));
        }
        // No overflow: the tensor lies in its storage, whose bytes were just seen to lie in the file.
        let start = storage.start + tensor.offset * class.width;
        let range = start..start + tensor.elements * class.width;
        let dtype = DType::from_name(class.dtype);
        tensors.push(TensorInfo { name: name.into(), dtype, shape: tensor.shape, range, file: 0 });
    }
    Ok(tensors)
}

/// The folder that holds data.pkl: PyTorch names it after the file that was saved first.
fn top_folder(archive: &Archive) -> std::result::Result<String, &'static str> {
    let mut tops = archive.names().filter_map(|name| name.strip_suffix("/data.pkl"));
    let tops: (Option<&str>, Option<&str>) = (tops.next(), tops.next());
    match tops {
        (Some(top), _) if archive.has(&format!("{top}/constants.pkl")) => Err(
            "this is a TorchScript program, not a state dict; save the model's state_dict() with torch.save",
        ),
        (Some(top), None) => Ok(top.into()),
        (Some(_), Some(_)) => Err("this zip archive holds several files data.pkl; torch.save writes one"),
        (None, _) => Err(
            "this zip archive holds no data.pkl, so torch.save did not write it; if the model's files are \
                          inside, unpack it and give those",
        ),
    }
}
