//! Weights of 8 bits as the processor's dot of bytes takes them: the values of [`q8`](super::q8) in another order.
//!
//! ```text
//! w[row][k] = scale[row] * (byte 4 (row % 4) + k % 4 of integers[k / 4][row / 4] - zero point)
//! ```
//!
//! So 16 neighbouring bytes are four columns of four rows, and every lane's four meet their four inputs in one
//! [dot](super::relaxed_dot). The zero point is the processor's, and packed weights stay on it. 544 bytes for 512 weights, as there.
//!
//! The integers alone are what the KV cache is made of where the processor has that dot: see [`Page`](super::Page).

use std::ops::Range;

use bytemuck::NoUninit;

use super::q8::{Q8Block, scales};
use super::quantise::{LEVELS_I8, integer};
use super::quantised::{QuantisedBlock, Scales};
use super::{BLOCK, Block, MatrixKernel, PANEL, Scale, block::Tile, relaxed_dot};

/// 16 rows by 32 columns of 8-bit integers: `[k / 4][row / 4][4 (row % 4) + k % 4]`.
#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C, align(16))]
pub(super) struct Quads(pub(super) [[[u8; 16]; PANEL / 4]; BLOCK / 4]);

/// 16 rows by 32 columns of 8-bit weights.
#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C, align(16))]
pub struct Q8QuadBlock {
    pub(super) scales: [Scale; PANEL],
    pub(super) integers: Quads,
}

/// What a matrix takes does not depend on the order.
const _: () = assert!(size_of::<Q8QuadBlock>() == size_of::<Q8Block>());

impl Quads {
    /// Zeros if the zero point is 0; with another, what zeros meet, or whose dots nobody reads.
    pub(super) const ZERO: Self = Self([[[0; 16]; PANEL / 4]; BLOCK / 4]);

    #[inline(always)]
    fn get(&self, row: usize, k: usize, zero_point: i32) -> i8 {
        (self.0[k / 4][row / 4][4 * (row % 4) + k % 4] ^ zero_point as u8) as i8
    }

    #[inline(always)]
    pub(super) fn set(&mut self, row: usize, k: usize, integer: i8) {
        self.0[k / 4][row / 4][4 * (row % 4) + k % 4] = integer as u8 ^ relaxed_dot::zero_point() as u8;
    }
}

impl AsRef<Quads> for Quads {
    #[inline(always)]
    fn as_ref(&self) -> &Quads {
        self
    }
}

impl AsRef<Quads> for Q8QuadBlock {
    #[inline(always)]
    fn as_ref(&self) -> &Quads {
        &self.integers
    }
}

impl Scales for Quads {
    #[inline(always)] // so that the compiler multiplies by no scale
    fn scales(&self) -> &[Scale; PANEL] {
        &[Scale::ONE; PANEL]
    }
}

impl Q8QuadBlock {
    /// As [`pack`](Block::pack) of a whole panel, for a processor with this zero point.
    #[inline(always)]
    pub(super) fn packed(tile: &Tile, zero_point: i32) -> Self {
        let (scales, inverse) = scales(tile);
        let mut block = Self { scales, ..Self::ZERO };
        let zeros = i32::from_ne_bytes([zero_point as u8; 4]);
        for (columns, quads) in tile.as_chunks::<4>().0.iter().zip(&mut block.integers.0) {
            for (quad, bytes) in quads.iter_mut().enumerate() {
                let words: [_; 4] = std::array::from_fn(|lane| {
                    let row = 4 * quad + lane;
                    let integer = |column: &[f32; PANEL]| integer(column[row] * inverse[row], LEVELS_I8);
                    let [a, b, c, d] = columns.each_ref().map(|column| integer(column) & 255);
                    ((a | b << 8 | c << 16 | d << 24) ^ zeros).to_le_bytes()
                });
                *bytes = bytemuck::must_cast(words);
            }
        }
        block
    }
}

impl Scales for Q8QuadBlock {
    fn scales(&self) -> &[Scale; PANEL] {
        &self.scales
    }
}

impl QuantisedBlock for Q8QuadBlock {
    fn dots(&self, inputs: &[i32; BLOCK]) -> [i32; PANEL] {
        let zero_point = relaxed_dot::zero_point();
        std::array::from_fn(|row| {
            inputs
                .iter()
                .enumerate()
                .map(|(k, input)| i32::from(self.integers.get(row, k, zero_point)) * input)
                .sum()
        })
    }
}

impl Block for Q8QuadBlock {
    const NAME: &'static str = Q8Block::NAME;
    const DEPTH: usize = BLOCK;
    const INPUT_LEVELS: i32 = Q8Block::INPUT_LEVELS;
    /// By its scales, whatever the zero point.
    const ZERO: Self = Self { scales: [Scale(0); PANEL], integers: Quads::ZERO };

    fn kernels() -> &'static [&'static dyn MatrixKernel<Self>] {
        super::Q8_QUAD_KERNELS
    }

    fn pack(tile: &Tile, lanes: Range<usize>, blocks: &mut [Self]) {
        let [block] = blocks else { panic!("a tile is one block, given {}", blocks.len()) };
        let packed = Self::packed(tile, relaxed_dot::zero_point());
        if lanes.len() == PANEL {
            *block = packed;
            return;
        }
        block.scales[lanes.clone()].copy_from_slice(&packed.scales[lanes.clone()]);
        for (quads, packed) in block.integers.0.iter_mut().zip(&packed.integers.0) {
            let (rows, packed) = (quads.as_flattened_mut().as_chunks_mut::<4>().0, packed.as_flattened());
            rows[lanes.clone()].copy_from_slice(&packed.as_chunks().0[lanes.clone()]);
        }
    }

    fn unpack(panel: &[Self], lane: usize, out: &mut [f32]) {
        let zero_point = relaxed_dot::zero_point();
        for (block, out) in panel.iter().zip(out.chunks_mut(BLOCK)) {
            let scale = block.scales[lane].to_f32();
            for (k, out) in out.iter_mut().enumerate() {
                *out = f32::from(block.integers.get(lane, k, zero_point)) * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Packed;
    use super::super::contract::Random;
    use super::*;

    #[wasm_bindgen_test::wasm_bindgen_test]
    fn both_orders_hold_the_same_weights() {
        let (n, k) = (21, 70);
        let w = Random::new(29).vec(n * k);
        let (mut pairs, mut quads) =
            (Packed::<Q8Block>::new(n, k).unwrap(), Packed::<Q8QuadBlock>::new(n, k).unwrap());
        pairs.set_rows(0, &w);
        quads.set_rows(0, &w);
        for row in 0..n {
            let (mut expected, mut found) = (vec![f32::NAN; k], vec![f32::NAN; k]);
            pairs.row(row, &mut expected);
            quads.row(row, &mut found);
            assert_eq!(found, expected, "row {row}");
        }
    }
}
