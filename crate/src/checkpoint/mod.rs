//! Model files: which tensors they hold, where each lies, and how a range of one becomes f32.
//!
//! A checkpoint is one or more files, each sniffed by content, never by name (`sniff`): safetensors
//! (`safetensors`), or the zip archive that `torch.save` writes (`torch`, over `archive`, `pickle` and
//! `rebuild`). Opening reads headers only; weights are read later, tensor by tensor and strip by strip,
//! through [`Source::read_at`]. Integers of 8 bits are weights where their scales stand beside them
//! (`scaled`).
//!
//! Every file is untrusted: each length, offset and count is checked, as `u64`, against the file's real size
//! before memory is reserved for it.
//!
//! Not responsible for which tensors a model needs, nor for the packed form that its weights take.
//!
//! A new format is one file with a `tensors(&dyn Source) -> Result<Vec<TensorInfo>>`, one `sniff::Format` and
//! one arm in [`Checkpoint::open`]; dtypes that are not plain floats widen [`DType`] and
//! [`Checkpoint::read_f32`].

mod archive;
mod convert;
mod cursor;
mod pickle;
mod rebuild;
mod safetensors;
mod scaled;
mod sniff;
mod source;
#[cfg(test)]
mod tests;
mod torch;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::ops::Range;

use crate::{Error, Result};
use sniff::Format;

pub use scaled::Scales;
#[cfg(not(target_arch = "wasm32"))]
pub use source::FileSource;
pub use source::{Awaited, BytesSource, Source};

/// Elements read and converted at a time, 1 MiB as f32: what is converted was just read, so it is still in
/// the cache.
pub(crate) const STRIP: usize = 256 * 1024;

/// More dimensions than any weight has.
const MAX_RANK: usize = 16;

/// How the elements of a stored tensor are encoded, always little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// Integers of 8 bits, each worth a scale that it shares with its neighbours.
    I8(Scales),
    /// Anything else, under its safetensors name (`I64`, `BOOL`, ...): listed, but not readable as f32.
    Other(String),
}

impl DType {
    fn from_name(name: &str) -> Self {
        match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            other => Self::Other(other.into()),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I8(_) => "I8",
            Self::Other(name) => name,
        })
    }
}

/// What a checkpoint's headers say about one tensor. The elements lie contiguous, row-major, in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Dotted path, as the file has it.
    pub name: String,
    /// Encoding of the elements.
    pub dtype: DType,
    /// Extent of each dimension, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Where the elements lie in their file.
    range: Range<u64>,
    /// Index of that file in [`Checkpoint::files`].
    file: usize,
}

impl TensorInfo {
    /// Number of elements: the product of [`TensorInfo::shape`].
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&extent| extent as u64).product()
    }

    /// Bytes that the elements take in the file, their scales included.
    pub fn bytes(&self) -> u64 {
        let scales = if let DType::I8(scales) = &self.dtype { scales.tensor.bytes() } else { 0 };
        self.range.end - self.range.start + scales
    }

    /// Bytes that the first `elements` take in the file, of their scales a share.
    pub(crate) fn bytes_of_first(&self, elements: u64) -> u64 {
        let share = u128::from(self.bytes()) * u128::from(elements) / u128::from(self.elements().max(1));
        share as u64
    }

    /// Where `elements`, of which there is one at least, lie, their scales first: files and ranges of them.
    fn stored(&self, elements: Range<u64>) -> Vec<(usize, Range<u64>)> {
        let mut stored = match &self.dtype {
            DType::I8(scales) => scales.tensor.stored(scales.of(elements.clone())),
            _ => Vec::new(),
        };
        let width = (self.range.end - self.range.start) / self.elements();
        let [start, end] = [elements.start, elements.end].map(|element| self.range.start + element * width);
        stored.push((self.file, start..end));
        stored
    }

    /// The refusal of a tensor whose elements are no floats.
    pub(crate) fn not_floats(&self) -> Error {
        let expected = format!("F32, F16, BF16, or I8 with `{}_scale`", self.name);
        Error::Tensor { name: self.name.clone(), expected, found: self.dtype.to_string() }
    }

    /// Checks `values`, which are the elements from `start` on: integers made of them would hide one that is no number.
    ///
    /// # Errors
    /// [`Error::Tensor`] with the first that is not finite.
    pub(crate) fn check_finite(&self, start: u64, values: &[f32]) -> Result<()> {
        let Some(index) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let (name, expected) = (self.name.clone(), "finite numbers".to_owned());
        let found = format!("{} at element {}", values[index], start + index as u64);
        Err(Error::Tensor { name, expected, found })
    }
}

/// The tensors of one checkpoint, over all of its files.
///
/// ```
/// use vitrine::checkpoint::{BytesSource, Checkpoint};
///
/// let header = br#"{"bias":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;
/// let length = (header.len() as u64).to_le_bytes();
/// let file = [&length[..], header, &[0xc0, 0x3f, 0x00, 0xc0]].concat();
///
/// let checkpoint = Checkpoint::open(vec![Box::new(BytesSource::new("model.safetensors", file))])?;
/// let bias = checkpoint.get("bias").expect("it was just written");
/// let mut values = [0.0; 2];
/// checkpoint.read_f32(bias, 0, &mut values)?;
/// assert_eq!(values, [1.5, -2.0]);
/// # Ok::<(), vitrine::Error>(())
/// ```
pub struct Checkpoint {
    files: Vec<Box<dyn Source>>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Checkpoint {
    /// Reads the headers of `files`, the shards of one checkpoint (often a single one), and checks them.
    ///
    /// # Errors
    /// [`Error::MissingFile`] without any file; [`Error::File`] where one is not a checkpoint, is truncated,
    /// lies about its content, asks for a function to be called, or holds a tensor that another one holds
    /// too; [`Error::Tensor`] for scales that do not fit their tensor; [`Error::Read`] and [`Error::Memory`]
    /// where bytes or room for a header cannot be had.
    pub fn open(files: Vec<Box<dyn Source>>) -> Result<Self> {
        if files.is_empty() {
            let problem = "no file with weights; a checkpoint needs model.safetensors or pytorch_model.bin";
            return Err(Error::MissingFile(problem.into()));
        }
        let mut tensors = BTreeMap::<String, TensorInfo>::new();
        for (file, source) in files.iter().enumerate() {
            let found = match sniff::format(&**source)? {
                Format::Safetensors => safetensors::tensors(&**source)?,
                Format::Torch => torch::tensors(&**source)?,
            };
            for tensor in found {
                match tensors.entry(tensor.name.clone()) {
                    Entry::Vacant(vacant) => _ = vacant.insert(TensorInfo { file, ..tensor }),
                    Entry::Occupied(first) => {
                        let problem = if first.get().file == file {
                            format!("the tensor `{}` appears twice", escaped(&tensor.name))
                        } else {
                            let first = files[first.get().file].name();
                            format!(
                                "the tensor `{}` is also in {first}; give one copy of the weights",
                                tensor.name
                            )
                        };
                        return Err(Error::file(source.name(), problem));
                    }
                }
            }
        }
        scaled::pair(&mut tensors)?;
        Ok(Self { files, tensors })
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The names of all tensors, sorted; scales belong to their tensor, and are not among them.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// Bytes of all tensors as stored; elements that two tensors share count twice.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(TensorInfo::bytes).sum()
    }

    /// Tells the sources that these elements, one at least, will be asked for next: see [`Source::expect`].
    pub fn expect(&self, tensor: &TensorInfo, elements: Range<u64>) {
        tensor.stored(elements).into_iter().for_each(|(file, range)| self.files[file].expect(range));
    }

    /// Waits until these elements, one at least, can be read without blocking: see [`Source::ready`].
    ///
    /// # Errors
    /// [`Error::Read`] where their bytes cannot be had.
    pub async fn ready(&self, tensor: &TensorInfo, elements: Range<u64>) -> Result<()> {
        for (file, range) in tensor.stored(elements) {
            self.files[file].ready(range).await?;
        }
        Ok(())
    }

    /// Reads the elements `[start_element, start_element + out.len())` of `tensor`, in row-major order, as
    /// f32.
    ///
    /// Exact: every f16 and bf16 is an f32; an integer times its scale is rounded once, where the scale has more
    /// than 17 bits. The file's bytes are read into the end of `out` and converted in place, in strips of 1 MiB,
    /// so no other memory is needed but for a strip's scales.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a dtype that is neither a float of 16 or 32 bits nor has scales, and for a scale that
    /// is not finite; [`Error::Read`] where the bytes cannot be had, with `out` left in an unspecified state.
    ///
    /// # Panics
    /// Where the range passes the end of the tensor, or `tensor` comes from another checkpoint.
    pub fn read_f32(&self, tensor: &TensorInfo, start_element: u64, out: &mut [f32]) -> Result<()> {
        let (width, to_f32): (usize, fn(&mut [f32])) = match &tensor.dtype {
            DType::F32 => (4, convert::f32_in_place),
            DType::F16 => (2, convert::f16_in_place),
            DType::BF16 => (2, convert::bf16_in_place),
            DType::I8(_) => (1, convert::i8_in_place),
            DType::Other(_) => return Err(tensor.not_floats()),
        };
        let elements = tensor.elements();
        assert!(
            start_element.checked_add(out.len() as u64).is_some_and(|end| end <= elements),
            "`{}`: {} elements asked for at {start_element}, but it has {elements}",
            tensor.name,
            out.len(),
        );
        let source = &*self.files[tensor.file];
        let mut element = start_element;
        for strip in out.chunks_mut(STRIP) {
            let offset = tensor.range.start + element * width as u64;
            source.read_at(offset, convert::raw_bytes(strip, width))?;
            to_f32(strip);
            if let DType::I8(scales) = &tensor.dtype {
                self.scale(scales, element, strip)?;
            }
            element += strip.len() as u64;
        }
        Ok(())
    }

    /// Turns `integers`, a tensor's elements from `start` on, into what they are worth.
    fn scale(&self, scales: &Scales, start: u64, integers: &mut [f32]) -> Result<()> {
        let needed = scales.of(start..start + integers.len() as u64);
        let mut values = vec![0.0; (needed.end - needed.start) as usize];
        self.read_f32(&scales.tensor, needed.start, &mut values)?;
        scales.tensor.check_finite(needed.start, &values)?;
        scales.apply(&values, start, integers);
        Ok(())
    }
}

/// A shape as this machine counts, and its number of elements, or what is wrong with it.
fn checked_shape(
    extents: impl ExactSizeIterator<Item = u64>,
) -> std::result::Result<(Vec<usize>, u64), String> {
    if extents.len() > MAX_RANK {
        return Err(format!("has {} dimensions; expected at most {MAX_RANK}", extents.len()));
    }
    let mut shape = Vec::with_capacity(extents.len());
    let mut elements = 1u64;
    for extent in extents {
        let known = usize::try_from(extent).ok().zip(elements.checked_mul(extent));
        let Some((extent, product)) = known else {
            return Err("has more elements than this machine can address".into());
        };
        shape.push(extent);
        elements = product;
    }
    Ok((shape, elements))
}

/// A name or text out of a file, fit for a message: control characters escaped, and cut where it is absurdly
/// long.
fn escaped(name: &str) -> String {
    const MOST: usize = 200;
    let mut shown = String::new();
    for (i, character) in name.chars().enumerate() {
        match character {
            _ if i == MOST => return shown + "...",
            character if character.is_control() => shown.extend(character.escape_debug()),
            character => shown.push(character),
        }
    }
    shown
}
