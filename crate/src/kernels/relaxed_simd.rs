//! The token of wasm's relaxed SIMD: simd128, with multiply and add in one instruction.
//!
//! `f32x4.relaxed_madd` is a fused multiply-add where the processor has one (nearly every one that runs these
//! browsers), and two instructions elsewhere: faster, but not the same bits everywhere.

use core::arch::wasm32::{f32x4_relaxed_madd, v128};

use super::attention::WithIntegers;
use super::simd128::Simd128;
use super::{F32Panels, Lanes, VectorOperations};

/// Rows in a tile: see `panels`.
const TILE: usize = 6;

/// Products with packed `f32` matrices on relaxed SIMD.
pub static F32: F32Panels<RelaxedSimd, TILE> = F32Panels(RelaxedSimd);
/// Vector operations on relaxed SIMD.
pub static VECTOR: VectorOperations<RelaxedSimd> = VectorOperations(RelaxedSimd);

/// The token of wasm's relaxed SIMD.
#[derive(Clone, Copy, Debug)]
pub struct RelaxedSimd;

/// Passes methods on to [`Simd128`].
macro_rules! as_simd128 {
    ($($method:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        #[inline(always)]
        fn $method(self, $($argument: $type),*) -> $result {
            Simd128.$method($($argument),*)
        }
    )*};
}

impl Lanes for RelaxedSimd {
    const NAME: &'static str = "relaxed-simd";
    const MULTIPLY_ADD: &'static str = "f32x4.relaxed_madd";
    type V = v128;

    #[inline(always)]
    fn multiply_add(self, a: v128, b: v128, c: v128) -> v128 {
        f32x4_relaxed_madd(a, b, c)
    }

    as_simd128! {
        splat(x: f32) -> v128;
        load(x: &[f32; 4]) -> v128;
        store(v: v128, y: &mut [f32; 4]) -> ();
        add(a: v128, b: v128) -> v128;
        sub(a: v128, b: v128) -> v128;
        mul(a: v128, b: v128) -> v128;
        div(a: v128, b: v128) -> v128;
        min(a: v128, b: v128) -> v128;
        max(a: v128, b: v128) -> v128;
        abs(a: v128) -> v128;
        select_less(a: v128, b: v128, then: v128, otherwise: v128) -> v128;
        power_of_two(shifted: v128) -> v128;
    }
}

impl WithIntegers for RelaxedSimd {
    type Exact = Simd128;
    type Dots = <Simd128 as WithIntegers>::Dots;
    const EXACT: (Simd128, Self::Dots) = Simd128::EXACT;
}

#[cfg(test)]
super::contract::kernel_contract!(f32, "relaxed-simd", &F32);
#[cfg(test)]
super::contract::kernel_contract!(vector, "relaxed-simd", &VECTOR);
