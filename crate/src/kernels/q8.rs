//! Weights of 8 bits: 32 columns of a row share a scale.
//!
//! ```text
//! w[row][k] = scale[row] * integers[k / 2][row / 4][2 (row % 4) + k % 2]
//! ```
//!
//! So 8 neighbouring bytes are two columns of four rows: widened to 16 bits they meet the same two inputs in every lane, and
//! `i32x4.dot_i16x8_s` leaves the sum of each row in a lane of its own. 544 bytes for 512 weights.
//!
//! Inputs are 16-bit integers: no instruction of the browsers' multiplies 8 by 8 signed bits on every processor, so 16 bits cost
//! nothing, and 8 would be two thirds of the divergence from `f32`. A block's sum stays below `32 * 127 * 32767 < 2^27`.
//!
//! The integers alone, whose scales lie elsewhere, are what the KV cache is made of: see [`Page`](super::Page).

use std::ops::Range;

use super::quantise::{LEVELS_I8, Scale, extremes, integer};
use super::quantised::QuantisedBlock;
use super::{BLOCK, Block, MatrixKernel, PANEL, block::Tile};

/// 16 rows by 32 columns of 8-bit integers: `[k / 2][row / 4][2 (row % 4) + k % 2]`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(super) struct Integers(pub(super) [[[i8; 8]; PANEL / 4]; BLOCK / 2]);

/// 16 rows by 32 columns of 8-bit weights. (GGUF's `Q8_0` has the same values in another order.)
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct Q8Block {
    scales: [Scale; PANEL],
    integers: Integers,
}

impl Integers {
    pub(super) const ZERO: Self = Self([[[0; 8]; PANEL / 4]; BLOCK / 2]);

    #[inline(always)]
    fn get(&self, row: usize, k: usize) -> i8 {
        self.0[k / 2][row / 4][2 * (row % 4) + k % 2]
    }

    #[inline(always)]
    pub(super) fn set(&mut self, row: usize, k: usize, integer: i8) {
        self.0[k / 2][row / 4][2 * (row % 4) + k % 2] = integer;
    }
}

impl AsRef<Integers> for Integers {
    #[inline(always)]
    fn as_ref(&self) -> &Integers {
        self
    }
}

impl AsRef<Integers> for Q8Block {
    #[inline(always)]
    fn as_ref(&self) -> &Integers {
        &self.integers
    }
}

impl QuantisedBlock for Integers {
    #[inline(always)] // so that the compiler multiplies by no scale
    fn scales(&self) -> &[Scale; PANEL] {
        &[Scale::ONE; PANEL]
    }

    fn dots(&self, inputs: &[i32; BLOCK]) -> [i32; PANEL] {
        let mut dots = [0; PANEL];
        for (pairs, inputs) in self.0.iter().zip(inputs.as_chunks::<2>().0) {
            for (dot, pair) in dots.iter_mut().zip(pairs.as_flattened().as_chunks::<2>().0) {
                *dot += i32::from(pair[0]) * inputs[0] + i32::from(pair[1]) * inputs[1];
            }
        }
        dots
    }
}

impl QuantisedBlock for Q8Block {
    fn scales(&self) -> &[Scale; PANEL] {
        &self.scales
    }

    fn dots(&self, inputs: &[i32; BLOCK]) -> [i32; PANEL] {
        self.integers.dots(inputs)
    }
}

impl Block for Q8Block {
    const NAME: &'static str = "q8";
    const DEPTH: usize = BLOCK;
    const INPUT_LEVELS: i32 = i16::MAX as i32;
    const ZERO: Self = Self { scales: [Scale(0); PANEL], integers: Integers::ZERO };

    fn kernels() -> &'static [&'static dyn MatrixKernel<Self>] {
        super::Q8_KERNELS
    }

    fn pack(tile: &Tile, lanes: Range<usize>, blocks: &mut [Self]) {
        let [block] = blocks else { panic!("a tile is one block, given {}", blocks.len()) };
        let scales = extremes(tile).map(|extreme| Scale::nearest(extreme.abs() / LEVELS_I8 as f32));
        let inverse = scales.map(|scale| 1.0 / scale.to_f32());
        let mut packed = Self { scales, ..Self::ZERO };
        for (columns, pairs) in tile.as_chunks::<2>().0.iter().zip(&mut packed.integers.0) {
            let mut integers = [[0i8; 2]; PANEL];
            for (row, pair) in integers.iter_mut().enumerate() {
                *pair = [0, 1].map(|k| integer(columns[k][row] * inverse[row], LEVELS_I8) as i8);
            }
            pairs.as_flattened_mut().copy_from_slice(integers.as_flattened());
        }
        if lanes.len() == PANEL {
            *block = packed;
            return;
        }
        block.scales[lanes.clone()].copy_from_slice(&scales[lanes.clone()]);
        for (pairs, packed) in block.integers.0.iter_mut().zip(&packed.integers.0) {
            let bytes = 2 * lanes.start..2 * lanes.end;
            pairs.as_flattened_mut()[bytes.clone()].copy_from_slice(&packed.as_flattened()[bytes]);
        }
    }

    fn unpack(panel: &[Self], lane: usize, out: &mut [f32]) {
        for (block, out) in panel.iter().zip(out.chunks_mut(BLOCK)) {
            let scale = block.scales[lane].to_f32();
            for (k, out) in out.iter_mut().enumerate() {
                *out = f32::from(block.integers.get(lane, k)) * scale;
            }
        }
    }
}
