//! The key and value cache: pages of positions, written in place, never copied when it grows.

use super::Precision;
use crate::error::Result;
use crate::kernels::{CacheFormat, PAGE, Page};

/// The keys and values of every layer for the positions seen so far.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<LayerCache>,
}

impl Cache {
    /// An empty cache for `layers` layers of `heads` heads of width `head_dim`, beside weights of `precision`.
    pub fn new(precision: Precision, layers: usize, heads: usize, head_dim: usize) -> Self {
        let format = precision.cache_format();
        let layer = || LayerCache { format, heads, head_dim, len: 0, pages: Vec::new() };
        Self { layers: (0..layers).map(|_| layer()).collect() }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.len)
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets every position from `len` on; the pages stay for those to come.
    pub fn truncate(&mut self, len: usize) {
        for layer in &mut self.layers {
            layer.len = layer.len.min(len);
        }
    }

    /// The layers' caches, first layer first.
    pub fn layers_mut(&mut self) -> impl Iterator<Item = &mut LayerCache> {
        self.layers.iter_mut()
    }

    /// Bytes that the pages of this cache take.
    pub fn bytes(&self) -> u64 {
        self.layers
            .iter()
            .map(|layer| layer.pages.len() as u64 * Page::bytes(layer.format, layer.heads, layer.head_dim))
            .sum()
    }

    /// Bytes that a cache of `positions` positions takes; `u64::MAX` where they are more.
    pub fn bytes_for(
        precision: Precision,
        layers: usize,
        heads: usize,
        head_dim: usize,
        positions: usize,
    ) -> u64 {
        // The dimensions of an untrusted config: each is bounded, their product is not.
        let pages = layers as u64 * positions.div_ceil(PAGE) as u64;
        pages.saturating_mul(Page::bytes(precision.cache_format(), heads, head_dim))
    }
}

/// The keys and values of one layer.
#[derive(Debug)]
pub struct LayerCache {
    format: CacheFormat,
    heads: usize,
    head_dim: usize,
    len: usize,
    pages: Vec<Page>,
}

impl LayerCache {
    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pages, the last one partly filled.
    pub fn pages(&self) -> &[Page] {
        &self.pages[..self.len.div_ceil(PAGE)]
    }

    /// Adds one position. `key` and `value` are `[heads * head_dim]`.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] where a further page cannot be had.
    pub fn push(&mut self, key: &[f32], value: &[f32]) -> Result<()> {
        if self.len == self.pages.len() * PAGE {
            self.pages.push(Page::new(self.format, self.heads, self.head_dim)?);
        }
        self.pages[self.len / PAGE].write(self.len % PAGE, key, value);
        self.len += 1;
        Ok(())
    }
}
