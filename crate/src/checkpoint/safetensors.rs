//! The safetensors header: a length of 8 bytes, little-endian, a JSON object of that length, then the
//! tensors.
//!
//! Format: <https://github.com/huggingface/safetensors#format>. Own reader, since the reference one wants the
//! whole file in memory. As strict as it: the tensors tile the rest of the file, without overlap, gap or
//! remainder.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};

use super::source::read_range;
use super::{DType, Source, TensorInfo, checked_shape, escaped};
use crate::{Error, Result};

/// As the reference implementation has it.
const MAX_HEADER: u64 = 100_000_000;

/// The tensors of the safetensors file `source`, in the order of their offsets.
pub(super) fn tensors(source: &dyn Source) -> Result<Vec<TensorInfo>> {
    let refuse = |problem: String| Error::file(source.name(), problem);
    let header = read_header(source)?;
    let data_start = 8 + header.len() as u64;
    let data_length = source.len() - data_start;

    let text = std::str::from_utf8(&header)
        .map_err(|error| refuse(format!("the header is not UTF-8 at its byte {}", error.valid_up_to())))?;
    let Header(entries) = serde_json::from_str(text)
        .map_err(|error| refuse(escaped(&format!("the header is not valid: {error}"))))?;

    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let refuse = |problem: String| refuse(format!("the tensor `{}` {problem}", escaped(&name)));
        let [start, end] = entry.data_offsets;
        if start > end {
            return Err(refuse(format!("has offsets [{start}, {end}], which run backwards")));
        }
        if end > data_length {
            return Err(refuse(format!(
                "ends at byte {end} of the data, but the file holds {data_length} bytes of data: it is \
                 truncated, or its header is wrong; download it again"
            )));
        }
        let (shape, elements) = checked_shape(entry.shape.iter().copied()).map_err(refuse)?;
        if let Some(bits) = bits_per_element(&entry.dtype) {
            let expected = elements.checked_mul(bits).map(|bits| bits.div_ceil(8));
            if expected != Some(end - start) {
                let expected = expected.map_or("more than any file".into(), |bytes| format!("{bytes} bytes"));
                let (found, dtype, shape) = (end - start, &entry.dtype, &entry.shape);
                return Err(refuse(format!(
                    "is {dtype} {shape:?}: expected {expected}, found {found} bytes"
                )));
            }
        }
        let (dtype, range) = (DType::from_name(&entry.dtype), data_start + start..data_start + end);
        tensors.push(TensorInfo { name, dtype, shape, range, file: 0 });
    }

    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    let mut previous_end = data_start;
    for (i, tensor) in tensors.iter().enumerate() {
        if tensor.range.start < previous_end {
            let (previous, name) = (escaped(&tensors[i - 1].name), escaped(&tensor.name));
            return Err(refuse(format!("the tensors `{previous}` and `{name}` overlap")));
        }
        if tensor.range.start > previous_end {
            let gap = tensor.range.start - previous_end;
            return Err(refuse(format!(
                "{gap} bytes before the tensor `{}` belong to no tensor",
                tensor.name
            )));
        }
        previous_end = tensor.range.end;
    }
    if previous_end < source.len() {
        let rest = source.len() - previous_end;
        return Err(refuse(format!("the last {rest} bytes of the file belong to no tensor")));
    }
    Ok(tensors)
}

fn read_header(source: &dyn Source) -> Result<Vec<u8>> {
    let refuse = |problem: String| Error::file(source.name(), problem);
    let Some(after_length) = source.len().checked_sub(8) else {
        return Err(refuse(format!("{} bytes are too few for a safetensors file", source.len())));
    };
    let mut length = [0; 8];
    source.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > after_length {
        return Err(refuse(format!(
            "the header says that it is {length} bytes long, but only {after_length} follow: the file is \
             truncated, or is not safetensors; download it again"
        )));
    }
    if length > MAX_HEADER {
        return Err(refuse(format!("the header is {length} bytes long; expected at most {MAX_HEADER}")));
    }
    read_range(source, 8, length)
}

/// Bits of one element of a dtype that the format defines; `None` for one that is newer than this reader.
fn bits_per_element(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "C64" | "F64" | "I64" | "U64" => 64,
        "F32" | "I32" | "U32" => 32,
        "F16" | "BF16" | "I16" | "U16" => 16,
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "F6_E2M3" | "F6_E3M2" => 6,
        "F4" => 4,
        _ => return None,
    })
}

/// The JSON object, in its own order and with its duplicates, so that a name given twice is seen.
struct Header(Vec<(String, Entry)>);

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one entry per tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let entry = map
                .next_value()
                .map_err(|error| de::Error::custom(format!("tensor `{}`: {error}", escaped(&name))))?;
            entries.push((name, entry));
        }
        Ok(Header(entries))
    }
}
