//! Which kernel of a precision is the fastest on this processor.
//!
//! All kernels of a quantised precision give the same bits, so only time is at stake: an instruction of relaxed SIMD is one of the
//! processor's on some, and a sequence of many on others. Where a build has one kernel there is nothing to find out. (The kernels of
//! `f32` round differently and stand in a fixed order.)
//!
//! What is measured is the [peak](Peak) of the instruction of each kernel, not the kernel: for milliseconds, browsers run what their
//! quick compiler made, which keeps little in registers. It slows one kernel down more than another, and all peaks alike. And what the peaks
//! tell is not which kernel is faster by how much, but which instruction is emulated: of a kernel's time its instruction is a part.

use std::cell::Cell;

use super::limits::{self, Peak};
use super::{Block, MatrixKernel, Q4Block, Q8Block};

/// Milliseconds that a peak is measured for at a time, and how often it is: with the three instructions of 8 and 4 bits, 9 ms in all.
const SLICE: f64 = 1.0;
const ROUNDS: usize = 3;

/// Iterations of a peak between two looks at the clock, and the most looks in a slice: where the clock stands still for many
/// milliseconds, as some browsers' does, nothing can be found out.
const ITERATIONS: u32 = 2000;
const LOOKS: usize = 250;

/// How many times slower than the fastest an instruction may be that is still one of the processor's. Of those with 16 products, the one with sums
/// of 32 bits has 1.2 times the pace of the other where it is one, and half of it where it is emulated; between is room for a
/// coarse clock and a busy processor.
const KEEPS_UP: f64 = 1.25;

thread_local! {
    static Q8: Cell<Option<&'static dyn MatrixKernel<Q8Block>>> = const { Cell::new(None) };
    static Q4: Cell<Option<&'static dyn MatrixKernel<Q4Block>>> = const { Cell::new(None) };
}

/// Measures the instructions of the kernels among which there is a choice, in at most 10 ms; `now` gives milliseconds.
pub fn calibrate(now: &dyn Fn() -> f64) {
    let (q8, q4) = (candidates::<Q8Block>(), candidates::<Q4Block>());
    let instructions = q8.iter().map(|kernel| kernel.instruction());
    let instructions: Vec<_> = instructions.chain(q4.iter().map(|kernel| kernel.instruction())).collect();
    let of_kernels = |peak: &&Peak| instructions.contains(&peak.instruction);
    let peaks: Vec<Peak> = limits::peaks().iter().filter(of_kernels).copied().collect();
    if let Some(paces) = paces(&peaks, now) {
        Q8.set(first_that_keeps_up(&q8, &paces));
        Q4.set(first_that_keeps_up(&q4, &paces));
    }
}

/// The kernel of 8-bit weights that was found to be the fastest, or the preferred one where none was measured.
pub fn q8() -> &'static dyn MatrixKernel<Q8Block> {
    Q8.get().unwrap_or_else(preferred)
}

/// The same of 4-bit weights.
pub fn q4() -> &'static dyn MatrixKernel<Q4Block> {
    Q4.get().unwrap_or_else(preferred)
}

fn preferred<B: Block>() -> &'static dyn MatrixKernel<B> {
    exact().next().expect("kernels that do nothing unspecified are in every list")
}

/// The kernels that are exact on this processor.
fn exact<B: Block>() -> impl Iterator<Item = &'static dyn MatrixKernel<B>> {
    B::kernels().iter().copied().filter(|kernel| kernel.is_exact())
}

/// Those, if there is a choice among them.
fn candidates<B: Block>() -> Vec<&'static dyn MatrixKernel<B>> {
    let exact: Vec<_> = exact().collect();
    if exact.len() > 1 { exact } else { Vec::new() }
}

/// An instruction, and its multiply-adds a millisecond.
type Pace = (&'static str, f64);

/// The pace of each peak; nothing where the clock stands still.
fn paces(peaks: &[Peak], now: &dyn Fn() -> f64) -> Option<Vec<Pace>> {
    let mut samples = vec![[0.0; ROUNDS]; peaks.len()];
    for round in 0..ROUNDS {
        for (peak, samples) in peaks.iter().zip(&mut samples) {
            let (start, mut done, mut took) = (now(), 0, 0.0);
            for _ in 0..LOOKS {
                done += peak.run(ITERATIONS);
                took = now() - start;
                if took >= SLICE {
                    break;
                }
            }
            if took < SLICE {
                return None;
            }
            samples[round] = done as f64 / took;
        }
    }
    // Not the best: a slice that ends at a tick of a coarse clock can be much shorter than that clock says.
    let median = |mut samples: [f64; ROUNDS]| {
        samples.sort_by(f64::total_cmp);
        samples[ROUNDS / 2]
    };
    Some(peaks.iter().map(|peak| peak.instruction).zip(samples.into_iter().map(median)).collect())
}

/// The first of `kernels` whose instruction is one of the processor's: any but those of relaxed SIMD, and these if they keep up with
/// the fastest of all.
fn first_that_keeps_up<B: Block>(
    kernels: &[&'static dyn MatrixKernel<B>],
    paces: &[Pace],
) -> Option<&'static dyn MatrixKernel<B>> {
    let fastest = paces.iter().map(|(_, pace)| *pace).fold(0.0, f64::max);
    let keeps_up = |kernel: &&&dyn MatrixKernel<B>| {
        let pace = paces.iter().find(|(instruction, _)| *instruction == kernel.instruction());
        let slow = pace.is_none_or(|(_, pace)| KEEPS_UP * pace < fastest);
        !(slow && kernel.instruction().contains("relaxed"))
    };
    kernels.iter().find(keeps_up).copied()
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

    /// A kernel of an instruction.
    struct With(&'static str);

    impl MatrixKernel<Q4Block> for With {
        fn name(&self) -> &'static str {
            self.0
        }
        fn instruction(&self) -> &'static str {
            self.0
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

    static QUICK: With = With("relaxed quick");
    static SLOW: With = With("relaxed slow");
    static PLAIN: With = With("plain");
    static SLOWER: With = With("relaxed slower");
    const PEAKS: [Peak; 3] = [
        Peak::of("relaxed quick", |iterations| paced(iterations, 0.010)),
        Peak::of("relaxed slow", |iterations| paced(iterations, 0.018)),
        Peak::of("relaxed slower", |iterations| paced(iterations, 0.020)),
    ];

    fn paced(iterations: u32, ms: f64) -> u64 {
        CLOCK.set(CLOCK.get() + ms);
        iterations.into()
    }

    fn chosen(kernels: &[&'static dyn MatrixKernel<Q4Block>], peaks: &[Peak]) -> &'static str {
        let paces = paces(peaks, &|| CLOCK.get()).expect("the clock goes on");
        first_that_keeps_up(kernels, &paces).expect("one of them").name()
    }

    #[test]
    fn the_first_instruction_that_keeps_up_is_chosen() {
        assert_eq!(chosen(&[&QUICK, &SLOW, &SLOWER], &PEAKS), "relaxed quick");
        assert_eq!(chosen(&[&SLOWER, &SLOW], &PEAKS[1..]), "relaxed slower");
        assert_eq!(chosen(&[&SLOW, &QUICK, &SLOWER], &PEAKS), "relaxed quick");
    }

    #[test]
    fn instructions_that_are_not_relaxed_are_nowhere_emulated() {
        assert_eq!(chosen(&[&SLOW, &SLOWER, &PLAIN], &PEAKS), "plain");
        assert_eq!(chosen(&[&PLAIN, &QUICK], &PEAKS), "plain");
        assert_eq!(chosen(&[&QUICK, &PLAIN], &PEAKS), "relaxed quick");
    }

    #[test]
    fn one_slice_in_three_may_be_anything() {
        thread_local!(static TAKEN: Cell<u32> = const { Cell::new(0) });
        let glitch = Peak::of("relaxed slow", |iterations| {
            TAKEN.set(TAKEN.get() + 1);
            paced(iterations, if TAKEN.get() < 50 { 0.001 } else { 0.018 })
        });
        assert_eq!(chosen(&[&SLOW, &QUICK], &[PEAKS[0], glitch]), "relaxed quick");
    }

    #[test]
    fn three_instructions_take_nine_milliseconds() {
        let start = CLOCK.get();
        assert!(paces(&PEAKS, &|| CLOCK.get()).is_some());
        assert!(CLOCK.get() - start < 9.3, "{}", CLOCK.get() - start);
    }

    #[test]
    fn a_clock_that_stands_still_ends_it() {
        assert!(paces(&PEAKS, &|| 7.0).is_none());
    }

    #[test]
    fn without_a_choice_there_is_none() {
        assert!(first_that_keeps_up::<Q4Block>(&[], &[]).is_none());
    }

    #[test]
    fn what_is_chosen_is_one_of_the_kernels() {
        let ms = Cell::new(0.0);
        calibrate(&|| {
            ms.set(ms.get() + 0.5);
            ms.get()
        });
        assert!(Q8Block::kernels().iter().any(|kernel| kernel.name() == q8().name()));
        assert!(Q4Block::kernels().iter().any(|kernel| kernel.name() == q4().name()));
    }
}
