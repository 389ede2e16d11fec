//! The pages of the KV cache: panels of keys and values, written in place.

use super::block::padded;
use super::q8::Integers;
use super::quantise::{LEVELS_I8, integer, scale_of};
use super::{BLOCK, Entry, PAGE, PANEL};
use crate::error::{Error, Result};

/// How keys and values are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheFormat {
    /// 32-bit floats.
    F32,
    /// 8-bit integers. The key of a position and a head has one scale, and so has the value.
    Q8,
}

/// [`PAGE`] positions of the KV cache of one layer, for a range of heads.
///
/// Keys are panels of positions, values panels of head dimensions, both as [the packed weights](super) of the same precision are:
///
/// ```text
/// f32   keys    [heads][PAGE / PANEL][head_dim] entries: dimension d of 16 positions
///       values  [heads][ceil(head_dim / PANEL)][PAGE] entries: 16 dimensions of position p
/// q8    keys    [PAGE / PANEL][heads][ceil(head_dim / BLOCK)] blocks: 32 dimensions of 16 positions
///       values  [heads][ceil(head_dim / PANEL)][PAGE / BLOCK] blocks: 32 positions of 16 dimensions
///       scales  [PAGE / PANEL][heads] entries of the keys: 16 positions; [heads][PAGE] of the values
/// ```
///
/// Dimensions after the last are zeros. A scale belongs to one position, so a position is written without a look at its
/// neighbours, and stays as it is when they come. The 8-bit keys of all heads lie together, panel by panel of positions, and so do their
/// scales: after a pass over all weights no processor's cache holds them any more, and what is written for a position, and read for it, is a
/// stream again.
#[derive(Debug)]
pub struct Page {
    heads: usize,
    head_dim: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    F32 {
        keys: Box<[Entry]>,
        values: Box<[Entry]>,
    },
    Q8 {
        keys: Box<[Integers]>,
        values: Box<[Integers]>,
        key_scales: Box<[Entry]>,
        value_scales: Box<[[f32; PAGE]]>,
    },
}

/// How many elements of the arrays of a [`Page`] belong to one head.
struct Lengths {
    keys: usize,
    values: usize,
    /// Entries of the keys' scales.
    key_scales: usize,
    /// Pages of the values' scales.
    value_scales: usize,
}

impl CacheFormat {
    fn lengths(self, head_dim: usize) -> Lengths {
        let value_panels = head_dim.div_ceil(PANEL);
        match self {
            Self::F32 => Lengths {
                keys: PAGE / PANEL * head_dim,
                values: value_panels * PAGE,
                key_scales: 0,
                value_scales: 0,
            },
            Self::Q8 => Lengths {
                keys: PAGE / PANEL * head_dim.div_ceil(BLOCK),
                values: value_panels * (PAGE / BLOCK),
                key_scales: PAGE / PANEL,
                value_scales: 1,
            },
        }
    }

    /// Bytes of an element of keys and values.
    fn element_bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<Entry>(),
            Self::Q8 => size_of::<Integers>(),
        }
    }
}

impl Page {
    /// A page of zeros.
    ///
    /// # Errors
    /// [`Error::Memory`] if the allocator refuses.
    pub fn new(format: CacheFormat, heads: usize, head_dim: usize) -> Result<Self> {
        let lengths = format.lengths(head_dim);
        let (keys, values) = (heads * lengths.keys, heads * lengths.values);
        let kind = match format {
            CacheFormat::F32 => {
                Kind::F32 { keys: filled(keys, [0.0; PANEL])?, values: filled(values, [0.0; PANEL])? }
            }
            CacheFormat::Q8 => Kind::Q8 {
                keys: filled(keys, Integers::ZERO)?,
                values: filled(values, Integers::ZERO)?,
                key_scales: filled(heads * lengths.key_scales, [0.0; PANEL])?,
                value_scales: filled(heads * lengths.value_scales, [0.0; PAGE])?,
            },
        };
        Ok(Self { heads, head_dim, kind })
    }

    /// Bytes that a page of this shape takes.
    pub fn bytes(format: CacheFormat, heads: usize, head_dim: usize) -> u64 {
        let Lengths { keys, values, key_scales, value_scales } = format.lengths(head_dim);
        let [elements, scales] =
            [keys + values, key_scales * PANEL + value_scales * PAGE].map(|len| heads as u64 * len as u64);
        elements * format.element_bytes() as u64 + scales * size_of::<f32>() as u64
    }

    /// How this page holds its numbers.
    pub fn format(&self) -> CacheFormat {
        match self.kind {
            Kind::F32 { .. } => CacheFormat::F32,
            Kind::Q8 { .. } => CacheFormat::Q8,
        }
    }

    /// Heads, and elements of each.
    pub(super) fn heads(&self) -> (usize, usize) {
        (self.heads, self.head_dim)
    }

    /// Writes the key and the value (`[heads * head_dim]` each) of the position at `slot` of this page.
    ///
    /// # Panics
    /// If `slot` is not below [`PAGE`], or a row has another length.
    pub fn write(&mut self, slot: usize, key: &[f32], value: &[f32]) {
        let (heads, head_dim) = (self.heads, self.head_dim);
        assert!(slot < PAGE, "slot {slot} of a page of {PAGE}");
        assert!(
            key.len() == heads * head_dim && value.len() == key.len(),
            "{heads} heads of {head_dim}: key of {}, value of {}",
            key.len(),
            value.len()
        );
        if head_dim == 0 {
            return;
        }
        let lengths = self.format().lengths(head_dim);
        let rows = key.chunks_exact(head_dim).zip(value.chunks_exact(head_dim));
        match &mut self.kind {
            Kind::F32 { keys, values } => {
                let heads = keys.chunks_exact_mut(lengths.keys).zip(values.chunks_exact_mut(lengths.values));
                for ((keys, values), (key, value)) in heads.zip(rows) {
                    write_floats(keys, values, slot, key, value);
                }
            }
            Kind::Q8 { keys, values, key_scales, value_scales } => {
                let (first, key_blocks) = (slot / PANEL * heads, head_dim.div_ceil(BLOCK));
                let keys =
                    keys[first * key_blocks..].chunks_exact_mut(key_blocks).zip(&mut key_scales[first..]);
                let values = values.chunks_exact_mut(lengths.values).zip(value_scales);
                for (((keys, key_scales), (values, value_scales)), (key, value)) in keys.zip(values).zip(rows)
                {
                    key_scales[slot % PANEL] = write_key(keys, slot, key);
                    value_scales[slot] = write_value(values, slot, value);
                }
            }
        }
    }

    /// The keys and values of a head as floats.
    ///
    /// # Panics
    /// If this page is of another format.
    #[inline(always)]
    pub(super) fn floats(&self, head: usize) -> (&[Entry], &[Entry]) {
        let Kind::F32 { keys, values } = &self.kind else {
            panic!("pages of one cache differ in their format")
        };
        let lengths = CacheFormat::F32.lengths(self.head_dim);
        (part(keys, head, lengths.keys), part(values, head, lengths.values))
    }

    /// The keys of a head at a panel of positions as integers, and what they are worth.
    ///
    /// # Panics
    /// If this page is of another format.
    #[inline(always)]
    pub(super) fn integer_keys(&self, panel: usize, head: usize) -> (&[Integers], &Entry) {
        let Kind::Q8 { keys, key_scales, .. } = &self.kind else {
            panic!("pages of one cache differ in their format")
        };
        let index = panel * self.heads + head;
        (part(keys, index, self.head_dim.div_ceil(BLOCK)), &key_scales[index])
    }

    /// The values of a head as integers, and what they are worth, by position.
    ///
    /// # Panics
    /// If this page is of another format.
    #[inline(always)]
    pub(super) fn integer_values(&self, head: usize) -> (&[Integers], &[f32; PAGE]) {
        let Kind::Q8 { values, value_scales, .. } = &self.kind else {
            panic!("pages of one cache differ in their format")
        };
        let len = CacheFormat::Q8.lengths(self.head_dim).values;
        (part(values, head, len), &value_scales[head])
    }
}

/// `len` elements, all the same.
fn filled<T: Copy>(len: usize, value: T) -> Result<Box<[T]>> {
    let mut buffer = Vec::new();
    buffer
        .try_reserve_exact(len)
        .map_err(|_| Error::Memory(format!("a page of the KV cache needs {} bytes", len * size_of::<T>())))?;
    buffer.resize(len, value);
    Ok(buffer.into_boxed_slice())
}

/// Part `index` of parts of `len`.
#[inline(always)]
fn part<T>(all: &[T], index: usize, len: usize) -> &[T] {
    &all[index * len..][..len]
}

fn write_floats(keys: &mut [Entry], values: &mut [Entry], slot: usize, key: &[f32], value: &[f32]) {
    for (entry, key) in keys[slot / PANEL * key.len()..].iter_mut().zip(key) {
        entry[slot % PANEL] = *key;
    }
    for (panel, value) in values.chunks_exact_mut(PAGE).zip(value.chunks(PANEL)) {
        panel[slot][..value.len()].copy_from_slice(value);
    }
}

/// Writes the key and returns its scale.
fn write_key(keys: &mut [Integers], slot: usize, key: &[f32]) -> f32 {
    let (scale, inverse) = scale_of(key, LEVELS_I8);
    for (block, key) in keys.iter_mut().zip(key.chunks(BLOCK)) {
        for (d, integer) in integers::<BLOCK>(key, inverse).into_iter().enumerate() {
            block.set(slot % PANEL, d, integer as i8);
        }
    }
    scale
}

/// Writes the value and returns its scale.
fn write_value(values: &mut [Integers], slot: usize, value: &[f32]) -> f32 {
    let (scale, inverse) = scale_of(value, LEVELS_I8);
    for (panel, value) in values.chunks_exact_mut(PAGE / BLOCK).zip(value.chunks(PANEL)) {
        for (d, integer) in integers::<PANEL>(value, inverse).into_iter().enumerate() {
            panel[slot / BLOCK].set(d, slot % BLOCK, integer as i8);
        }
    }
    scale
}

/// Up to `N` numbers times `inverse`, rounded, and zeros.
#[inline(always)]
fn integers<const N: usize>(x: &[f32], inverse: f32) -> [i32; N] {
    padded(x, 0.0).map(|x| integer(x * inverse, LEVELS_I8))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn bytes_are_those_of_the_arrays() {
        for head_dim in [0, 1, 16, 33, 64, 80] {
            for format in [CacheFormat::F32, CacheFormat::Q8] {
                let bytes = match Page::new(format, 3, head_dim).expect("fits").kind {
                    Kind::F32 { keys, values } => size_of_val(&*keys) + size_of_val(&*values),
                    Kind::Q8 { keys, values, key_scales, value_scales } => {
                        let scales = size_of_val(&*key_scales) + size_of_val(&*value_scales);
                        size_of_val(&*keys) + size_of_val(&*values) + scales
                    }
                };
                assert_eq!(bytes as u64, Page::bytes(format, 3, head_dim), "{format:?}, {head_dim}");
            }
        }
    }
}
