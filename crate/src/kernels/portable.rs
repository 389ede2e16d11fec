//! The token of plain Rust: runs everywhere, natively and in every wasm build.
//!
//! Arrays of four, which the compiler turns into whatever vectors the target has. Gives the same bits as `simd128`, so a
//! native test speaks for the browser's plain build.

use super::attention::WithIntegers;
use super::quantise::worth;
use super::quantised::{Dots, Quantised, QuantisedBlock, Rows};
use super::{BLOCK, Entry, F32Panels, Lanes, PANEL, VectorOperations};

/// Rows in a tile: see `panels`.
const TILE: usize = 4;

/// Products with packed `f32` matrices in plain Rust.
pub static F32: F32Panels<Portable, TILE> = F32Panels(Portable);
/// Products with packed matrices of integers in plain Rust.
pub static QUANTISED: Quantised<Portable> = Quantised(Portable);
/// Vector operations in plain Rust.
pub static VECTOR: VectorOperations<Portable> = VectorOperations(Portable);

/// The token of plain Rust.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

#[inline(always)]
fn zip(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

impl Lanes for Portable {
    const NAME: &'static str = "portable";
    const MULTIPLY_ADD: &'static str = match cfg!(all(target_arch = "wasm32", target_feature = "simd128")) {
        true => "f32x4.mul, f32x4.add", // what the compiler makes of it
        false => "f32 mul, add",
    };
    type V = [f32; 4];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; 4]
    }
    #[inline(always)]
    fn load(self, x: &[f32; 4]) -> Self::V {
        *x
    }
    #[inline(always)]
    fn store(self, v: Self::V, y: &mut [f32; 4]) {
        *y = v;
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn multiply_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if b < a { b } else { a })
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a < b { b } else { a })
    }
    #[inline(always)]
    fn abs(self, a: Self::V) -> Self::V {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn select_less(self, a: Self::V, b: Self::V, then: Self::V, otherwise: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { then[i] } else { otherwise[i] })
    }
    #[inline(always)]
    fn power_of_two(self, shifted: Self::V) -> Self::V {
        shifted.map(|x| f32::from_bits((x.to_bits() << 23).wrapping_add(1f32.to_bits())))
    }
}

impl WithIntegers for Portable {
    type Exact = Self;
    type Dots = Self;
    const EXACT: (Self, Self) = (Self, Self);
}

impl<B: QuantisedBlock + Copy> Dots<B> for Portable {
    const NAME: &'static str = <Self as Lanes>::NAME;
    const INSTRUCTION: &'static str = <Self as Lanes>::MULTIPLY_ADD; // whatever the compiler makes of it
    /// Integers of each row, after their bases.
    type Input<const M: usize> = ([f32; M], [[i32; BLOCK]; M]);
    type Unpacked = B;

    fn unpacked<'a>(self, panel: &'a [B], _: &'a mut Vec<B>) -> &'a [B] {
        panel
    }

    fn input<const M: usize>(self, bases: [f32; M], integers: &[[i32; BLOCK]; M]) -> Self::Input<M> {
        (bases, *integers)
    }

    fn rows(self, panels: &[B], x: &[&[Self::Input<1>]], sums: &mut [Entry]) {
        if panels.is_empty() {
            return;
        }
        for ((panel, x), sums) in
            panels.chunks_exact(panels.len() / sums.len()).zip(x.iter().cycle()).zip(sums)
        {
            for (block, ([base], [inputs])) in panel.iter().zip(*x) {
                add_dots(block, *base, inputs, sums);
            }
        }
    }

    fn tile<const M: usize>(self, panel: &[B], x: &[Self::Input<M>], bias: Option<&Entry>, mut y: Rows) {
        if let Some(bias) = bias {
            (0..M).for_each(|r| *y.row(r) = *bias);
        }
        for (block, (bases, inputs)) in panel.iter().zip(x) {
            for (r, (base, inputs)) in bases.iter().zip(inputs).enumerate() {
                add_dots(block, *base, inputs, y.row(r));
            }
        }
    }
}

/// `sums += block x`, for one row of inputs.
fn add_dots<B: QuantisedBlock>(block: &B, base: f32, inputs: &[i32; BLOCK], sums: &mut Entry) {
    let (dots, scales) = (block.dots(inputs), block.scales());
    for row in 0..PANEL {
        sums[row] += worth(dots[row], base) * scales[row].to_f32();
    }
}

#[cfg(test)]
super::contract::kernel_contract!(f32, "portable", &F32);
#[cfg(test)]
super::contract::kernel_contract!(q8, "portable", &QUANTISED);
#[cfg(test)]
super::contract::kernel_contract!(q4, "portable", &QUANTISED);
#[cfg(test)]
super::contract::kernel_contract!(vector, "portable", &VECTOR);
