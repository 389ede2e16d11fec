//! Which kernel of a precision is the fastest on this processor.
//!
//! All kernels of a quantised precision give the same bits, so only time is at stake: an instruction of relaxed SIMD is one of the
//! processor's on some, and a sequence of many on others. Where a build has one kernel there is nothing to find out. (The kernels of
//! `f32` round differently and stand in a fixed order.)
//!
//! Of some instructions the results tell ([`MatrixKernel::has_instruction`]). Of the others the [peak](Peak) is measured, not the kernel: for
//! milliseconds, browsers run what their quick compiler made, which keeps little in registers. It slows one kernel down more than
//! another, and all peaks alike.

use std::cell::Cell;

#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
use super::Q8QuadBlock;
use super::limits::{self, Peak};
use super::{Block, MatrixKernel, Q4Block, Q8Block};

/// Milliseconds that are spent on measuring at most, and how often each peak is measured in them.
const BUDGET: f64 = 8.0;
const ROUNDS: usize = 4;

/// Iterations of a peak between two looks at the clock, and the most looks in a slice: where the clock stands still for many
/// milliseconds, as some browsers' does, nothing can be found out.
const ITERATIONS: u32 = 2000;
const LOOKS: usize = 250;

/// How many times faster another instruction must be than that of the preferred kernel: a coarse clock sees differences that are not
/// there.
const ADVANTAGE: f64 = 1.25;

thread_local! {
    static Q8: Cell<Option<&'static dyn MatrixKernel<Q8Block>>> = const { Cell::new(None) };
    static Q4: Cell<Option<&'static dyn MatrixKernel<Q4Block>>> = const { Cell::new(None) };
}

/// Chooses the kernels of 8 and 4 bits, in at most 10 ms; `now` gives milliseconds.
pub fn calibrate(now: &dyn Fn() -> f64) {
    let (q8, q4) = (candidates(Q8Block::kernels()), candidates(Q4Block::kernels()));
    let measured = [q8.len(), q4.len()].into_iter().filter(|count| *count > 1).sum::<usize>();
    let slice = BUDGET / (ROUNDS * measured.max(1)) as f64;
    Q8.set(Some(fastest(&q8, limits::peaks(), slice, now)));
    Q4.set(Some(fastest(&q4, limits::peaks(), slice, now)));
}

/// The kernel of 8-bit weights, and so the order that they are packed in.
#[derive(Clone, Copy)]
pub enum Q8Kernel {
    /// Pairs of columns: see [`Q8Block`].
    Pairs(&'static dyn MatrixKernel<Q8Block>),
    /// Quads of columns: see [`Q8QuadBlock`].
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    Quads(&'static dyn MatrixKernel<Q8QuadBlock>),
}

impl Q8Kernel {
    /// See [`MatrixKernel::name`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Pairs(kernel) => kernel.name(),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Self::Quads(kernel) => kernel.name(),
        }
    }
}

/// The kernel of 8-bit weights: that of quads where the processor has its instruction, or else the one that was chosen, or before that the
/// preferred one.
pub fn q8() -> Q8Kernel {
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    if let Some(kernel) = Q8QuadBlock::kernels().iter().find(|kernel| kernel.has_instruction() == Some(true))
    {
        return Q8Kernel::Quads(*kernel);
    }
    Q8Kernel::Pairs(Q8.get().unwrap_or_else(|| candidates(Q8Block::kernels())[0]))
}

/// The kernel of 4-bit weights that was chosen, or before that the preferred one.
pub fn q4() -> &'static dyn MatrixKernel<Q4Block> {
    Q4.get().unwrap_or_else(|| candidates(Q4Block::kernels())[0])
}

/// The first of `kernels` whose instruction the processor is known to have; otherwise those of which that is not known.
fn candidates<B: Block>(kernels: &[&'static dyn MatrixKernel<B>]) -> Vec<&'static dyn MatrixKernel<B>> {
    let known = |known| kernels.iter().copied().filter(move |kernel| kernel.has_instruction() == known);
    match known(Some(true)).next() {
        Some(kernel) => vec![kernel],
        None => known(None).collect(),
    }
}

/// The first of `kernels`, unless the instruction of another is faster by far. Each is measured for `slice` milliseconds at a time.
///
/// # Panics
/// If there is none: every list has a kernel whose instruction is nowhere emulated.
fn fastest<B: Block>(
    kernels: &[&'static dyn MatrixKernel<B>],
    peaks: &[Peak],
    slice: f64,
    now: &dyn Fn() -> f64,
) -> &'static dyn MatrixKernel<B> {
    if let [only] = kernels {
        return *only;
    }
    let mut paces = vec![0.0_f64; kernels.len()];
    for _ in 0..ROUNDS {
        for (kernel, pace) in kernels.iter().zip(&mut paces) {
            let Some(peak) = peaks.iter().find(|peak| peak.instruction == kernel.instruction()) else {
                continue;
            };
            let (start, mut done, mut took) = (now(), 0, 0.0);
            for _ in 0..LOOKS {
                done += peak.run(ITERATIONS);
                took = now() - start;
                if took >= slice {
                    break;
                }
            }
            if took < slice {
                return kernels[0];
            }
            *pace = pace.max(done as f64 / took);
        }
    }
    let mut best = 0;
    for (index, pace) in paces.iter().enumerate().skip(1) {
        if *pace > ADVANTAGE * paces[0] && *pace > paces[best] {
            best = index;
        }
    }
    kernels[best]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    thread_local! {
        static CLOCK: Cell<f64> = const { Cell::new(0.0) };
    }

    /// A kernel of an instruction, and whether the processor is known to have it.
    struct With(&'static str, Option<bool>);

    impl MatrixKernel<Q4Block> for With {
        fn name(&self) -> &'static str {
            self.0
        }
        fn instruction(&self) -> &'static str {
            self.0
        }
        fn has_instruction(&self) -> Option<bool> {
            self.1
        }
        fn matvec(&self, _: &[Q4Block], _: &[f32], _: Option<&[f32]>, _: &mut [f32]) {}
        fn matmul(
            &self,
            _: &[Q4Block],
            _: usize,
            _: &[f32],
            _: Option<&[f32]>,
            _: &mut [f32],
            _: Range<usize>,
        ) {
        }
    }

    static QUICK: With = With("quick", None);
    static SLOW: With = With("slow", None);
    static SLOWER: With = With("slower", None);
    const PEAKS: [Peak; 3] = [
        Peak::of("quick", |iterations| paced(iterations, 0.010)),
        Peak::of("slow", |iterations| paced(iterations, 0.018)),
        Peak::of("slower", |iterations| paced(iterations, 0.021)),
    ];

    fn paced(iterations: u32, ms: f64) -> u64 {
        CLOCK.set(CLOCK.get() + ms);
        iterations.into()
    }

    static HAD: With = With("slower", Some(true));
    static LACKED: With = With("quick", Some(false));

    fn name(kernels: &[&'static dyn MatrixKernel<Q4Block>]) -> &'static str {
        fastest(&candidates(kernels), &PEAKS, BUDGET / (2 * ROUNDS) as f64, &|| CLOCK.get()).name()
    }

    #[test]
    fn another_kernel_must_be_faster_by_far() {
        assert_eq!(name(&[&QUICK, &SLOW, &SLOWER]), "quick");
        assert_eq!(name(&[&SLOWER, &SLOW]), "slower");
        assert_eq!(name(&[&SLOW, &SLOWER, &QUICK]), "quick");
    }

    #[test]
    fn what_results_tell_is_not_measured() {
        let start = CLOCK.get();
        assert_eq!(name(&[&HAD, &QUICK, &SLOW]), "slower");
        assert_eq!(name(&[&LACKED, &SLOW]), "slow");
        assert_eq!(CLOCK.get(), start);
        assert_eq!(name(&[&LACKED, &SLOWER, &SLOW]), "slower");
    }

    #[test]
    fn it_takes_eight_milliseconds() {
        let start = CLOCK.get();
        name(&[&SLOWER, &QUICK]);
        assert!(CLOCK.get() - start < 8.2, "{}", CLOCK.get() - start);
    }

    #[test]
    fn a_clock_that_stands_still_ends_it() {
        assert_eq!(fastest::<Q4Block>(&[&SLOWER, &QUICK], &PEAKS, 1.0, &|| 7.0).name(), "slower");
    }
}
