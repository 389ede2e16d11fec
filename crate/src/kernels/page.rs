//! The pages of the KV cache: panels of keys and values, written in place.

use super::panels::Floats;
use super::{Entry, Lanes, PAGE, PANEL};
use crate::error::{Error, Result};
use half::bf16;

/// How keys and values are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheFormat {
    /// 32-bit floats.
    F32,
    /// 16 bits: the upper half of an `f32`, rounded to the nearest, ties to even.
    Bf16,
}

impl CacheFormat {
    /// Bytes of [`PANEL`] numbers.
    fn entry_bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<Entry>(),
            Self::Bf16 => size_of::<Bf16Entry>(),
        }
    }
}

/// [`PANEL`] numbers of 16 bits, in the order in which a shift and a mask make vectors of them: in each half lanes 0, 4, 1, 5, 2, 6, 3, 7.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(super) struct Bf16Entry([[u16; 8]; 2]);

impl Floats for Bf16Entry {
    #[inline(always)]
    fn half<L: Lanes>(&self, lanes: L, half: usize) -> [L::V; 2] {
        lanes.load_bf16(&self.0[half])
    }
}

/// An entry of a page.
pub(super) trait PageEntry: Floats + 'static {
    const ZERO: Self;

    /// Sets one of the [`PANEL`] numbers.
    fn set(&mut self, lane: usize, value: f32);

    /// The entries of `page`, which must be of this kind.
    fn of(page: &Page) -> &Entries<Self>;
}

impl PageEntry for Entry {
    const ZERO: Self = [0.0; PANEL];

    #[inline(always)]
    fn set(&mut self, lane: usize, value: f32) {
        self[lane] = value;
    }

    #[inline(always)]
    fn of(page: &Page) -> &Entries<Self> {
        let Kind::F32(entries) = &page.kind else { panic!("pages of one cache differ in their format") };
        entries
    }
}

impl PageEntry for Bf16Entry {
    const ZERO: Self = Self([[0; 8]; 2]);

    #[inline(always)]
    fn set(&mut self, lane: usize, value: f32) {
        self.0[lane / 8][2 * (lane % 4) + lane / 4 % 2] = bf16::from_f32(value).to_bits();
    }

    #[inline(always)]
    fn of(page: &Page) -> &Entries<Self> {
        let Kind::Bf16(entries) = &page.kind else { panic!("pages of one cache differ in their format") };
        entries
    }
}

/// [`PAGE`] positions of the KV cache of one layer, for a range of heads.
///
/// Keys are panels of positions, values panels of head dimensions, both as [the packed weights](super) of `f32` are:
///
/// ```text
/// keys    [heads][PAGE / PANEL][head_dim] entries: dimension d of 16 positions
/// values  [heads][ceil(head_dim / PANEL)][PAGE] entries: 16 dimensions of position p, padded with zeros
/// ```
#[derive(Debug)]
pub struct Page {
    heads: usize,
    head_dim: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    F32(Entries<Entry>),
    Bf16(Entries<Bf16Entry>),
}

#[derive(Debug)]
pub(super) struct Entries<E> {
    keys: Box<[E]>,
    values: Box<[E]>,
}

impl Page {
    /// A page of zeros.
    ///
    /// # Errors
    /// [`Error::Memory`] if the allocator refuses.
    pub fn new(format: CacheFormat, heads: usize, head_dim: usize) -> Result<Self> {
        let kind = match format {
            CacheFormat::F32 => Kind::F32(Entries::new(heads, head_dim)?),
            CacheFormat::Bf16 => Kind::Bf16(Entries::new(heads, head_dim)?),
        };
        Ok(Self { heads, head_dim, kind })
    }

    /// Bytes that a page of this shape takes.
    pub fn bytes(format: CacheFormat, heads: usize, head_dim: usize) -> u64 {
        let entries = heads as u64 * (n_keys(head_dim) + n_values(head_dim)) as u64;
        entries * format.entry_bytes() as u64
    }

    /// How this page holds its numbers.
    pub fn format(&self) -> CacheFormat {
        match self.kind {
            Kind::F32(_) => CacheFormat::F32,
            Kind::Bf16(_) => CacheFormat::Bf16,
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
        match &mut self.kind {
            Kind::F32(entries) => entries.write(slot, head_dim, key, value),
            Kind::Bf16(entries) => entries.write(slot, head_dim, key, value),
        }
    }

    /// The keys of a head: `[PAGE / PANEL][head_dim]` entries.
    #[inline(always)]
    pub(super) fn keys<E: PageEntry>(&self, head: usize) -> &[E] {
        let entries = n_keys(self.head_dim);
        &E::of(self).keys[head * entries..][..entries]
    }

    /// The values of a head: `[ceil(head_dim / PANEL)][PAGE]` entries.
    #[inline(always)]
    pub(super) fn values<E: PageEntry>(&self, head: usize) -> &[E] {
        let entries = n_values(self.head_dim);
        &E::of(self).values[head * entries..][..entries]
    }
}

impl<E: PageEntry> Entries<E> {
    fn new(heads: usize, head_dim: usize) -> Result<Self> {
        let zeros = |entries: usize| -> Result<Box<[E]>> {
            let mut buffer = Vec::new();
            buffer.try_reserve_exact(entries).map_err(|_| {
                Error::Memory(format!("a page of the KV cache needs {} bytes", entries * size_of::<E>()))
            })?;
            buffer.resize(entries, E::ZERO);
            Ok(buffer.into_boxed_slice())
        };
        Ok(Self { keys: zeros(heads * n_keys(head_dim))?, values: zeros(heads * n_values(head_dim))? })
    }

    fn write(&mut self, slot: usize, head_dim: usize, key: &[f32], value: &[f32]) {
        let (panel, lane) = (slot / PANEL, slot % PANEL);
        let keys = self.keys.chunks_exact_mut(n_keys(head_dim));
        for (keys, key) in keys.zip(key.chunks_exact(head_dim)) {
            for (entry, key) in keys[panel * head_dim..].iter_mut().zip(key) {
                entry.set(lane, *key);
            }
        }
        let values = self.values.chunks_exact_mut(n_values(head_dim));
        for (values, value) in values.zip(value.chunks_exact(head_dim)) {
            for (panel, value) in values.chunks_exact_mut(PAGE).zip(value.chunks(PANEL)) {
                value.iter().enumerate().for_each(|(lane, value)| panel[slot].set(lane, *value));
            }
        }
    }
}

/// Entries of a head's keys.
fn n_keys(head_dim: usize) -> usize {
    head_dim * (PAGE / PANEL)
}

/// Entries of a head's values.
fn n_values(head_dim: usize) -> usize {
    head_dim.div_ceil(PANEL) * PAGE
}
