//! The token of an instruction set: what every loop in this room is written over.
//!
//! Not responsible for loops or shapes: one method is one instruction, or the shortest sequence that means it.

/// Four `f32` side by side, in the registers of one instruction set.
///
/// A token exists only where its instructions do: on wasm a module with an instruction that the browser does
/// not know is refused as a whole, so the build's target features are the proof, and the tokens' modules are compiled
/// only with them.
///
/// Except for [`multiply_add`](Self::multiply_add), every method gives the same bits in every instruction set.
pub trait Lanes: Copy + Sync + 'static {
    /// The name that benchmarks and the page show.
    const NAME: &'static str;
    /// What [`multiply_add`](Self::multiply_add) is, in the names of wasm.
    const MULTIPLY_ADD: &'static str;
    /// Four `f32`.
    type V: Copy;

    /// `[x, x, x, x]`.
    fn splat(self, x: f32) -> Self::V;
    /// Reads four neighbours.
    fn load(self, x: &[f32; 4]) -> Self::V;
    /// Writes four neighbours.
    fn store(self, v: Self::V, y: &mut [f32; 4]);
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once or twice: twice in every token but the relaxed one.
    fn multiply_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The smaller of both. Unlike every other method, what it makes of NaN is the processor's affair: a relaxed build
    /// turns even `f32x4.pmin` into `f32x4.relaxed_min`.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger of both; of NaN, see [`min`](Self::min).
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `|a|`.
    fn abs(self, a: Self::V) -> Self::V;
    /// `if a < b { then } else { otherwise }`, lane by lane: `otherwise` where `a` or `b` is NaN.
    fn select_less(self, a: Self::V, b: Self::V, then: Self::V, otherwise: Self::V) -> Self::V;
    /// `2ⁿ`, where `shifted` is `n + 1.5 * 2^23` and `-126 <= n <= 127`: the integer sits in the low bits of such
    /// a float, and goes from there into the exponent.
    fn power_of_two(self, shifted: Self::V) -> Self::V;

    /// The four lanes as an array.
    #[inline(always)]
    fn to_array(self, v: Self::V) -> [f32; 4] {
        let mut array = [0.0; 4];
        self.store(v, &mut array);
        array
    }

    /// The sum of the four lanes, as `(v0 + v2) + (v1 + v3)`.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let [a, b, c, d] = self.to_array(v);
        (a + c) + (b + d)
    }

    /// The largest of the four lanes.
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        let [a, b, c, d] = self.to_array(v);
        let max = |a: f32, b: f32| if a < b { b } else { a };
        max(max(a, c), max(b, d))
    }
}
