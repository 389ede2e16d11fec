//! What every kernel of [`VectorKernel`] must do.

use super::{Random, assert_close, bits};
use crate::kernels::panels::LARGEST_TILE as TILE;
use crate::kernels::{
    Activation, AttentionShape, CacheFormat, PAGE, Page, VectorKernel, portable, reference,
};

/// Lengths around the borders of a vector, a block and a panel.
const LENGTHS: [usize; 15] = [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 64, 100, 769];

const ACTIVATIONS: [Activation; 5] =
    [Activation::GeluTanh, Activation::GeluErf, Activation::Relu, Activation::Silu, Activation::Tanh];

pub(in crate::kernels) fn is_listed_under_its_name(name: &str, kernel: &dyn VectorKernel) {
    assert_eq!(kernel.name(), name);
    assert_eq!(crate::kernels::vector_kernels().iter().filter(|k| k.name() == name).count(), 1);
}

pub(in crate::kernels) fn softmax_is_close_to_the_reference(name: &str, kernel: &dyn VectorKernel) {
    let mut random = Random::new(6);
    kernel.softmax(&mut []);
    for len in LENGTHS {
        let mut x: Vec<f32> = random.vec(len).iter().map(|x| 20.0 * x + 3.0).collect();
        let expected = reference::softmax(&x);
        kernel.softmax(&mut x);
        // x - max rounds at 40, which is 2^-19 of relative error after exp.
        assert_close(&x, &expected, |i| 4e-6 * expected[i], &format!("{name}: {len}"));
        let sum: f64 = x.iter().map(|x| f64::from(*x)).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{name}: {len} elements sum to {sum}");
    }
}

pub(in crate::kernels) fn softmax_takes_extremes(name: &str, kernel: &dyn VectorKernel) {
    for len in [3, 16, 21] {
        let mut x = vec![f32::NEG_INFINITY; len];
        x[1] = 3e38;
        x[len - 1] = 3e38;
        x[0] = -3e38;
        kernel.softmax(&mut x);
        let expected: Vec<f32> = (0..len).map(|i| if i == 1 || i == len - 1 { 0.5 } else { 0.0 }).collect();
        assert_eq!(x, expected, "{name}");
        x[0] = f32::NAN;
        kernel.softmax(&mut x);
        assert!(x.iter().all(|x| x.is_nan()), "{name}: {x:?}");
    }
}

pub(in crate::kernels) fn log_sum_exp_agrees_with_softmax(name: &str, kernel: &dyn VectorKernel) {
    assert_eq!(kernel.log_sum_exp(&[]), f32::NEG_INFINITY);
    assert_eq!(kernel.log_sum_exp(&[f32::NEG_INFINITY; 5]), f32::NEG_INFINITY);
    assert_eq!(kernel.log_sum_exp(&[100.0]), 100.0);
    let mut random = Random::new(7);
    for len in LENGTHS {
        let x: Vec<f32> = random.vec(len).iter().map(|x| 20.0 * x - 90.0).collect();
        let expected = f64::from(x[0]) - reference::softmax(&x)[0].ln();
        assert_close(&[kernel.log_sum_exp(&x)], &[expected], |_| 2e-5, &format!("{name}: {len}"));
    }
}

pub(in crate::kernels) fn layer_norm_is_close_to_the_reference(name: &str, kernel: &dyn VectorKernel) {
    let mut random = Random::new(8);
    kernel.layer_norm(&[], &[], &[], 1e-5, &mut []);
    for n in LENGTHS {
        for m in [1, 3] {
            let (weight, bias) = (random.vec(n), random.vec(n));
            let x: Vec<f32> = random.vec(m * n).iter().map(|x| 3.0 * x + 5.0).collect();
            let mut y = vec![f32::NAN; m * n];
            kernel.layer_norm(&x, &weight, &bias, 1e-5, &mut y);
            for (x, y) in x.chunks(n).zip(y.chunks(n)) {
                let expected = reference::layer_norm(x, &weight, &bias, 1e-5);
                // The mean rounds at 5, and a row of few elements can have a variance as small as 1e-3.
                assert_close(y, &expected, |_| 2e-4, &format!("{name}: {m} rows of {n}"));
            }
        }
    }
}

pub(in crate::kernels) fn activations_are_close_to_the_reference(name: &str, kernel: &dyn VectorKernel) {
    for activation in ACTIVATIONS {
        kernel.activation(activation, &mut []);
        for len in LENGTHS {
            let mut x = Random::new(10).vec(len);
            let expected: Vec<f64> = x.iter().map(|x| reference::activation(activation, *x)).collect();
            kernel.activation(activation, &mut x);
            assert_close(&x, &expected, |_| 1e-6, &format!("{name}: {activation:?} of {len}"));
        }
        // The stated bounds, on a dense grid. Below 1e-30 a result may be flushed to zero.
        let bound = |x: f32| match activation {
            Activation::Relu => 0.0,
            Activation::Tanh => 3e-7,
            _ if x >= -1.0 => 5e-7,
            Activation::Silu => 2e-6,
            Activation::GeluTanh | Activation::GeluErf if x >= -6.0 => 5e-6,
            Activation::GeluTanh | Activation::GeluErf => 2e-5,
        };
        let grid: Vec<f32> = (-60_000..=60_000).map(|i| i as f32 / 5_000.0).collect();
        let mut found = grid.clone();
        kernel.activation(activation, &mut found);
        let expected: Vec<f64> = grid.iter().map(|x| reference::activation(activation, *x)).collect();
        let bound = |i: usize| bound(grid[i]) * expected[i].abs() + 1e-30;
        assert_close(&found, &expected, bound, &format!("{name}: {activation:?} of the grid"));
    }
}

pub(in crate::kernels) fn activations_take_extremes(name: &str, kernel: &dyn VectorKernel) {
    for activation in ACTIVATIONS {
        let mut x = [1e4, -1e4, 0.0, f32::NAN, 1e-30];
        kernel.activation(activation, &mut x);
        let top = if activation == Activation::Tanh { 1.0 } else { 1e4 };
        let bottom = if activation == Activation::Tanh { -1.0 } else { 0.0 };
        let what = format!("{name}: {activation:?} gives {x:?}");
        assert!(x[0] == top && (x[1] - bottom).abs() < 1e-30 && x[2] == 0.0, "{what}");
        assert!(x[3].is_nan() && x[4] > 0.0 && x[4] <= 1e-30, "{what}");
    }
}

/// Queries, keys and values of some shape, and the pages that hold the latter.
struct Cache {
    format: CacheFormat,
    shape: AttentionShape,
    q: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    poisoned: bool,
}

impl Cache {
    /// Keys and values are numbers that `format` holds exactly.
    fn new(
        format: CacheFormat,
        random: &mut Random,
        heads: usize,
        head_dim: usize,
        past: usize,
        queries: usize,
    ) -> Self {
        let held = |mut x: Vec<f32>| {
            for x in x.chunks_mut(head_dim.max(1)).filter(|_| format != CacheFormat::F32) {
                let largest = x.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
                let scale = largest / 127.0;
                x.iter_mut().for_each(|x| *x = (*x * (127.0 / largest)).round_ties_even() * scale);
            }
            x
        };
        let hidden = heads * head_dim;
        let query_stride = 3 * hidden;
        let scale = 1.0 / (head_dim as f32).sqrt();
        Self {
            shape: AttentionShape { heads, head_dim, queries, past, scale, query_stride },
            q: random.vec(queries * query_stride).iter().map(|q| 3.0 * q).collect(),
            keys: held(random.vec((past + queries) * hidden)),
            values: held(random.vec((past + queries) * hidden)),
            poisoned: true,
            format,
        }
    }

    /// Pages of the first `positions`, for some of the heads; if they are poisoned, everything else in them is NaN, and all had been.
    fn pages(&self, positions: usize, heads: std::ops::Range<usize>) -> Vec<Page> {
        let AttentionShape { heads: all, head_dim, .. } = self.shape;
        let nan = vec![f32::NAN; heads.len() * head_dim];
        let columns = heads.start * head_dim..heads.end * head_dim;
        let row =
            |rows: &'_ [f32], position: usize| rows[position * all * head_dim..][columns.clone()].to_vec();
        let mut pages = Vec::new();
        for start in (0..positions.max(1)).step_by(PAGE) {
            let mut page = Page::new(self.format, heads.len(), head_dim).expect("fits");
            if self.poisoned {
                (0..PAGE).for_each(|slot| page.write(slot, &nan, &nan));
            }
            for (slot, position) in (start..positions).take(PAGE).enumerate() {
                page.write(slot, &row(&self.keys, position), &row(&self.values, position));
            }
            pages.push(page);
        }
        pages
    }

    fn run(&self, kernel: &dyn VectorKernel) -> Vec<f32> {
        let AttentionShape { heads, head_dim, queries, past, .. } = self.shape;
        let mut out = vec![f32::NAN; queries * heads * head_dim];
        let pages = self.pages(past + queries, 0..heads);
        kernel.attention(&self.shape, &self.q, &pages, &mut out, &mut vec![f32::NAN; 7]);
        out
    }
}

pub(in crate::kernels) fn attention_is_close_to_the_reference(name: &str, kernel: &dyn VectorKernel) {
    let mut random = Random::new(11);
    let mut check = |heads, head_dim, past, queries| {
        // Beside 8 bits, queries and weights are rounded by up to 1 / 1032 of the largest of 32.
        for &format in CacheFormat::ALL {
            let bound = if format == CacheFormat::F32 { 2e-6 } else { 1e-3 };
            let cache = Cache::new(format, &mut random, heads, head_dim, past, queries);
            let expected = reference::attention(&cache.shape, &cache.q, &cache.keys, &cache.values);
            let what = format!("{name}, {format:?}: {:?}", cache.shape);
            assert_close(&cache.run(kernel), &expected, |_| bound, &what);
        }
    };
    for past in [0, 1, 15, 16, 17, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE - 3] {
        for queries in [0, 1, 2, 3, 4, TILE - 1, TILE, TILE + 1] {
            check(2, 8, past, queries);
        }
    }
    for head_dim in [0, 1, 7, 15, 16, 17, 31, 32, 33, 64, 80] {
        check(1, head_dim, 20, 1);
        check(3, head_dim, 60, 9);
    }
    check(0, 8, 3, 2);
    check(1, 64, 0, 150);
}

pub(in crate::kernels) fn attention_is_the_same_however_queries_are_cut(
    name: &str,
    kernel: &dyn VectorKernel,
) {
    let (heads, head_dim, past, queries) = (2, 20, 57, 2 * TILE + 5);
    for &format in CacheFormat::ALL {
        let cache = Cache::new(format, &mut Random::new(12), heads, head_dim, past, queries);
        let whole = cache.run(kernel);
        let hidden = heads * head_dim;
        for chunk in [1, 2, 3, TILE, TILE + 2] {
            for start in (0..queries).step_by(chunk) {
                let part = chunk.min(queries - start);
                let shape = AttentionShape { queries: part, past: past + start, ..cache.shape };
                let pages = cache.pages(past + start + part, 0..heads);
                let mut out = vec![f32::NAN; part * hidden];
                let q = &cache.q[start * shape.query_stride..];
                kernel.attention(&shape, q, &pages, &mut out, &mut Vec::new());
                let expected = &whole[start * hidden..][..part * hidden];
                assert_eq!(bits(&out), bits(expected), "{name}, {format:?}: {part} queries from {start}");
            }
        }
    }
}

pub(in crate::kernels) fn attention_over_two_ranges_of_heads_equals_the_whole(
    name: &str,
    kernel: &dyn VectorKernel,
) {
    let (heads, head_dim, past, queries) = (5, 8, 30, TILE + 2);
    for &format in CacheFormat::ALL {
        let cache = Cache::new(format, &mut Random::new(13), heads, head_dim, past, queries);
        let whole = cache.run(kernel);
        for range in [1, 2, 4].into_iter().flat_map(|cut| [0..cut, cut..heads]) {
            let shape = AttentionShape { heads: range.len(), ..cache.shape };
            let pages = cache.pages(past + queries, range.clone());
            let width = range.len() * head_dim;
            let mut out = vec![f32::NAN; queries * width];
            kernel.attention(&shape, &cache.q[range.start * head_dim..], &pages, &mut out, &mut Vec::new());
            for (query, out) in out.chunks(width).enumerate() {
                let expected = &whole[(query * heads + range.start) * head_dim..][..width];
                assert_eq!(bits(out), bits(expected), "{name}, {format:?}: heads {range:?}, query {query}");
            }
        }
    }
}

pub(in crate::kernels) fn attention_never_touches_later_positions(name: &str, kernel: &dyn VectorKernel) {
    let cases = [(0, TILE), (PAGE - 2, TILE), (3, 2 * TILE + 1)];
    for (format, (past, queries)) in
        CacheFormat::ALL.iter().flat_map(|format| cases.map(|case| (*format, case)))
    {
        let mut cache = Cache::new(format, &mut Random::new(14), 1, 16, past, queries);
        let before = cache.run(kernel);
        let last = (past + queries - 1) * 16;
        cache.keys[last..].fill(f32::NAN);
        cache.values[last..].fill(f32::INFINITY);
        let (seen, poisoned) = before.split_at((queries - 1) * 16);
        let after = cache.run(kernel);
        let what = format!("{name}, {format:?}: past {past}, {queries} queries");
        assert_eq!(bits(&after[..seen.len()]), bits(seen), "{what}");
        assert!(after[seen.len()..].iter().all(|x| x.is_nan()), "{what}");
        assert!(poisoned.iter().all(|x| x.is_finite()), "{what}");
    }
}

pub(in crate::kernels) fn attention_over_integers_gives_the_bits_of_portable(
    name: &str,
    kernel: &dyn VectorKernel,
) {
    // Of steep queries, most weights are zero or close to it.
    let shapes = [(2, 20, 170), (3, 80, 64), (3, 80, 80), (1, 33, 5)];
    let cases = [(1, 1.0), (TILE + 1, 1.0), (1, 300.0), (TILE + 1, 300.0)];
    for ((heads, head_dim, past), (queries, steepness)) in
        shapes.into_iter().flat_map(|shape| cases.map(|case| (shape, case)))
    {
        let mut cache = Cache::new(CacheFormat::Q8, &mut Random::new(16), heads, head_dim, past, queries);
        cache.shape.scale *= steepness;
        let expected = cache.run(&portable::VECTOR);
        for &format in CacheFormat::ALL.iter().filter(|format| **format != CacheFormat::F32) {
            for poisoned in [true, false] {
                (cache.format, cache.poisoned) = (format, poisoned);
                let found = cache.run(kernel);
                let what = format!("{name}, {format:?}, poisoned: {poisoned}: {:?}", cache.shape);
                assert!(found.iter().all(|x| x.is_finite()), "{what}: {found:?}");
                assert_eq!(bits(&found), bits(&expected), "{what}");
            }
        }
    }
}

pub(in crate::kernels) fn plain_instruction_sets_give_the_bits_of_portable(
    name: &str,
    kernel: &dyn VectorKernel,
) {
    if name == "relaxed-simd" {
        return; // fuses multiply and add: within the tolerances above, not the same bits
    }
    let portable = &portable::VECTOR;
    let x: Vec<f32> = Random::new(15).vec(777).iter().map(|x| 12.0 * x).collect();
    let of = |f: &dyn Fn(&mut [f32])| {
        let mut y = x.clone();
        f(&mut y);
        bits(&y)
    };
    for activation in ACTIVATIONS {
        let (found, expected) =
            (of(&|y| kernel.activation(activation, y)), of(&|y| portable.activation(activation, y)));
        assert_eq!(found, expected, "{name}: {activation:?}");
    }
    assert_eq!(of(&|y| kernel.softmax(y)), of(&|y| portable.softmax(y)), "{name}: softmax");
    let norm = |kernel: &dyn VectorKernel, y: &mut [f32]| kernel.layer_norm(&x, &x, &x, 1e-5, y);
    assert_eq!(of(&|y| norm(kernel, y)), of(&|y| norm(portable, y)), "{name}: layer norm");
    let cache = Cache::new(CacheFormat::F32, &mut Random::new(16), 2, 20, 70, TILE + 1);
    assert_eq!(bits(&cache.run(kernel)), bits(&cache.run(portable)), "{name}: attention");
}
