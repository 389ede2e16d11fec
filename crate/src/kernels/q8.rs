//! Weights of 8 bits: 32 columns of a row share a scale.
//!
//! ```text
//! w[row][k] = scale[row] * integer, byte 4 (row % 4) + 2 (k % 2) + row / 4 % 2 of integers[k / 2][row / 8]:
//!             the integer + 128 for rows 0..4 of these 8, the integer for rows 4..8
//! ```
//!
//! So 16 neighbouring bytes are two columns of eight rows, and a 16-bit lane of them is `256 high + low`: a weight of a high row, and
//! of a low one. Lanes meet their two inputs as they are, and once more without their high byte:
//!
//! ```text
//! both = Σ lane x            - 128 Σ x  =  256 Σ high x + Σ (low - 128) x
//! low  = Σ (lane & 255) x    - 128 Σ x  =  Σ (low - 128) x
//! high = (both - low) / 256
//! ```
//!
//! So no byte is widened, which is an instruction for every product. Inputs are integers of up to 12 bits, whose magnitudes add up to
//! 33,026 at most: so a dot stays below 2²², as a [base](super::quantise::BASE) needs it, and 256 dots below 2³¹. Beside the error of the
//! weights, theirs is nothing. 544 bytes for 512 weights.
//!
//! The integers alone, whose scales lie elsewhere, are what the KV cache is made of where the processor has no dot of bytes: see
//! [`Page`](super::Page).

use std::ops::Range;

use bytemuck::NoUninit;

use super::quantise::{LEVELS_I8, Scale, extremes, integer};
use super::quantised::{QuantisedBlock, Scales};
use super::{BLOCK, Block, MatrixKernel, PANEL, block::Tile};

/// 16 rows by 32 columns of 8-bit integers: `[k / 2][row / 8][4 (row % 4) + 2 (k % 2) + row / 4 % 2]`.
#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C, align(16))]
pub(super) struct Integers(pub(super) [[[u8; 16]; PANEL / 8]; BLOCK / 2]);

/// What is added to the integers of low rows, so that they are not negative.
pub(super) const ZERO_POINT: i32 = 128;

/// 16 rows by 32 columns of 8-bit weights. (GGUF's `Q8_0` has the same values in another order.)
#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C, align(16))]
pub struct Q8Block {
    pub(super) scales: [Scale; PANEL],
    pub(super) integers: Integers,
}

impl Integers {
    pub(super) const ZERO: Self =
        Self([[[128, 0, 128, 0, 128, 0, 128, 0, 128, 0, 128, 0, 128, 0, 128, 0]; PANEL / 8]; BLOCK / 2]);

    #[inline(always)]
    fn get(&self, row: usize, k: usize) -> i8 {
        let bytes = &self.0[k / 2][row / 8];
        (bytes[4 * (row % 4) + 2 * (k % 2) + row / 4 % 2] ^ zero(row)) as i8
    }

    #[inline(always)]
    pub(super) fn set(&mut self, row: usize, k: usize, integer: i8) {
        self.0[k / 2][row / 8][4 * (row % 4) + 2 * (k % 2) + row / 4 % 2] = integer as u8 ^ zero(row);
    }
}

/// The scales of a tile's rows, and their reciprocals.
#[inline(always)]
pub(super) fn scales(tile: &Tile) -> ([Scale; PANEL], [f32; PANEL]) {
    let scales = extremes(tile).map(|extreme| Scale::nearest(extreme.abs() / LEVELS_I8 as f32));
    (scales, scales.map(|scale| 1.0 / scale.to_f32()))
}

/// The byte that means zero.
#[inline(always)]
fn zero(row: usize) -> u8 {
    if row & 4 == 0 { ZERO_POINT as u8 } else { 0 }
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

impl Scales for Integers {
    #[inline(always)] // so that the compiler multiplies by no scale
    fn scales(&self) -> &[Scale; PANEL] {
        &[Scale::ONE; PANEL]
    }
}

impl QuantisedBlock for Integers {
    fn dots(&self, inputs: &[i32; BLOCK]) -> [i32; PANEL] {
        let mut dots = [0; PANEL];
        for half in 0..PANEL / 8 {
            for row in 0..4 {
                let [mut low, mut high] = [0; 2];
                for (pair, halves) in self.0.iter().enumerate() {
                    let [a, b, c, d] = halves[half].as_chunks::<4>().0[row];
                    let [x, y] = inputs.as_chunks::<2>().0[pair];
                    low += (i32::from(a) - ZERO_POINT) * x + (i32::from(c) - ZERO_POINT) * y;
                    high += i32::from(b as i8) * x + i32::from(d as i8) * y;
                }
                dots[8 * half + row] = low;
                dots[8 * half + 4 + row] = high;
            }
        }
        dots
    }
}

impl Scales for Q8Block {
    fn scales(&self) -> &[Scale; PANEL] {
        &self.scales
    }
}

impl QuantisedBlock for Q8Block {
    fn dots(&self, inputs: &[i32; BLOCK]) -> [i32; PANEL] {
        self.integers.dots(inputs)
    }
}

impl Block for Q8Block {
    const NAME: &'static str = "q8";
    const DEPTH: usize = BLOCK;
    const INPUT_LEVELS: i32 = 2047;
    const ZERO: Self = Self { scales: [Scale(0); PANEL], integers: Integers::ZERO };

    fn kernels() -> &'static [&'static dyn MatrixKernel<Self>] {
        super::Q8_KERNELS
    }

    fn pack(tile: &Tile, lanes: Range<usize>, blocks: &mut [Self]) {
        let [block] = blocks else { panic!("a tile is one block, given {}", blocks.len()) };
        let (scales, inverse) = scales(tile);
        let mut packed = Self { scales, ..Self::ZERO };
        for (columns, halves) in tile.as_chunks::<2>().0.iter().zip(&mut packed.integers.0) {
            let integers = columns.map(|column| -> [i32; PANEL] {
                std::array::from_fn(|row| integer(column[row] * inverse[row], LEVELS_I8))
            });
            for (half, bytes) in halves.iter_mut().enumerate() {
                let words: [_; 4] = std::array::from_fn(|row| {
                    let [low, high] = [8 * half + row, 8 * half + 4 + row];
                    let [x, y] = integers.map(|of| (of[low] + ZERO_POINT) | (of[high] & 255) << 8);
                    (x | y << 16).to_le_bytes()
                });
                *bytes = bytemuck::must_cast(words);
            }
        }
        if lanes.len() == PANEL {
            *block = packed;
            return;
        }
        block.scales[lanes.clone()].copy_from_slice(&scales[lanes.clone()]);
        for row in lanes {
            for k in 0..BLOCK {
                block.integers.set(row, k, packed.integers.get(row, k));
            }
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
