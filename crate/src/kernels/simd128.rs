//! The token of wasm's fixed-width SIMD: what every browser of the stated floor has.
//!
//! Multiply and add are two instructions, rounded twice, so that every browser and processor gives the same bits.

use core::arch::wasm32::*;

use super::attention::WithIntegers;
use super::blocks_simd128::InVectors;
use super::q8_simd128::{self, Pairs};
use super::{F32Panels, Lanes, VectorOperations};

/// Rows in a tile: see `panels`.
const TILE: usize = 4;

/// Products with packed `f32` matrices on simd128.
pub static F32: F32Panels<Simd128, TILE> = F32Panels(Simd128);
/// Vector operations on simd128.
pub static VECTOR: VectorOperations<Simd128> = VectorOperations(Simd128);

/// The token of wasm's fixed-width SIMD.
#[derive(Clone, Copy, Debug)]
pub struct Simd128;

impl Lanes for Simd128 {
    const NAME: &'static str = "simd128";
    const MULTIPLY_ADD: &'static str = "f32x4.mul, f32x4.add";
    type V = v128;

    #[inline(always)]
    fn splat(self, x: f32) -> v128 {
        f32x4_splat(x)
    }
    #[inline(always)]
    fn load(self, x: &[f32; 4]) -> v128 {
        bytemuck::must_cast(*x)
    }
    #[inline(always)]
    fn store(self, v: v128, y: &mut [f32; 4]) {
        *y = bytemuck::must_cast(v);
    }
    #[inline(always)]
    fn add(self, a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }
    #[inline(always)]
    fn sub(self, a: v128, b: v128) -> v128 {
        f32x4_sub(a, b)
    }
    #[inline(always)]
    fn mul(self, a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }
    #[inline(always)]
    fn div(self, a: v128, b: v128) -> v128 {
        f32x4_div(a, b)
    }
    #[inline(always)]
    fn multiply_add(self, a: v128, b: v128, c: v128) -> v128 {
        f32x4_add(f32x4_mul(a, b), c)
    }
    #[inline(always)]
    fn min(self, a: v128, b: v128) -> v128 {
        f32x4_pmin(a, b)
    }
    #[inline(always)]
    fn max(self, a: v128, b: v128) -> v128 {
        f32x4_pmax(a, b)
    }
    #[inline(always)]
    fn abs(self, a: v128) -> v128 {
        f32x4_abs(a)
    }
    #[inline(always)]
    fn select_less(self, a: v128, b: v128, then: v128, otherwise: v128) -> v128 {
        v128_bitselect(then, otherwise, f32x4_lt(a, b))
    }
    #[inline(always)]
    fn power_of_two(self, shifted: v128) -> v128 {
        i32x4_add(i32x4_shl(shifted, 23), f32x4_splat(1.0))
    }
}

impl WithIntegers for Simd128 {
    type Exact = Self;
    type Dots = InVectors<Pairs>;
    const EXACT: (Self, Self::Dots) = (Self, q8_simd128::DOTS);
}

#[cfg(test)]
super::contract::kernel_contract!(f32, "simd128", &F32);
#[cfg(test)]
super::contract::kernel_contract!(vector, "simd128", &VECTOR);
