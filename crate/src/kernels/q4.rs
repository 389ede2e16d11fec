//! Weights of 4 bits: 32 columns of a row share a scale, and a weight is `-8..=7` of it.
//!
//! ```text
//! w[row][k] = scale[row] * (nibble - 8), the nibble of byte 4 (row % 4) + j of weights[k / 4][row / 8],
//!             low for rows 0..4 of these 8, high for rows 4..8; j = 0, 2, 1, 3 for k % 4 = 0, 1, 2, 3
//! ```
//!
//! So a vector of 16 bytes is four columns of eight rows, and two masks make vectors of four rows. With the columns in this order,
//! the low bytes of its 16-bit lanes are two neighbouring columns and the high bytes the next two: a kernel of 16-bit products takes
//! natural pairs of inputs. 288 bytes for 512 weights.
//!
//! Inputs are 8-bit integers, which the relaxed kernels multiply 16 at a time; beside the error of the weights, theirs is
//! nothing.

use std::ops::Range;

use bytemuck::NoUninit;

use super::quantise::{Scale, extremes, round};
use super::quantised::{QuantisedBlock, Scales};
use super::{BLOCK, Block, MatrixKernel, PANEL, block::Tile};

/// 16 rows by 32 columns of 4-bit weights. (GGUF's `Q4_0` has the same values in another order.)
#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C, align(16))]
pub struct Q4Block {
    pub(super) scales: [Scale; PANEL],
    /// `[k / 4][row / 8][4 (row % 4) + ORDER[k % 4]]`
    pub(super) weights: [[[u8; 16]; PANEL / 8]; BLOCK / 4],
}

/// Where the columns of a group of four lie.
pub(super) const ORDER: [usize; 4] = [0, 2, 1, 3];

/// The nibble that means zero.
pub(super) const ZERO_POINT: i32 = 8;

impl Q4Block {
    #[inline(always)]
    pub(super) fn weight(&self, row: usize, k: usize) -> i32 {
        let byte = self.weights[k / 4][row / 8][4 * (row % 4) + ORDER[k % 4]];
        i32::from(byte >> (row & 4) & 15) - ZERO_POINT
    }

    fn set(&mut self, row: usize, k: usize, weight: i32) {
        let byte = &mut self.weights[k / 4][row / 8][4 * (row % 4) + ORDER[k % 4]];
        let nibble = (weight + ZERO_POINT) as u8;
        *byte = *byte & !(15 << (row & 4)) | nibble << (row & 4);
    }
}

impl Scales for Q4Block {
    fn scales(&self) -> &[Scale; PANEL] {
        &self.scales
    }
}

impl QuantisedBlock for Q4Block {
    fn dots(&self, inputs: &[i32; BLOCK]) -> [i32; PANEL] {
        let mut dots = [0; PANEL];
        let zero = ZERO_POINT * inputs.iter().sum::<i32>();
        for half in 0..PANEL / 8 {
            for row in 0..4 {
                let [mut low, mut high] = [-zero; 2];
                for (step, halves) in self.weights.iter().enumerate() {
                    let bytes = halves[half].as_chunks::<4>().0[row];
                    for (column, place) in ORDER.iter().enumerate() {
                        let input = inputs[4 * step + column];
                        low += i32::from(bytes[*place] & 15) * input;
                        high += i32::from(bytes[*place] >> 4) * input;
                    }
                }
                dots[8 * half + row] = low;
                dots[8 * half + 4 + row] = high;
            }
        }
        dots
    }
}

impl Block for Q4Block {
    const NAME: &'static str = "q4";
    const DEPTH: usize = BLOCK;
    const INPUT_LEVELS: i32 = 127;
    const ZERO: Self = Self { scales: [Scale(0); PANEL], weights: [[[0x88; 16]; PANEL / 8]; BLOCK / 4] };

    fn kernels() -> &'static [&'static dyn MatrixKernel<Self>] {
        super::Q4_KERNELS
    }

    fn pack(tile: &Tile, lanes: Range<usize>, blocks: &mut [Self]) {
        let [block] = blocks else { panic!("a tile is one block, given {}", blocks.len()) };
        let scales = best_scales(tile);
        let inverse = scales.map(|scale| 1.0 / scale.to_f32());
        block.scales[lanes.clone()].copy_from_slice(&scales[lanes.clone()]);
        for (k, column) in tile.iter().enumerate() {
            let integers: [i32; PANEL] =
                std::array::from_fn(|row| round(column[row] * inverse[row]).clamp(-8, 7));
            for row in lanes.clone() {
                block.set(row, k, integers[row]);
            }
        }
    }

    fn unpack(panel: &[Self], lane: usize, out: &mut [f32]) {
        for (block, out) in panel.iter().zip(out.chunks_mut(BLOCK)) {
            let scale = block.scales[lane].to_f32();
            for (k, out) in out.iter_mut().enumerate() {
                *out = block.weight(lane, k) as f32 * scale;
            }
        }
    }
}

/// What the value of the largest magnitude may become, before rounding. Negative ones have a step more.
const EXTREMES: [f32; 8] = [-8.0, -8.6, -7.6, -7.2, -6.8, 7.5, 7.1, 6.7];

/// The scale of each row that leaves the least squared error, each error weighted by the magnitude of its weight.
///
/// For each of [`EXTREMES`]: round all weights, then the best scale for these integers has a closed form, and so has its error.
fn best_scales(tile: &Tile) -> [Scale; PANEL] {
    let extremes = extremes(tile);
    let mut best = [(0.0f32, 0.0f32); PANEL]; // of the square explained, and the scale
    for candidate in EXTREMES {
        // Rows of zeros: 0 * inf is not a number, and loses every comparison below.
        let inverse = extremes.map(|extreme| candidate / extreme);
        let (mut products, mut squares) = ([0.0f32; PANEL], [0.0f32; PANEL]);
        for column in tile {
            for row in 0..PANEL {
                let weight = column[row];
                let integer = round(weight * inverse[row]).clamp(-8, 7) as f32;
                let weighted = weight.abs() * integer;
                products[row] += weighted * weight;
                squares[row] += weighted * integer;
            }
        }
        for row in 0..PANEL {
            let scale = products[row] / squares[row];
            let explained = products[row] * scale;
            if explained > best[row].0 {
                best[row] = (explained, scale);
            }
        }
    }
    best.map(|(_, scale)| Scale::nearest(scale))
}
