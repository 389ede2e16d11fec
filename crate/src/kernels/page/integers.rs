//! Keys and values of 8 bits: blocks of integers, whose scales lie beside them.

use super::{CacheFormat, Kind, Lengths, Page, Shape, filled};
use crate::error::Result;
use crate::kernels::block::padded;
use crate::kernels::q8::Integers;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
use crate::kernels::q8_quads::Quads;
use crate::kernels::quantise::{LEVELS_I8, integer, scale_of};
use crate::kernels::{BLOCK, Entry, PAGE, PANEL};
use std::ops::Range;

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
        let Lengths { keys, values, key_scales, value_scales } = CacheFormat::Q8.lengths(shape);
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
        let (heads, blocks) = (self.shape.heads, self.shape.key_blocks());
        for (head, (key, value)) in rows.enumerate() {
            let index = slot / PANEL * heads + head;
            let keys = &mut self.keys[index * blocks..][..blocks];
            self.key_scales[index][slot % PANEL] = write_key(keys, slot, key);
            let values = self.values.chunks_exact_mut(PAGE / BLOCK).skip(head).step_by(heads);
            self.value_scales[head][slot] = write_value(values, slot, value);
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let scales = size_of_val(&*self.key_scales) + size_of_val(&*self.value_scales);
        size_of_val(&*self.keys) + size_of_val(&*self.values) + scales
    }

    /// The keys of some heads at the first panels of positions, in [runs](Shape::runs), and the scales of each.
    #[inline(always)]
    pub(in crate::kernels) fn keys(
        &self,
        panels: usize,
        heads: &Range<usize>,
    ) -> impl Iterator<Item = (&[B], &[Entry])> {
        let blocks = self.shape.key_blocks();
        self.shape
            .runs(panels, heads)
            .map(move |run| (&self.keys[run.start * blocks..run.end * blocks], &self.key_scales[run]))
    }

    /// The values of some heads, in [runs](Shape::runs) of their panels.
    #[inline(always)]
    pub(in crate::kernels) fn values(&self, heads: &Range<usize>) -> impl Iterator<Item = &[B]> {
        const BLOCKS: usize = PAGE / BLOCK;
        let runs = self.shape.runs(self.shape.value_panels(), heads);
        runs.map(|run| &self.values[run.start * BLOCKS..run.end * BLOCKS])
    }

    /// What the values of a head are worth, by position.
    #[inline(always)]
    pub(in crate::kernels) fn value_scales(&self, head: usize) -> &[f32; PAGE] {
        &self.value_scales[head]
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
fn write_value<'a, B: PageBlock>(
    values: impl Iterator<Item = &'a mut [B]>,
    slot: usize,
    value: &[f32],
) -> f32 {
    let (scale, inverse) = scale_of(value, LEVELS_I8);
    for (panel, value) in values.zip(value.chunks(PANEL)) {
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
