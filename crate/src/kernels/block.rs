//! What a packed matrix is made of: blocks of [`PANEL`] rows by some columns, one type for each precision.

use std::fmt::Debug;
use std::ops::Range;

use super::{Entry, MatrixKernel, PANEL};

/// Columns that are packed at a time, and that share a scale where values are quantised.
pub const BLOCK: usize = 32;

/// [`BLOCK`] columns of a panel's rows on their way into blocks: column by column, zeros where there is none.
pub type Tile = [[f32; PANEL]; BLOCK];

/// [`PANEL`] rows of a matrix by [`DEPTH`](Self::DEPTH) columns.
///
/// A new precision is a type that implements this, with its kernels.
pub trait Block: Copy + Debug + 'static {
    /// The precision that page and benchmarks show.
    const NAME: &'static str;

    /// Columns of one block; a divisor of [`BLOCK`]. The columns of the last block of a panel that the matrix does not have hold
    /// anything: their inputs are zero.
    const DEPTH: usize;

    /// The largest magnitude of the integers that inputs of a product become, one less than a power of two; 0 where they stay floats. The
    /// weights that meet them are integers of at most 127 in magnitude.
    const INPUT_LEVELS: i32;

    /// A block of zeros.
    const ZERO: Self;

    /// Kernels of this build, the preferred one first.
    fn kernels() -> &'static [&'static dyn MatrixKernel<Self>];

    /// Writes the rows `lanes` of `tile` into `blocks`, the one or more blocks that hold its columns; other rows stay.
    fn pack(tile: &Tile, lanes: Range<usize>, blocks: &mut [Self]);

    /// Row `lane` of a panel, as far as `out` reaches.
    fn unpack(panel: &[Self], lane: usize, out: &mut [f32]);
}

impl Block for Entry {
    const NAME: &'static str = "f32";
    const DEPTH: usize = 1;
    const INPUT_LEVELS: i32 = 0;
    const ZERO: Self = [0.0; PANEL];

    fn kernels() -> &'static [&'static dyn MatrixKernel<Self>] {
        super::F32_KERNELS
    }

    fn pack(tile: &Tile, lanes: Range<usize>, blocks: &mut [Self]) {
        if lanes.len() == PANEL {
            return blocks.copy_from_slice(&tile[..blocks.len()]);
        }
        for (entry, column) in blocks.iter_mut().zip(tile) {
            entry[lanes.clone()].copy_from_slice(&column[lanes.clone()]);
        }
    }

    fn unpack(panel: &[Self], lane: usize, out: &mut [f32]) {
        for (out, entry) in out.iter_mut().zip(panel) {
            *out = entry[lane];
        }
    }
}

/// Copies numbers, as a rule `N`: browsers copy a number of bytes that is known by a few instructions, and any other by a call.
#[inline(always)]
pub(super) fn copy<const N: usize>(from: &[f32], to: &mut [f32]) {
    match (<&[f32; N]>::try_from(from), to.as_chunks_mut::<N>()) {
        (Ok(from), ([to], [])) => *to = *from,
        (_, _) => copy_any(from, to),
    }
}

/// `rest` and then `padding`, of which matrix products need none as a rule.
#[inline(always)]
pub(super) fn padded<const N: usize>(rest: &[f32], padding: f32) -> [f32; N] {
    let mut block = [padding; N];
    match <&[f32; N]>::try_from(rest) {
        Ok(whole) => block = *whole,
        Err(_) => copy_any(rest, &mut block[..rest.len()]),
    }
    block
}

/// Never inlined: the compiler would merge it with the copy of a known length into one of any length.
#[cold]
#[inline(never)]
fn copy_any(from: &[f32], to: &mut [f32]) {
    to.copy_from_slice(from);
}
