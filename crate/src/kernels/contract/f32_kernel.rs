//! What every kernel of [`F32Kernel`] must do.

use super::{Random, assert_close, bits};
use crate::kernels::panels::{K_BLOCK, LARGEST_TILE as TILE, M_BLOCK};
use crate::kernels::{Entry, F32Kernel, PANEL, PackedF32, portable, reference};

fn packed(n: usize, k: usize, w: &[f32]) -> PackedF32 {
    let mut matrix = PackedF32::new(n, k).expect("a small matrix fits");
    matrix.set_rows(0, w);
    matrix
}

fn entries(matrix: &PackedF32) -> &[Entry] {
    matrix.segments().next().map_or(&[], |(_, panels)| panels)
}

pub(in crate::kernels) fn is_listed_under_its_name(name: &str, kernel: &dyn F32Kernel) {
    assert_eq!(kernel.name(), name);
    assert_eq!(crate::kernels::f32_kernels().iter().filter(|k| k.name() == name).count(), 1);
}

pub(in crate::kernels) fn matvec_is_close_to_the_reference(name: &str, kernel: &dyn F32Kernel) {
    let mut random = Random::new(1);
    for n in [0, 1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 50] {
        for k in [0, 1, 2, 3, 5, 16, 63, 257, 768] {
            let (w, x) = (random.vec(n * k), random.vec(k));
            let mut y = vec![f32::NAN; n];
            kernel.matvec(entries(&packed(n, k, &w)), &x, &mut y);
            // Each of k additions rounds a partial sum that is at most Σ |w x|.
            let bound = |row: usize| {
                let terms = w[row * k..][..k].iter().zip(&x).map(|(w, x)| f64::from((w * x).abs()));
                (k + 1) as f64 * f64::from(f32::EPSILON) * terms.sum::<f64>()
            };
            let expected = reference::matmul(&w, n, 1, k, &x);
            assert_close(&y, &expected, bound, &format!("{name}: [{n}, {k}]"));
        }
    }
}

pub(in crate::kernels) fn matvec_picks_single_columns_exactly(name: &str, kernel: &dyn F32Kernel) {
    let (n, k) = (37, 11);
    let w = Random::new(2).vec(n * k);
    let matrix = packed(n, k, &w);
    for column in 0..k {
        let mut x = vec![0.0; k];
        x[column] = 1.0;
        let mut y = vec![f32::NAN; n];
        kernel.matvec(entries(&matrix), &x, &mut y);
        let expected: Vec<f32> = w.iter().skip(column).step_by(k).copied().collect();
        assert_eq!(y, expected, "{name}: column {column}");
    }
}

pub(in crate::kernels) fn matmul_is_matvec_to_the_bit(name: &str, kernel: &dyn F32Kernel) {
    let mut random = Random::new(3);
    let mut check = |m: usize, n: usize, k: usize| {
        let (w, x) = (random.vec(n * k), random.vec(m * k));
        let matrix = packed(n, k, &w);
        let mut y = vec![f32::NAN; m * n];
        kernel.matmul(entries(&matrix), m, &x, &mut y, 0..n);
        for row in 0..m {
            let mut expected = vec![f32::NAN; n];
            kernel.matvec(entries(&matrix), &x[row * k..][..k], &mut expected);
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
    for m in [M_BLOCK - 1, M_BLOCK, M_BLOCK + 1] {
        check(m, PANEL + 1, 9);
    }
}

pub(in crate::kernels) fn matmul_leaves_other_columns_alone(name: &str, kernel: &dyn F32Kernel) {
    let (m, n, k) = (TILE + 2, 40, 9);
    let mut random = Random::new(4);
    let (w, x) = (random.vec(21 * k), random.vec(m * k));
    let matrix = packed(21, k, &w);
    for k in [0, k] {
        let mut y = vec![7.0; m * n];
        kernel.matmul(&entries(&matrix)[..2 * k], m, &x[..m * k], &mut y, 10..31);
        for (i, y) in y.iter().enumerate() {
            assert!((10..31).contains(&(i % n)) == (*y != 7.0), "{name}: element {i} is {y}");
        }
    }
}

pub(in crate::kernels) fn segments_and_ranges_of_rows_equal_the_whole(name: &str, kernel: &dyn F32Kernel) {
    let (m, n, k) = (TILE + 1, 5 * PANEL + 3, 19);
    let mut random = Random::new(5);
    let (w, x) = (random.vec(n * k), random.vec(m * k));
    let mut whole = vec![f32::NAN; m * n];
    packed(n, k, &w).matmul(kernel, m, &x, &mut whole);
    let mut segmented = PackedF32::with_segments(n, k, 2 * k * size_of::<Entry>()).expect("fits");
    assert_eq!(segmented.segments().count(), 3);
    segmented.set_rows(0, &w);
    let mut y = vec![f32::NAN; m * n];
    segmented.matmul(kernel, m, &x, &mut y);
    assert_eq!(bits(&y), bits(&whole), "{name}: segments");
    segmented.matvec(kernel, &x[..k], &mut y[..n]);
    assert_eq!(bits(&y[..n]), bits(&whole[..n]), "{name}: segments, one row");
    for cut in [0, 1, PANEL, 30, n] {
        let (first, second) = w.split_at(cut * k);
        let mut y = vec![f32::NAN; m * n];
        kernel.matmul(entries(&packed(cut, k, first)), m, &x, &mut y, 0..cut);
        kernel.matmul(entries(&packed(n - cut, k, second)), m, &x, &mut y, cut..n);
        assert_eq!(bits(&y), bits(&whole), "{name}: cut at {cut}");
    }
}

pub(in crate::kernels) fn plain_instruction_sets_give_the_bits_of_portable(
    name: &str,
    kernel: &dyn F32Kernel,
) {
    if name == "relaxed-simd" {
        return; // fuses multiply and add: within the tolerance above, not the same bits
    }
    let (m, n, k) = (TILE + 3, 37, K_BLOCK + 5);
    let mut random = Random::new(17);
    let (matrix, x) = (packed(n, k, &random.vec(n * k)), random.vec(m * k));
    let (mut found, mut expected) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
    matrix.matmul(kernel, m, &x, &mut found);
    matrix.matmul(&portable::F32, m, &x, &mut expected);
    assert_eq!(bits(&found), bits(&expected), "{name}");
}
