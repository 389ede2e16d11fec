//! Which kernel of a precision is the fastest on this processor.
//!
//! All kernels of a quantised precision give the same bits, so only time is at stake: an instruction of relaxed SIMD is one of the
//! processor's on some, and a sequence of many on others. Where a build has one kernel there is nothing to find out. (The kernels of
//! `f32` round differently and stand in a fixed order.)

use std::cell::Cell;
use std::hint::black_box;

use super::{BLOCK, Block, MatrixKernel, PANEL, Packed, Q4Block};
use crate::error::Result;

/// Milliseconds that a kernel runs for at a time, and how often it does: with the two kernels of 4 bits, 8 ms in all.
const SLICE: f64 = 2.0;
const ROUNDS: usize = 2;

/// The most runs in a slice, whatever the clock says: some browsers' stands still for many milliseconds.
const RUNS: usize = 200;

/// How many times faster another kernel must be than the preferred one: a coarse clock sees differences that are not there.
const ADVANTAGE: f64 = 1.25;

/// The shape of the product: 4 bits of it fit a second-level cache.
const SHAPE: (usize, usize) = (16 * PANEL, 8 * BLOCK);

thread_local! {
    static Q4: Cell<Option<&'static dyn MatrixKernel<Q4Block>>> = const { Cell::new(None) };
}

/// Measures the kernels among which there is a choice, in at most 10 ms; `now` gives milliseconds.
///
/// # Errors
/// [`Error::Memory`](crate::Error::Memory) if 40 kB cannot be had.
pub fn calibrate(now: &dyn Fn() -> f64) -> Result<()> {
    if Q4Block::kernels().len() > 1 {
        Q4.set(Some(fastest(Q4Block::kernels(), now)?));
    }
    Ok(())
}

/// The kernel of 4-bit weights that was fastest, or the preferred one where none was measured.
pub fn q4() -> &'static dyn MatrixKernel<Q4Block> {
    Q4.get().unwrap_or(Q4Block::kernels()[0])
}

/// The first of `kernels`, unless another is faster by far.
fn fastest<B: Block>(
    kernels: &[&'static dyn MatrixKernel<B>],
    now: &dyn Fn() -> f64,
) -> Result<&'static dyn MatrixKernel<B>> {
    let (n, k) = SHAPE;
    let matrix = Packed::<B>::new(n, k)?;
    let (x, mut y) = (vec![1.0; k], vec![0.0; n]);
    let mut paces = vec![0.0_f64; kernels.len()];
    for _ in 0..ROUNDS {
        for (kernel, pace) in kernels.iter().zip(&mut paces) {
            let (start, mut runs) = (now(), 0);
            while runs < RUNS && now() - start < SLICE {
                matrix.matmul(*kernel, 1, black_box(&x), &mut y);
                runs += 1;
            }
            *pace = pace.max(runs as f64 / (now() - start));
        }
    }
    let mut best = 0;
    for (index, pace) in paces.iter().enumerate().skip(1) {
        if *pace > ADVANTAGE * paces[0] && *pace > paces[best] {
            best = index;
        }
    }
    Ok(kernels[best])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::portable;
    use std::ops::Range;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    thread_local! {
        static CLOCK: Cell<f64> = const { Cell::new(0.0) };
    }

    /// A kernel whose products take a time of their own.
    struct Paced(&'static str, f64);

    impl MatrixKernel<Q4Block> for Paced {
        fn name(&self) -> &'static str {
            self.0
        }
        fn instruction(&self) -> &'static str {
            ""
        }
        fn matvec(&self, _: &[Q4Block], _: &[f32], _: &mut [f32]) {
            CLOCK.set(CLOCK.get() + self.1);
        }
        fn matmul(&self, _: &[Q4Block], _: usize, _: &[f32], _: &mut [f32], _: Range<usize>) {}
    }

    static QUICK: Paced = Paced("quick", 0.010);
    static SLOW: Paced = Paced("slow", 0.018);
    static SLOWER: Paced = Paced("slower", 0.021);

    fn chosen(kernels: &[&'static dyn MatrixKernel<Q4Block>]) -> &'static str {
        fastest(kernels, &|| CLOCK.get()).expect("fits").name()
    }

    #[test]
    fn another_kernel_must_be_faster_by_far() {
        assert_eq!(chosen(&[&QUICK, &SLOW, &SLOWER]), "quick");
        assert_eq!(chosen(&[&SLOWER, &SLOW]), "slower");
        assert_eq!(chosen(&[&SLOW, &SLOWER, &QUICK]), "quick");
    }

    #[test]
    fn it_takes_eight_milliseconds() {
        let start = CLOCK.get();
        chosen(&[&SLOWER, &QUICK]);
        assert!(CLOCK.get() - start < 8.1, "{}", CLOCK.get() - start);
    }

    #[test]
    fn a_clock_that_stands_still_ends_it() {
        let kernels: &[&dyn MatrixKernel<Q4Block>] = &[&portable::QUANTISED, &portable::QUANTISED];
        assert_eq!(fastest(kernels, &|| 7.0).expect("fits").name(), "portable");
    }
}
