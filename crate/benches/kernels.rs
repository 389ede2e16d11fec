//! Every kernel beside the machine's limits, natively: `cargo bench --bench kernels [-- ROWS [ROUNDS]]`.
//!
//! The same measurements run in a browser through `kernels::measure`, with the browser's clock.

use std::time::Instant;

use vitrine::kernels::measure::{Settings, measure};

fn main() {
    // cargo adds `--bench`; what is left are numbers.
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let rows = numbers.first().copied().unwrap_or(161_280);
    let rounds = numbers.get(1).copied().unwrap_or(15);
    let start = Instant::now();
    let results = match measure(Settings { rows, rounds }, &|| start.elapsed().as_secs_f64() * 1e3) {
        Ok(results) => results,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    println!("{:<14}{:<36}{:>10}{:>10}  {:<8}of limit", "kernel", "operation", "best", "median", "unit");
    for line in &results {
        let share = line.limit.map(|limit| format!("{:.0} %", 100.0 * line.best / results[limit].best));
        println!(
            "{:<14}{:<36}{:>10.3}{:>10.3}  {:<8}{}",
            line.kernel,
            line.operation,
            line.best,
            line.median,
            line.unit,
            share.unwrap_or_default()
        );
    }
}
