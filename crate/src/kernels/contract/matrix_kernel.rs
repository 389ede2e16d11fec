//! What every kernel of [`MatrixKernel`] must do, whatever the precision.

use super::{Random, assert_close, bits};
use crate::kernels::panels::{K_BLOCK, LARGEST_TILE as TILE, M_BLOCK};
use crate::kernels::quantise::{LARGEST_SUM, quantise_inputs, worth};
use crate::kernels::{BLOCK, Block, Entry, MatrixKernel, PANEL, Packed, WHOLE_TILES, reference};

fn packed<B: Block>(n: usize, k: usize, w: &[f32]) -> Packed<B> {
    let mut matrix = Packed::new(n, k).expect("a small matrix fits");
    matrix.set_rows(0, w);
    matrix
}

fn panels<B: Block>(matrix: &Packed<B>) -> &[B] {
    matrix.segments().next().map_or(&[], |(_, panels)| panels)
}

pub(in crate::kernels) fn is_listed_under_its_name<B: Block>(name: &str, kernel: &dyn MatrixKernel<B>) {
    assert_eq!(kernel.name(), name);
    assert_eq!(B::kernels().iter().filter(|k| k.name() == name).count(), 1);
}

/// The rows of a matrix as it holds them, and the inputs as its kernels see them.
fn as_seen<B: Block>(matrix: &Packed<B>, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let mut w = vec![f32::NAN; matrix.n() * matrix.k()];
    for (index, row) in w.chunks_exact_mut(matrix.k().max(1)).enumerate() {
        matrix.row(index, row);
    }
    if B::INPUT_LEVELS == 0 {
        return (w, x.to_vec());
    }
    let quantised = x.chunks(BLOCK).flat_map(|x| {
        let (mut block, mut integers) = ([0.0; BLOCK], [0; BLOCK]);
        block[..x.len()].copy_from_slice(x);
        let base = quantise_inputs(&block, B::INPUT_LEVELS, &mut integers);
        integers.into_iter().take(x.len()).map(move |integer| integer as f32 * worth(1, base))
    });
    (w, quantised.collect())
}

pub(in crate::kernels) fn matvec_is_close_to_the_reference<B: Block>(
    name: &str,
    kernel: &dyn MatrixKernel<B>,
) {
    let mut random = Random::new(1);
    for n in [0, 1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 50] {
        for k in [0, 1, 2, 3, 5, 16, 31, 32, 33, 63, 257, 768] {
            let matrix = packed(n, k, &random.vec(n * k));
            let x = random.vec(k);
            let mut y = vec![0.0; n];
            kernel.matvec(panels(&matrix), &x, None, &mut y);
            let (w, x) = as_seen(&matrix, &x);
            // Each addition of a block rounds a partial sum that is at most Σ |w x|, and each block was rounded once.
            let bound = |row: usize| {
                let terms = w[row * k..][..k].iter().zip(&x).map(|(w, x)| f64::from((w * x).abs()));
                (k.div_ceil(B::DEPTH) + 1) as f64 * f64::from(f32::EPSILON) * terms.sum::<f64>()
            };
            let expected = reference::matmul(&w, n, 1, k, &x);
            assert_close(&y, &expected, bound, &format!("{name}: [{n}, {k}]"));
        }
    }
}

pub(in crate::kernels) fn matvec_picks_single_columns_exactly(name: &str, kernel: &dyn MatrixKernel<Entry>) {
    let (n, k) = (37, 11);
    let w = Random::new(2).vec(n * k);
    let matrix = packed(n, k, &w);
    for column in 0..k {
        let mut x = vec![0.0; k];
        x[column] = 1.0;
        let mut y = vec![0.0; n];
        kernel.matvec(panels(&matrix), &x, None, &mut y);
        let expected: Vec<f32> = w.iter().skip(column).step_by(k).copied().collect();
        assert_eq!(y, expected, "{name}: column {column}");
    }
}

pub(in crate::kernels) fn matmul_is_matvec_to_the_bit<B: Block>(name: &str, kernel: &dyn MatrixKernel<B>) {
    let mut random = Random::new(3);
    let mut check = |m: usize, n: usize, k: usize| {
        let (w, x) = (random.vec(n * k), random.vec(m * k));
        let matrix = packed(n, k, &w);
        let bias = random.vec(n);
        let mut y = vec![f32::NAN; m * n];
        kernel.matmul(panels(&matrix), m, &x, Some(&bias), &mut y, 0..n);
        for row in 0..m {
            let mut expected = vec![f32::NAN; n];
            kernel.matvec(panels(&matrix), &x[row * k..][..k], Some(&bias), &mut expected);
            assert_eq!(bits(&y[row * n..][..n]), bits(&expected), "{name}: row {row} of {m}, [{n}, {k}]");
        }
    };
    for m in [0, 1, 2, 3, 4, TILE - 1, TILE, TILE + 1, 3 * TILE - 1] {
        for n in [0, 1, 7, 8, 9, PANEL - 1, PANEL, PANEL + 1, 3 * PANEL + 5] {
            for k in [0, 1, 2, 5, 64] {
                check(m, n, k);
            }
        }
    }
    for k in [K_BLOCK - 1, K_BLOCK, K_BLOCK + 1, 3 * K_BLOCK + 7] {
        check(TILE + 1, PANEL + 3, k);
    }
    for m in [WHOLE_TILES - 1, WHOLE_TILES, WHOLE_TILES + 1, 2 * WHOLE_TILES + TILE + 1] {
        for (n, k) in [(PANEL, 9), (PANEL + 1, 31), (3 * PANEL, 3 * K_BLOCK + 7), (PANEL - 1, 0)] {
            check(m, n, k);
        }
    }
    for m in [M_BLOCK - 1, M_BLOCK, M_BLOCK + 1] {
        check(m, PANEL + 1, 9);
    }
}

pub(in crate::kernels) fn sums_begin_with_a_bias_or_what_is_there<B: Block>(
    name: &str,
    kernel: &dyn MatrixKernel<B>,
) {
    let mut random = Random::new(19);
    for (m, n, k) in [
        (1, 37, 0),
        (1, 37, 70),
        (3, 20, 0),
        (TILE + 1, 33, 70),
        (2, 16, 2 * K_BLOCK),
        (WHOLE_TILES + 1, 33, 70),
    ] {
        let (matrix, x, bias) = (packed(n, k, &random.vec(n * k)), random.vec(m * k), random.vec(n));
        let (mut product, mut added, mut y) = (vec![0.0; m * n], bias.repeat(m), vec![f32::NAN; m * n]);
        matrix.matmul(kernel, m, &x, None, &mut product);
        matrix.matmul(kernel, m, &x, None, &mut added);
        matrix.matmul(kernel, m, &x, Some(&bias), &mut y);
        let what = format!("{name}: {m} times [{n}, {k}]");
        assert_eq!(bits(&added), bits(&y), "{what}");
        let biases = bias.iter().cycle();
        let expected: Vec<f64> = product
            .iter()
            .zip(biases)
            .map(|(product, bias)| f64::from(*product) + f64::from(*bias))
            .collect();
        // Rounding of a few hundred additions of numbers below 64.
        assert_close(&y, &expected, |_| 1e-4, &what);
        if k == 0 {
            assert_eq!(y, bias.repeat(m), "{what}");
        }
    }
}

pub(in crate::kernels) fn matmul_leaves_other_columns_alone<B: Block>(
    name: &str,
    kernel: &dyn MatrixKernel<B>,
) {
    let (m, n, k) = (WHOLE_TILES + TILE + 2, 40, 9);
    // Positive, so that no product is zero.
    let mut random = Random::new(4);
    let [w, x] = [21, m].map(|rows| random.vec(rows * k).iter().map(|x| x.abs() + 0.1).collect::<Vec<_>>());
    let matrix = packed(21, k, &w);
    for k in [0, k] {
        let mut y = vec![7.0; m * n];
        kernel.matmul(&panels(&matrix)[..2 * k.div_ceil(B::DEPTH)], m, &x[..m * k], None, &mut y, 10..31);
        for (i, y) in y.iter().enumerate() {
            assert!((k > 0 && (10..31).contains(&(i % n))) == (*y != 7.0), "{name}: element {i} is {y}");
        }
    }
}

pub(in crate::kernels) fn segments_and_ranges_of_rows_equal_the_whole<B: Block>(
    name: &str,
    kernel: &dyn MatrixKernel<B>,
) {
    let (m, n, k) = (WHOLE_TILES + 1, 5 * PANEL + 3, 19);
    let mut random = Random::new(5);
    let (w, x, bias) = (random.vec(n * k), random.vec(m * k), random.vec(n));
    let mut whole = vec![0.0; m * n];
    packed::<B>(n, k, &w).matmul(kernel, m, &x, Some(&bias), &mut whole);
    let mut segmented =
        Packed::<B>::with_segments(n, k, 2 * k.div_ceil(B::DEPTH) * size_of::<B>()).expect("fits");
    assert_eq!(segmented.segments().count(), 3);
    segmented.set_rows(0, &w);
    let mut y = vec![0.0; m * n];
    segmented.matmul(kernel, m, &x, Some(&bias), &mut y);
    assert_eq!(bits(&y), bits(&whole), "{name}: segments");
    y[..n].fill(0.0);
    segmented.matmul(kernel, 1, &x[..k], Some(&bias), &mut y[..n]);
    assert_eq!(bits(&y[..n]), bits(&whole[..n]), "{name}: segments, one row");
    for cut in [0, 1, PANEL, 30, n] {
        let (first, second) = w.split_at(cut * k);
        let mut y = vec![0.0; m * n];
        let (first_bias, second_bias) = bias.split_at(cut);
        kernel.matmul(panels(&packed::<B>(cut, k, first)), m, &x, Some(first_bias), &mut y, 0..cut);
        kernel.matmul(panels(&packed::<B>(n - cut, k, second)), m, &x, Some(second_bias), &mut y, cut..n);
        assert_eq!(bits(&y), bits(&whole), "{name}: cut at {cut}");
    }
}

pub(in crate::kernels) fn plain_instruction_sets_give_the_bits_of_portable<B: Block>(
    name: &str,
    kernel: &dyn MatrixKernel<B>,
) {
    if B::DEPTH == 1 && name == "relaxed-simd" {
        return; // fuses multiply and add: within the tolerance above, not the same bits
    }
    let portable = *B::kernels().last().expect("the portable kernel is listed last");
    assert_eq!(portable.name(), "portable");
    let mut random = Random::new(17);
    for (m, n, k) in
        [(TILE + 3, 37, K_BLOCK + 5), (1, 50, 768), (3, 16, 1100), (WHOLE_TILES + 2, 21, 3 * K_BLOCK + 5)]
    {
        let (matrix, x) = (packed(n, k, &random.vec(n * k)), random.vec(m * k));
        let (mut found, mut expected) = (vec![0.0; m * n], vec![0.0; m * n]);
        matrix.matmul(kernel, m, &x, None, &mut found);
        matrix.matmul(portable, m, &x, None, &mut expected);
        assert_eq!(bits(&found), bits(&expected), "{name}: {m} times [{n}, {k}]");
    }
}

/// Sums inside a block at their largest magnitude, of both signs.
pub(in crate::kernels) fn extremes_do_not_overflow<B: Block>(name: &str, kernel: &dyn MatrixKernel<B>) {
    let (m, n, k) = (WHOLE_TILES + 1, PANEL, 3 * BLOCK);
    // Becomes the largest integer that all of a block may be, and is worth 1.
    let largest = B::INPUT_LEVELS.clamp(1, LARGEST_SUM / BLOCK as i32) as f32;
    for (weight, input) in [(1.0, largest), (-1.0, largest), (1.0, -largest), (-1.0, -largest)] {
        let (matrix, x) = (packed(n, k, &vec![weight; n * k]), vec![input; m * k]);
        let mut y = vec![0.0; m * n];
        matrix.matmul(kernel, m, &x, None, &mut y);
        let expected = weight * input * k as f32;
        // 1 is close to 127 times a scale, and 8 times one.
        assert!(y.iter().all(|y| (y / expected - 1.0).abs() < 1e-3), "{name}: {y:?} for {expected}");
        assert!(y.iter().all(|other| other.to_bits() == y[0].to_bits()), "{name}: {y:?}");
    }
}

pub(in crate::kernels) fn inputs_that_are_not_numbers_show<B: Block>(
    name: &str,
    kernel: &dyn MatrixKernel<B>,
) {
    let (n, k) = (20, 70);
    let mut random = Random::new(18);
    let matrix = packed(n, k, &random.vec(n * k));
    for bad in [f32::NAN, f32::INFINITY] {
        for m in [1, 3, WHOLE_TILES] {
            let mut x = random.vec(m * k);
            x[40] = bad;
            let mut y = vec![0.0; m * n];
            matrix.matmul(kernel, m, &x, None, &mut y);
            assert!(y[..n].iter().all(|y| !y.is_finite()), "{name}: {bad} gives {y:?}");
            assert!(y[n..].iter().all(|y| y.is_finite()), "{name}: {bad} reaches other rows: {y:?}");
        }
    }
}
