//! `exp` and its relatives, four at a time.
//!
//! Each is a range reduction, a short polynomial and no table. Errors are held against `f64` by the contract, through
//! the operations that use these.

// Coefficients stay as they were published.
#![allow(clippy::excessive_precision)]

use super::Lanes;

/// `1.5 * 2^23`: adding it rounds a small float to an integer, which then sits in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Below this, `exp` is given as 0 (the exact result is below the smallest normal `f32`).
const EXP_LOWEST: f32 = -87.336_54;
/// Above this, `exp` is given as [`EXP_CEILING`] rather than infinity.
const EXP_HIGHEST: f32 = 88.0;
/// `exp(88)`.
const EXP_CEILING: f32 = 1.651_636_3e38;

/// `((… c0 * x + c1) * x + …) * x + cn`.
#[inline(always)]
fn polynomial<L: Lanes, const N: usize>(lanes: L, x: L::V, coefficients: [f32; N]) -> L::V {
    let mut sum = lanes.splat(coefficients[0]);
    for c in &coefficients[1..] {
        sum = lanes.multiply_add(sum, x, lanes.splat(*c));
    }
    sum
}

/// `exp(x)` within 2e-7 (relative) from -87.3 to 88; 0 below; `exp(88)` above; NaN stays.
///
/// `x = n ln 2 + r`, then `2ⁿ (1 + r + r² p(r))`. The polynomial and the split of `ln 2` are those of Cephes `expf`.
#[inline(always)]
pub(super) fn exp<L: Lanes>(lanes: L, x: L::V) -> L::V {
    let shifted = lanes.multiply_add(x, lanes.splat(std::f32::consts::LOG2_E), lanes.splat(ROUND));
    let n = lanes.sub(shifted, lanes.splat(ROUND));
    let r = lanes.multiply_add(n, lanes.splat(-0.693_359_375), x);
    let r = lanes.multiply_add(n, lanes.splat(2.121_944_400_546_905_827_679e-4), r);
    let p = polynomial(
        lanes,
        r,
        [
            1.987_569_15e-4,
            1.398_199_950_7e-3,
            8.333_451_907_3e-3,
            4.166_579_589_4e-2,
            1.666_666_545_9e-1,
            5.000_000_120_1e-1,
        ],
    );
    let one_plus_r = lanes.add(r, lanes.splat(1.0));
    let y = lanes.multiply_add(p, lanes.mul(r, r), one_plus_r);
    let y = lanes.mul(y, lanes.power_of_two(shifted));
    let y = lanes.select_less(x, lanes.splat(EXP_LOWEST), lanes.splat(0.0), y);
    lanes.select_less(lanes.splat(EXP_HIGHEST), x, lanes.splat(EXP_CEILING), y)
}

/// `tanh(x)` within 2e-7 (relative); NaN stays.
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
    let e = exp(lanes, lanes.add(magnitude, magnitude));
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
    times_logistic(lanes, x, x)
}

/// `x / (1 + exp(-z))`.
#[inline(always)]
fn times_logistic<L: Lanes>(lanes: L, x: L::V, z: L::V) -> L::V {
    let e = exp(lanes, lanes.sub(lanes.splat(0.0), z));
    lanes.div(x, lanes.add(lanes.splat(1.0), e))
}

/// `0.5 x (1 + tanh(u))` with `u = √(2/π) (x + 0.044715 x³)`, computed as the equal `x / (1 + exp(-2u))`: one `exp`, and no
/// cancellation where `tanh` is close to -1.
#[inline(always)]
pub(super) fn gelu_tanh<L: Lanes>(lanes: L, x: L::V) -> L::V {
    const TWICE_ROOT: f32 = 1.595_769_1; // 2 √(2/π)
    let cubic =
        lanes.multiply_add(lanes.mul(x, x), lanes.splat(TWICE_ROOT * 0.044_715), lanes.splat(TWICE_ROOT));
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
            0.170_872_77,
            -0.822_152_23,
            1.488_515_87,
            -1.135_203_98,
            0.278_868_07,
            -0.186_288_06,
            0.096_784_18,
            0.374_091_96,
            1.000_023_68,
            -1.265_512_23,
        ],
    );
    let exponent = lanes.sub(p, lanes.mul(lanes.mul(x, x), half));
    let tail = lanes.mul(lanes.mul(t, half), exp(lanes, exponent)); // Φ(-|x|)
    let body = lanes.sub(one, tail);
    lanes.mul(x, lanes.select_less(x, lanes.splat(0.0), tail, body))
}
