//! `exp` and its relatives, four at a time.
//!
//! Each is a range reduction, a short polynomial and no table. Errors are held against `f64` by the contract, through
//! the operations that use these.

// Coefficients stay as they were published, and a fitted 0.693147 is not ln 2.
#![allow(clippy::excessive_precision, clippy::approx_constant)]

use std::f32::consts::LOG2_E;

use super::Lanes;

/// `1.5 * 2^23`: adding it rounds a small float to an integer, which then sits in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Below this, [`exp2`] gives 0: the exact result is below the smallest normal `f32`.
const LOWEST_EXPONENT: f32 = -126.0;
/// The highest argument of [`exp2`].
const HIGHEST_EXPONENT: f32 = 127.0;

/// `((… c0 * x + c1) * x + …) * x + cn`.
#[inline(always)]
fn polynomial<L: Lanes, const N: usize>(lanes: L, x: L::V, coefficients: [f32; N]) -> L::V {
    let mut sum = lanes.splat(coefficients[0]);
    for c in &coefficients[1..] {
        sum = lanes.multiply_add(sum, x, lanes.splat(*c));
    }
    sum
}

/// `2ᵗ` within 2e-7 (relative) for `t <= 127`; 0 below -126; NaN stays.
///
/// `t = n + f` with an integer `n` and `|f| <= 1/2`, both exact; then `2ⁿ (1 + f q(f))`, where `q` is of the fourth degree and
/// minimises the relative error (9.2e-8 before rounding).
#[inline(always)]
pub(super) fn exp2<L: Lanes>(lanes: L, t: L::V) -> L::V {
    let shifted = lanes.add(t, lanes.splat(ROUND));
    let n = lanes.sub(shifted, lanes.splat(ROUND));
    let f = lanes.sub(t, n);
    let one_plus_fq =
        polynomial(lanes, f, [1.326_459_1e-3, 9.671_619e-3, 5.550_735e-2, 0.240_222_41, 0.693_147, 1.0]);
    let y = lanes.mul(one_plus_fq, lanes.power_of_two(shifted));
    lanes.select_less(t, lanes.splat(LOWEST_EXPONENT), lanes.splat(0.0), y)
}

/// `exp(x)` for `x <= 88`: [`exp2`] of `x / ln 2`, whose rounding adds a relative error of up to `|x| / 2^24`.
#[inline(always)]
pub(super) fn exp<L: Lanes>(lanes: L, x: L::V) -> L::V {
    exp2(lanes, lanes.mul(x, lanes.splat(LOG2_E)))
}

/// `tanh(x)` within 3e-7 (relative); NaN stays.
///
/// An odd polynomial below 0.625 (Cephes `tanhf`), `1 - 2 / (exp(2|x|) + 1)` with the sign of `x` above.
#[inline(always)]
pub(super) fn tanh<L: Lanes>(lanes: L, x: L::V) -> L::V {
    let magnitude = lanes.abs(x);
    let square = lanes.mul(x, x);
    let p = polynomial(
        lanes,
        square,
        [
            -5.704_988_727_45e-3,
            2.063_908_879_54e-2,
            -5.373_971_555_31e-2,
            1.333_144_220_36e-1,
            -3.333_328_194_22e-1,
        ],
    );
    let small = lanes.multiply_add(lanes.mul(p, square), x, x);
    let one = lanes.splat(1.0);
    let exponent = lanes.mul(magnitude, lanes.splat(2.0 * LOG2_E));
    let e = exp2(lanes, lanes.min(exponent, lanes.splat(HIGHEST_EXPONENT)));
    let large = lanes.sub(one, lanes.div(lanes.splat(2.0), lanes.add(e, one)));
    let large = lanes.select_less(x, lanes.splat(0.0), lanes.sub(lanes.splat(0.0), large), large);
    lanes.select_less(lanes.splat(0.625), magnitude, large, small)
}

/// `max(x, 0)`; NaN stays.
#[inline(always)]
pub(super) fn relu<L: Lanes>(lanes: L, x: L::V) -> L::V {
    lanes.select_less(x, lanes.splat(0.0), lanes.splat(0.0), x)
}

/// `x / (1 + exp(-x))`, which is `x` times the logistic function.
#[inline(always)]
pub(super) fn silu<L: Lanes>(lanes: L, x: L::V) -> L::V {
    times_logistic(lanes, x, lanes.mul(x, lanes.splat(-LOG2_E)))
}

/// `x / (1 + 2ᵗ)`.
#[inline(always)]
fn times_logistic<L: Lanes>(lanes: L, x: L::V, t: L::V) -> L::V {
    let e = exp2(lanes, lanes.min(t, lanes.splat(HIGHEST_EXPONENT)));
    lanes.div(x, lanes.add(lanes.splat(1.0), e))
}

/// `0.5 x (1 + tanh(u))` with `u = √(2/π) (x + 0.044715 x³)`, computed as the equal `x / (1 + exp(-2u))`: one exponential, and no
/// cancellation where `tanh` is close to -1.
#[inline(always)]
pub(super) fn gelu_tanh<L: Lanes>(lanes: L, x: L::V) -> L::V {
    const FACTOR: f32 = -1.595_769_121_605_730_7 * LOG2_E; // -2 √(2/π) / ln 2
    let cubic = lanes.multiply_add(lanes.mul(x, x), lanes.splat(FACTOR * 0.044_715), lanes.splat(FACTOR));
    times_logistic(lanes, x, lanes.mul(cubic, x))
}

/// `x Φ(x)`, Φ the distribution function of the normal distribution.
///
/// `Φ(-|x|) = erfc(z) / 2` with `z = |x| / √2` and `erfc(z) = t exp(-z² + p(t))`, `t = 1 / (1 + z/2)` (the Chebyshev fit of
/// Press et al., *Numerical Recipes*, section 6.2: relative error below 1.2e-7 everywhere), so the negative tail keeps its digits.
#[inline(always)]
pub(super) fn gelu_erf<L: Lanes>(lanes: L, x: L::V) -> L::V {
    let one = lanes.splat(1.0);
    let half = lanes.splat(0.5);
    let z = lanes.mul(lanes.abs(x), lanes.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = lanes.div(one, lanes.multiply_add(z, half, one));
    let p = polynomial(
        lanes,
        t,
        [
            0.170_872_77 * LOG2_E,
            -0.822_152_23 * LOG2_E,
            1.488_515_87 * LOG2_E,
            -1.135_203_98 * LOG2_E,
            0.278_868_07 * LOG2_E,
            -0.186_288_06 * LOG2_E,
            0.096_784_18 * LOG2_E,
            0.374_091_96 * LOG2_E,
            1.000_023_68 * LOG2_E,
            -1.265_512_23 * LOG2_E,
        ],
    );
    let exponent = lanes.sub(p, lanes.mul(lanes.mul(x, x), lanes.splat(0.5 * LOG2_E)));
    let tail = lanes.mul(lanes.mul(t, half), exp2(lanes, exponent)); // Φ(-|x|)
    let body = lanes.sub(one, tail);
    lanes.mul(x, lanes.select_less(x, lanes.splat(0.0), tail, body))
}
