//! Keys and values of 8 bits: blocks of integers, whose scales lie beside them.

use super::{CacheFormat, Kind, Lengths, Page, Shape, filled, part};
use crate::error::Result;
use crate::kernels::block::padded;
use crate::kernels::q8::Integers;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
use crate::kernels::q8_quads::Quads;
use crate::kernels::quantise::{LEVELS_I8, integer, scale_of};
use crate::kernels::{BLOCK, Entry, PAGE, PANEL};

/// 16 rows by 32 columns of 8-bit integers, in one of the orders that they are multiplied in.
pub(in crate::kernels) trait PageBlock: Copy + 'static {
    const ZERO: Self;

    fn set(&mut self, row: usize, k: usize, integer: i8);

    /// What a page of such blocks holds.
    fn of(page: &Page) -> Option<&IntegerPage<Self>>;
}

impl PageBlock for Integers {
    const ZERO: Self = Self::ZERO;

    #[inline(always)]
    fn set(&mut self, row: usize, k: usize, integer: i8) {
        self.set(row, k, integer);
    }

    #[inline(always)]
    fn of(page: &Page) -> Option<&IntegerPage<Self>> {
        match &page.kind {
            Kind::Q8(integers) => Some(integers),
            _ => None,
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
impl PageBlock for Quads {
    const ZERO: Self = Self::ZERO;

    #[inline(always)]
    fn set(&mut self, row: usize, k: usize, integer: i8) {
        self.set(row, k, integer);
    }

    #[inline(always)]
    fn of(page: &Page) -> Option<&IntegerPage<Self>> {
        match &page.kind {
            Kind::Q8Quads(integers) => Some(integers),
            _ => None,
        }
    }
}

/// The integers of a [`Page`] with what they are worth.
#[derive(Debug)]
pub(in crate::kernels) struct IntegerPage<B> {
    shape: Shape,
    keys: Box<[B]>,
    values: Box<[B]>,
    key_scales: Box<[Entry]>,
    value_scales: Box<[[f32; PAGE]]>,
}

impl<B: PageBlock> IntegerPage<B> {
    pub(super) fn new(shape: Shape) -> Result<Self> {
        let Lengths { keys, values, key_scales, value_scales } = CacheFormat::Q8.lengths(shape.head_dim);
        Ok(Self {
            shape,
            keys: filled(shape.heads * keys, B::ZERO)?,
            values: filled(shape.heads * values, B::ZERO)?,
            key_scales: filled(shape.heads * key_scales, [0.0; PANEL])?,
            value_scales: filled(shape.heads * value_scales, [0.0; PAGE])?,
        })
    }

    /// As [`Page::write`].
    pub(super) fn write<'a>(&mut self, slot: usize, rows: impl Iterator<Item = (&'a [f32], &'a [f32])>) {
        let Shape { heads, head_dim } = self.shape;
        let (first, key_blocks) = (slot / PANEL * heads, head_dim.div_ceil(BLOCK));
        let keys = self.keys[first * key_blocks..].chunks_exact_mut(key_blocks);
        let values = self.values.chunks_exact_mut(CacheFormat::Q8.lengths(head_dim).values);
        let scales = self.key_scales[first..].iter_mut().zip(&mut self.value_scales);
        for (((keys, values), (key_scales, value_scales)), (key, value)) in
            keys.zip(values).zip(scales).zip(rows)
        {
            key_scales[slot % PANEL] = write_key(keys, slot, key);
            value_scales[slot] = write_value(values, slot, value);
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let scales = size_of_val(&*self.key_scales) + size_of_val(&*self.value_scales);
        size_of_val(&*self.keys) + size_of_val(&*self.values) + scales
    }

    /// The keys of a head at a panel of positions, and what they are worth.
    #[inline(always)]
    pub(in crate::kernels) fn keys(&self, panel: usize, head: usize) -> (&[B], &Entry) {
        let index = panel * self.shape.heads + head;
        (part(&self.keys, index, self.shape.head_dim.div_ceil(BLOCK)), &self.key_scales[index])
    }

    /// The values of a head, and what they are worth, by position.
    #[inline(always)]
    pub(in crate::kernels) fn values(&self, head: usize) -> (&[B], &[f32; PAGE]) {
        let len = CacheFormat::Q8.lengths(self.shape.head_dim).values;
        (part(&self.values, head, len), &self.value_scales[head])
    }
}

/// Writes the key and returns its scale.
fn write_key<B: PageBlock>(keys: &mut [B], slot: usize, key: &[f32]) -> f32 {
    let (scale, inverse) = scale_of(key, LEVELS_I8);
    for (block, key) in keys.iter_mut().zip(key.chunks(BLOCK)) {
        for (d, integer) in integers::<BLOCK>(key, inverse).into_iter().enumerate() {
            block.set(slot % PANEL, d, integer as i8);
        }
    }
    scale
}

/// Writes the value and returns its scale.
fn write_value<B: PageBlock>(values: &mut [B], slot: usize, value: &[f32]) -> f32 {
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
