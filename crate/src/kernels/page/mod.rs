//! The pages of the KV cache: panels of keys and values, written in place.

mod integers;

pub(super) use integers::{IntegerPage, PageBlock};

use super::q8::Integers;
use super::{BLOCK, Entry, PAGE, PANEL};
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
use super::{q8_quads::Quads, relaxed_dot};
use crate::error::{Error, Result};
use std::ops::Range;

/// How keys and values are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheFormat {
    /// 32-bit floats.
    F32,
    /// 8-bit integers in the order of [`Q8Block`](super::Q8Block). The key of a position and a head has one scale, and so has the value.
    Q8,
    /// The same integers in the order of `Q8QuadBlock`.
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    Q8Quads,
}

/// [`PAGE`] positions of the KV cache of one layer, for a range of heads.
///
/// Keys are panels of positions, values panels of head dimensions, both as [the packed weights](super) of the same precision are:
///
/// ```text
/// f32   keys    [heads][PAGE / PANEL][head_dim] entries: dimension d of 16 positions
///       values  [heads][ceil(head_dim / PANEL)][PAGE] entries: 16 dimensions of position p
/// q8    keys    [PAGE / PANEL][heads][ceil(head_dim / BLOCK)] blocks: 32 dimensions of 16 positions
///       values  [ceil(head_dim / PANEL)][heads][PAGE / BLOCK] blocks: 32 positions of 16 dimensions
///       scales  [PAGE / PANEL][heads] entries of the keys: 16 positions; [heads][PAGE] of the values
/// ```
///
/// The integers of a block are in one of two orders, as [`CacheFormat`] says. What is after the last dimension, or not written yet, holds
/// anything: it meets zeros, or its sums are left out. A scale belongs to one position, so a position is written without a look at its
/// neighbours, and stays as it is when they come. The 8-bit keys and values of all heads lie together, panel by panel, and so do the scales
/// of keys: after a pass over all weights no processor's cache holds them any more, and what is written for a position, and read for it, is
/// a stream again.
#[derive(Debug)]
pub struct Page {
    shape: Shape,
    kind: Kind,
}

/// Heads, and elements of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) heads: usize,
    pub(super) head_dim: usize,
}

impl Shape {
    /// Blocks of the key of a head.
    fn key_blocks(self) -> usize {
        self.head_dim.div_ceil(BLOCK)
    }

    /// Panels of the value of a head.
    fn value_panels(self) -> usize {
        self.head_dim.div_ceil(PANEL)
    }

    /// Of arrays `[panels][heads]`, what belongs to some heads, in parts that lie together: all of it, or panel by panel.
    fn runs(self, panels: usize, heads: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let panels_of_run = if heads.len() == self.heads { panels.max(1) } else { 1 };
        let len = (panels_of_run - 1) * self.heads + heads.len();
        let first = (0..panels).step_by(panels_of_run).map(move |panel| panel * self.heads);
        let start = heads.start;
        first.map(move |first| first + start..first + start + len)
    }
}

#[derive(Debug)]
enum Kind {
    F32 {
        keys: Box<[Entry]>,
        values: Box<[Entry]>,
    },
    Q8(IntegerPage<Integers>),
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    Q8Quads(IntegerPage<Quads>),
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
    /// All that this build has.
    #[cfg(test)]
    pub(super) const ALL: &[Self] = &[
        Self::F32,
        Self::Q8,
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        Self::Q8Quads,
    ];

    /// 8-bit integers in the order that this processor multiplies: quads where it has the dot of bytes (`relaxed_dot`).
    pub fn integers() -> Self {
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        if relaxed_dot::is_one_instruction() {
            return Self::Q8Quads;
        }
        Self::Q8
    }

    fn lengths(self, shape: Shape) -> Lengths {
        match self {
            Self::F32 => Lengths {
                keys: PAGE / PANEL * shape.head_dim,
                values: shape.value_panels() * PAGE,
                key_scales: 0,
                value_scales: 0,
            },
            _ => Lengths {
                keys: PAGE / PANEL * shape.key_blocks(),
                values: shape.value_panels() * (PAGE / BLOCK),
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
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Self::Q8Quads => size_of::<Quads>(),
        }
    }
}

impl Page {
    /// A page of zeros.
    ///
    /// # Errors
    /// [`Error::Memory`] if the allocator refuses.
    pub fn new(format: CacheFormat, heads: usize, head_dim: usize) -> Result<Self> {
        let shape = Shape { heads, head_dim };
        let kind = match format {
            CacheFormat::F32 => {
                let Lengths { keys, values, .. } = format.lengths(shape);
                let zeros = |len| filled(heads * len, [0.0; PANEL]);
                Kind::F32 { keys: zeros(keys)?, values: zeros(values)? }
            }
            CacheFormat::Q8 => Kind::Q8(IntegerPage::new(shape)?),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            CacheFormat::Q8Quads => Kind::Q8Quads(IntegerPage::new(shape)?),
        };
        Ok(Self { shape, kind })
    }

    /// Bytes that a page of this shape takes.
    pub fn bytes(format: CacheFormat, heads: usize, head_dim: usize) -> u64 {
        let Lengths { keys, values, key_scales, value_scales } = format.lengths(Shape { heads, head_dim });
        let [elements, scales] =
            [keys + values, key_scales * PANEL + value_scales * PAGE].map(|len| heads as u64 * len as u64);
        elements * format.element_bytes() as u64 + scales * size_of::<f32>() as u64
    }

    /// How this page holds its numbers.
    pub fn format(&self) -> CacheFormat {
        match self.kind {
            Kind::F32 { .. } => CacheFormat::F32,
            Kind::Q8(_) => CacheFormat::Q8,
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Kind::Q8Quads(_) => CacheFormat::Q8Quads,
        }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Writes the key and the value (`[heads * head_dim]` each) of the position at `slot` of this page.
    ///
    /// # Panics
    /// If `slot` is not below [`PAGE`], or a row has another length.
    pub fn write(&mut self, slot: usize, key: &[f32], value: &[f32]) {
        let Shape { heads, head_dim } = self.shape;
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
        let rows = key.chunks_exact(head_dim).zip(value.chunks_exact(head_dim));
        match &mut self.kind {
            Kind::F32 { keys, values } => {
                let lengths = CacheFormat::F32.lengths(self.shape);
                let heads = keys.chunks_exact_mut(lengths.keys).zip(values.chunks_exact_mut(lengths.values));
                for ((keys, values), (key, value)) in heads.zip(rows) {
                    write_floats(keys, values, slot, key, value);
                }
            }
            Kind::Q8(integers) => integers.write(slot, rows),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Kind::Q8Quads(integers) => integers.write(slot, rows),
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
        let lengths = CacheFormat::F32.lengths(self.shape);
        (part(keys, head, lengths.keys), part(values, head, lengths.values))
    }

    /// The keys and values as integers.
    ///
    /// # Panics
    /// If this page is of another format.
    #[inline(always)]
    pub(super) fn integers<B: PageBlock>(&self) -> &IntegerPage<B> {
        B::of(self).expect("pages of one cache differ in their format")
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

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn bytes_are_those_of_the_arrays() {
        for head_dim in [0, 1, 16, 33, 64, 80] {
            for &format in CacheFormat::ALL {
                let bytes = match Page::new(format, 3, head_dim).expect("fits").kind {
                    Kind::F32 { keys, values } => size_of_val(&*keys) + size_of_val(&*values),
                    Kind::Q8(integers) => integers.bytes(),
                    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
                    Kind::Q8Quads(integers) => integers.bytes(),
                };
                assert_eq!(bytes as u64, Page::bytes(format, 3, head_dim), "{format:?}, {head_dim}");
            }
        }
    }
}
