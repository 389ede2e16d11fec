//! Counting: what each step of `cargo xtask test` ran, and the summary at the end.

use anyhow::Result;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    /// A step that is one check.
    pub(crate) fn one(success: bool) -> Self {
        Self { passed: usize::from(success), failed: usize::from(!success), skipped: 0 }
    }

    /// Counts a test runner's closing lines in its output. A runner that failed without naming a failed test
    /// (it did not compile, the browser did not start) counts as one failure; so does one that ran no test.
    pub(crate) fn of(success: bool, output: &str) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            tally += cargo_line(line).or_else(|| node_line(line)).unwrap_or_default();
        }
        if tally.failed == 0 && (!success || tally.passed == 0) {
            tally.failed = 1;
        }
        tally
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; …`, as cargo's and wasm-bindgen's runners close.
fn cargo_line(line: &str) -> Option<Tally> {
    let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name: &str| {
        counts.split(';').find_map(|part| part.trim().strip_suffix(name)?.trim().parse().ok()).unwrap_or(0)
    };
    Some(Tally { passed: count("passed"), failed: count("failed"), skipped: count("ignored") })
}

/// `ℹ pass 3` or `# pass 3`, one line for each count, as Node's runner closes.
fn node_line(line: &str) -> Option<Tally> {
    let (name, count) = line.strip_prefix("ℹ ").or_else(|| line.strip_prefix("# "))?.split_once(' ')?;
    let count = count.parse().ok()?;
    match name {
        "pass" => Some(Tally { passed: count, ..Tally::default() }),
        "fail" | "cancelled" => Some(Tally { failed: count, ..Tally::default() }),
        "skipped" | "todo" => Some(Tally { skipped: count, ..Tally::default() }),
        _ => None,
    }
}

/// The steps run so far.
pub(crate) struct Report {
    start: Instant,
    steps: Vec<Step>,
    notes: Vec<String>,
}

/// A step that has ended.
struct Step {
    name: String,
    tally: Tally,
    elapsed: Duration,
}

impl Step {
    /// Runs it under a heading. An error counts as one failure.
    fn run(name: String, step: impl FnOnce() -> Result<Tally>) -> Self {
        println!("\n==== {name} ====");
        let start = Instant::now();
        let tally = step().unwrap_or_else(|error| {
            println!("error: {error:#}");
            Tally::one(false)
        });
        let elapsed = start.elapsed();
        let outcome = if tally.failed == 0 { "ok" } else { "FAILED" };
        println!("==== {name}: {outcome} in {} ====", seconds(elapsed));
        Self { name, tally, elapsed }
    }
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), steps: Vec::new(), notes: Vec::new() }
    }

    /// Runs a step under a heading. If it fails, the next step still runs.
    pub(crate) fn step(&mut self, name: &str, step: impl FnOnce() -> Result<Tally>) {
        self.steps.push(Step::run(name.to_owned(), step));
    }

    /// Runs steps side by side: each waits much for something else than the processor.
    pub(crate) fn together<F: FnOnce() -> Result<Tally> + Send>(&mut self, steps: Vec<(String, F)>) {
        self.steps.extend(std::thread::scope(|scope| {
            let run = |(name, step)| scope.spawn(move || Step::run(name, step));
            let running: Vec<_> = steps.into_iter().map(run).collect();
            running
                .into_iter()
                .map(|step| step.join().expect("a step returns its errors"))
                .collect::<Vec<_>>()
        }));
    }

    /// A line for the summary.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Prints a line for each step and note, and the sum as the last line; whether nothing failed.
    pub(crate) fn close(self) -> bool {
        println!("\n{:44} {:>9} {:>7} {:>7} {:>8}", "step", "time", "passed", "failed", "skipped");
        let mut total = Tally::default();
        for Step { name, tally, elapsed } in self.steps {
            println!(
                "{name:44} {:>9} {:>7} {:>7} {:>8}",
                seconds(elapsed),
                tally.passed,
                tally.failed,
                tally.skipped
            );
            total += tally;
        }
        println!("{:44} {:>9}", "together", seconds(self.start.elapsed()));
        for note in self.notes {
            println!("{note}");
        }
        println!("\n{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
        total.failed == 0
    }
}

fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f32();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{}:{:02} min", seconds as u32 / 60, seconds as u32 % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn closing_lines_are_counted() {
        let cargo = "test result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                     noise\ntest result: FAILED. 1 passed; 3 failed; 0 ignored; 0 filtered out\n";
        assert_eq!(Tally::of(false, cargo), Tally { passed: 13, failed: 3, skipped: 2 });
        let node = "ℹ tests 9\nℹ pass 5\nℹ fail 1\nℹ cancelled 1\nℹ skipped 2\nℹ todo 0\n";
        assert_eq!(Tally::of(false, node), Tally { passed: 5, failed: 2, skipped: 2 });
        assert_eq!(Tally::of(true, "# pass 4\n# fail 0\n"), Tally { passed: 4, failed: 0, skipped: 0 });
    }

    #[test]
    fn steps_together_run_at_once_and_are_told_in_their_order() {
        let both_run = std::sync::Barrier::new(2);
        let mut report = Report::new();
        let step = |name: &str, tally: Option<Tally>| {
            let both_run = &both_run;
            (name.to_owned(), move || {
                both_run.wait();
                tally.context("no tally")
            })
        };
        report.together(vec![step("one", None), step("other", Some(Tally::one(true)))]);
        let told: Vec<_> = report.steps.iter().map(|step| (step.name.as_str(), step.tally.failed)).collect();
        assert_eq!(told, [("one", 1), ("other", 0)]);
        assert!(!report.close());
    }

    #[test]
    fn a_runner_that_breaks_or_runs_nothing_has_failed() {
        assert_eq!(Tally::of(false, "error: could not compile").failed, 1);
        assert_eq!(Tally::of(false, "test result: ok. 3 passed; 0 failed; 0 ignored").failed, 1);
        assert_eq!(Tally::of(true, "").failed, 1);
    }
}
