//! Every kernel of this build beside the machine's limits, measured in one interleaved run.
//!
//! For benchmarks and for a calibration: the caller hands in a clock, and decides what to print. Results are checked
//! against the [reference](mod@super::reference) before anything is timed.

use std::hint::black_box;

#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
use super::Q8QuadBlock;
use super::{
    Activation, AttentionShape, Block, CacheFormat, Entry, PAGE, Packed, PackedF32, Page, Q4Block, Q8Block,
    VectorKernel, WHOLE_TILES, limits, limits::Peak, reference, vector_kernels,
};
use crate::error::Result;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Outputs of the large matrix that the matrix-vector products read: far beyond the caches. `161_280` rows are as
    /// many weights as GPT-2 124M has.
    pub rows: usize,
    /// Times that each measurement is taken, all of them in turn.
    pub rounds: usize,
}

/// One line of the result.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The kernel's name, or `limit`.
    pub kernel: &'static str,
    /// What was done, with its shape.
    pub operation: String,
    /// The median of all rounds, in `unit`.
    pub median: f64,
    /// The best of all rounds, in `unit`.
    pub best: f64,
    /// `GB/s` (more is better), `GMAC/s` (multiply-adds; more is better), `ns` (per element; less is better) or `µs` (less
    /// is better).
    pub unit: &'static str,
    /// The line of the result whose figure bounds this one: `best` divided by its `best` is the share reached.
    pub limit: Option<usize>,
}

/// Inputs of a GPT-2 layer.
const HIDDEN: usize = 768;
/// Its heads, of 64 dimensions each.
const HEADS: usize = 12;
/// Rows of a product with many: about as many as chunks of a prompt have.
const CHUNK: usize = 6 * WHOLE_TILES;
/// Positions of a long context.
const CONTEXT: usize = 1000;

/// Runs all measurements; `now` gives milliseconds.
///
/// # Errors
/// [`Error::Memory`](crate::Error::Memory) if the matrix does not fit.
///
/// # Panics
/// If a kernel gives a wrong result.
pub fn measure(settings: Settings, now: &dyn Fn() -> f64) -> Result<Vec<Measurement>> {
    check_all::<Entry>();
    check_all::<Q8Block>();
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    check_all::<Q8QuadBlock>();
    check_all::<Q4Block>();
    vector_kernels().iter().for_each(|kernel| check_vector(*kernel));
    let data = Data::new(settings.rows)?;
    let mut jobs = limit_jobs(&data);
    matrix_jobs(&data.f32, &data.x, &mut jobs);
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    matrix_jobs(&data.q8_quads, &data.x, &mut jobs);
    matrix_jobs(&data.q8, &data.x, &mut jobs);
    matrix_jobs(&data.q4, &data.x, &mut jobs);
    for kernel in vector_kernels() {
        vector_jobs(*kernel, &data, &mut jobs);
    }
    for _ in 0..settings.rounds.max(1) {
        for job in &mut jobs {
            job.take(now);
        }
    }
    Ok(jobs.into_iter().map(Job::finish).collect())
}

/// What the jobs read.
struct Data {
    f32: Matrices<Entry>,
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    q8_quads: Matrices<Q8QuadBlock>,
    q8: Matrices<Q8Block>,
    q4: Matrices<Q4Block>,
    x: Vec<f32>,
    /// By the name of their format.
    pages: [(&'static str, Vec<Page>); 2],
}

/// A matrix beyond the caches, and one of the size of a layer.
struct Matrices<B> {
    large: Packed<B>,
    layer: Packed<B>,
}

impl<B: Block> Matrices<B> {
    fn new(rows: usize, x: &[f32]) -> Result<Self> {
        let filled = |n: usize| -> Result<Packed<B>> {
            let mut matrix = Packed::new(n, HIDDEN)?;
            let strip = x.len() / HIDDEN;
            for row in (0..n).step_by(strip) {
                matrix.set_rows(row, &x[..strip.min(n - row) * HIDDEN]);
            }
            Ok(matrix)
        };
        Ok(Self { large: filled(rows)?, layer: filled(4 * HIDDEN)? })
    }
}

impl Data {
    fn new(rows: usize) -> Result<Self> {
        let x: Vec<f32> = (0..CHUNK * 4 * HIDDEN).map(|i| (i % 1000) as f32 / 500.0 - 1.0).collect();
        let pages = |format| -> Result<Vec<Page>> {
            let mut pages = Vec::new();
            for _ in 0..(CONTEXT + CHUNK).div_ceil(PAGE) {
                let mut page = Page::new(format, HEADS, HIDDEN / HEADS)?;
                for slot in 0..PAGE {
                    page.write(slot, &x[slot * HIDDEN..][..HIDDEN], &x[slot * HIDDEN + 5..][..HIDDEN]);
                }
                pages.push(page);
            }
            Ok(pages)
        };
        let pages = [("f32", pages(CacheFormat::F32)?), ("q8", pages(CacheFormat::integers())?)];
        Ok(Self {
            f32: Matrices::new(rows, &x)?,
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            q8_quads: Matrices::new(rows, &x)?,
            q8: Matrices::new(rows, &x)?,
            q4: Matrices::new(rows, &x)?,
            x,
            pages,
        })
    }
}

/// An operation on one vector, which it may overwrite.
type InPlace<'a> = Box<dyn FnMut(&mut [f32]) + 'a>;

/// One thing to time.
struct Job<'a> {
    result: Measurement,
    /// Bytes, multiply-adds or elements of one run.
    work: f64,
    run: Box<dyn FnMut() + 'a>,
    /// Runs that one sample takes, so that it lasts about a millisecond.
    repeats: u32,
    samples: Vec<f64>,
}

impl<'a> Job<'a> {
    fn new(
        kernel: &'static str,
        operation: String,
        (work, unit): (f64, &'static str),
        limit: Option<usize>,
        run: impl FnMut() + 'a,
    ) -> Self {
        let result = Measurement { kernel, operation, median: 0.0, best: 0.0, unit, limit };
        Self { result, work, run: Box::new(run), repeats: 1, samples: Vec::new() }
    }

    /// Takes one sample, of as many runs as a coarse clock needs to tell their time; the first call warms up.
    fn take(&mut self, now: &dyn Fn() -> f64) {
        if self.samples.is_empty() {
            self.timed(now);
        }
        let mut elapsed = self.timed(now);
        while elapsed < 1.0 {
            self.repeats *= 2;
            elapsed = self.timed(now);
        }
        self.samples.push(elapsed / f64::from(self.repeats));
    }

    fn timed(&mut self, now: &dyn Fn() -> f64) -> f64 {
        let start = now();
        for _ in 0..self.repeats {
            (self.run)();
        }
        now() - start
    }

    fn finish(mut self) -> Measurement {
        self.samples.sort_by(f64::total_cmp);
        let figure = |milliseconds: f64| match self.result.unit {
            "ns" => milliseconds * 1e6 / self.work,
            _ => self.work / milliseconds / 1e6,
        };
        self.result.best = figure(self.samples[0]);
        self.result.median = figure(self.samples[self.samples.len() / 2]);
        self.result
    }
}

/// The read bandwidth first, then the peaks of [`peaks`].
fn limit_jobs(data: &Data) -> Vec<Job<'_>> {
    let matrix = &data.f32.large;
    let bytes = PackedF32::bytes(matrix.n(), HIDDEN) as f64;
    let mut jobs =
        vec![Job::new("limit", format!("read {:.0} MB", bytes / 1e6), (bytes, "GB/s"), None, || {
            matrix.segments().for_each(|(_, panels)| _ = limits::read(panels));
        })];
    for (peak, passes) in peaks() {
        let operation = match passes {
            1 => peak.instruction.to_owned(),
            _ => format!("{}, {passes} a product", peak.instruction),
        };
        let work = (peak.run(10_000) as f64 / f64::from(passes), "GMAC/s");
        jobs.push(Job::new("limit", operation, work, None, move || _ = peak.run(10_000)));
    }
    jobs
}

/// Every peak, and how many of its multiply-adds are one of a product: see [`MatrixKernel::passes`].
fn peaks() -> Vec<(&'static Peak, u32)> {
    let mut peaks: Vec<_> = limits::peaks().iter().map(|peak| (peak, 1)).collect();
    let mut used = instructions::<Q8Block>();
    used.extend(instructions::<Q4Block>());
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    used.extend(instructions::<Q8QuadBlock>());
    for (instruction, passes) in used {
        let peak = limits::peaks().iter().find(|peak| peak.instruction == instruction);
        let known = peaks.iter().any(|(peak, of)| (peak.instruction, *of) == (instruction, passes));
        peaks.extend(peak.filter(|_| !known).map(|peak| (peak, passes)));
    }
    peaks
}

/// What the kernels of a precision run on.
fn instructions<B: Block>() -> Vec<(&'static str, u32)> {
    B::kernels().iter().map(|kernel| (kernel.instruction(), kernel.passes())).collect()
}

/// Both regimes of every kernel of a precision.
fn matrix_jobs<'a, B: Block>(matrices: &'a Matrices<B>, x: &'a [f32], jobs: &mut Vec<Job<'a>>) {
    let Matrices { large, layer } = matrices;
    for kernel in B::kernels().iter().copied() {
        let mut y = vec![0.0; large.n()];
        let work = (Packed::<B>::bytes(large.n(), HIDDEN) as f64, "GB/s");
        let operation = format!("{} matvec [{}, {HIDDEN}]", B::NAME, large.n());
        jobs.push(Job::new(kernel.name(), operation, work, Some(0), move || {
            large.matmul(kernel, 1, black_box(&x[..HIDDEN]), None, &mut y);
        }));
        let wanted = (kernel.instruction(), kernel.passes());
        let peak = peaks().iter().position(|(peak, passes)| (peak.instruction, *passes) == wanted);
        let mut y = vec![0.0; CHUNK * layer.n()];
        let work = ((CHUNK * layer.n() * HIDDEN) as f64, "GMAC/s");
        let operation = format!("{} matmul {CHUNK} x [{}, {HIDDEN}]", B::NAME, layer.n());
        jobs.push(Job::new(kernel.name(), operation, work, peak.map(|index| index + 1), move || {
            layer.matmul(kernel, CHUNK, black_box(&x[..CHUNK * HIDDEN]), None, &mut y);
        }));
    }
}

fn vector_jobs<'a>(kernel: &'static dyn VectorKernel, data: &'a Data, jobs: &mut Vec<Job<'a>>) {
    let name = kernel.name();
    let Data { x, pages, .. } = data;
    let mut push = |operation: String, elements: usize, run: InPlace<'a>| {
        let (mut y, mut run) = (x[..elements].to_vec(), run);
        jobs.push(Job::new(name, operation, (elements as f64, "ns"), None, move || run(black_box(&mut y))));
    };
    push(format!("softmax {CONTEXT}"), CONTEXT, Box::new(move |y| kernel.softmax(y)));
    let (weight, bias) = (&x[..HIDDEN], &x[HIDDEN..2 * HIDDEN]);
    push(
        format!("layer norm {HIDDEN}"),
        HIDDEN,
        Box::new(move |y| kernel.layer_norm(&x[2 * HIDDEN..3 * HIDDEN], weight, bias, 1e-5, y)),
    );
    let mlp = 4 * HIDDEN;
    push(
        format!("gelu {mlp}"),
        mlp,
        Box::new(move |y| {
            y.copy_from_slice(&x[..mlp]);
            kernel.activation(Activation::GeluTanh, y);
        }),
    );
    for (queries, (format, pages)) in
        [1, CHUNK].into_iter().flat_map(|queries| pages.iter().map(move |pages| (queries, pages)))
    {
        let past = CONTEXT - queries;
        let head_dim = HIDDEN / HEADS;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = AttentionShape { heads: HEADS, head_dim, queries, past, scale, query_stride: HIDDEN };
        let (mut out, mut scratch) = (vec![0.0; queries * HIDDEN], Vec::new());
        let pairs = queries * past + queries * (queries + 1) / 2; // of a query and a position that it sees
        let work = ((2 * pairs * HIDDEN) as f64, "GMAC/s");
        let operation = format!("attention, {queries} at {past} positions, {format}");
        jobs.push(Job::new(name, operation, work, None, move || {
            kernel.attention(&shape, black_box(&x[..queries * HIDDEN]), pages, &mut out, &mut scratch);
        }));
    }
}

/// Panics unless a small product of every kernel of a precision is right.
fn check_all<B: Block>() {
    let (m, n, k) = (7, 37, 300);
    let value = |i: usize| (i * 7919 % 1009) as f32 / 504.5 - 1.0;
    let (mut w, x): (Vec<f32>, Vec<f32>) = ((0..n * k).map(value).collect(), (0..m * k).map(value).collect());
    let mut matrix = Packed::<B>::new(n, k).expect("44 kB");
    matrix.set_rows(0, &w);
    w.chunks_mut(k).enumerate().for_each(|(row, w)| matrix.row(row, w));
    let expected = reference::matmul(&w, n, m, k, &x);
    // Quantised inputs are off by up to half of 1/64.
    let tolerance = if B::DEPTH == 1 { 1e-3 } else { 0.5 };
    for kernel in B::kernels() {
        let mut y = vec![0.0; m * n];
        matrix.matmul(*kernel, m, &x, None, &mut y);
        for (found, expected) in y.iter().zip(&expected) {
            let name = kernel.name();
            assert!((f64::from(*found) - expected).abs() < tolerance, "{name}: {found}, expected {expected}");
        }
    }
}

/// Panics unless a small softmax is right.
fn check_vector(kernel: &dyn VectorKernel) {
    let mut x: Vec<f32> = (0..37).map(|i| (i * 7919 % 101) as f32 / 10.0).collect();
    let expected = reference::softmax(&x);
    kernel.softmax(&mut x);
    for (found, expected) in x.iter().zip(expected) {
        assert!(
            (f64::from(*found) - expected).abs() < 1e-6,
            "{}: {found}, expected {expected}",
            kernel.name()
        );
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[cfg_attr(not(target_arch = "wasm32"), test)]
    fn every_kernel_is_measured_and_limits_are_lines_of_the_result() {
        let clock = Cell::new(0.0);
        let now = || {
            clock.set(clock.get() + 2.0); // every sample lasts two milliseconds
            clock.get()
        };
        let results = measure(Settings { rows: 64, rounds: 2 }, &now).expect("fits");
        for name in Entry::kernels().iter().map(|kernel| kernel.name()) {
            let lines: Vec<_> = results.iter().filter(|line| line.kernel == name).collect();
            assert!(lines.len() >= 7, "{name}: {lines:?}");
            assert!(lines.iter().all(|line| line.best == line.median && line.best > 0.0), "{lines:?}");
        }
        for precision in [Entry::NAME, Q8Block::NAME, Q4Block::NAME] {
            let line = |operation: &str| {
                let wanted = format!("{precision} {operation}");
                results.iter().find(|line| line.operation.starts_with(&wanted)).expect("a line")
            };
            let limit = |line: &Measurement| &results[line.limit.expect("a limit")];
            assert_eq!(limit(line("matvec")).unit, "GB/s");
            if cfg!(target_arch = "wasm32") || precision == "f32" {
                assert_eq!((limit(line("matmul")).kernel, limit(line("matmul")).unit), ("limit", "GMAC/s"));
            }
        }
    }
}
