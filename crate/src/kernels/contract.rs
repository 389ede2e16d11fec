//! What every kernel must do, stamped on each implementation by `kernel_contract!`, natively and in browsers.
//!
//! Sizes are 0, 1, and one either side of a vector, a panel, a tile, a block and a page; the reference sums in `f64`.

pub(super) mod matrix_kernel;
pub(super) mod vector_kernel;

/// Stamps the contract on one kernel: its precision (`f32`, `q8`, `q8_quads`, `q4`) or `vector`, the name that must be the one that runs, and a
/// reference to it.
macro_rules! kernel_contract {
    (f32, $name:literal, $kernel:expr) => {
        $crate::kernels::contract::kernel_contract!(@matrix f32_contract, $crate::kernels::Entry, $name, $kernel,
            matvec_picks_single_columns_exactly);
    };
    (q8, $name:literal, $kernel:expr) => {
        $crate::kernels::contract::kernel_contract!(@matrix q8_contract, $crate::kernels::Q8Block, $name, $kernel,);
    };
    (q8_quads, $name:literal, $kernel:expr) => {
        $crate::kernels::contract::kernel_contract!(@matrix q8_contract, $crate::kernels::Q8QuadBlock, $name, $kernel,);
    };
    (q4, $name:literal, $kernel:expr) => {
        $crate::kernels::contract::kernel_contract!(@matrix q4_contract, $crate::kernels::Q4Block, $name, $kernel,);
    };
    (@matrix $module:ident, $block:ty, $name:literal, $kernel:expr, $($test:ident)*) => {
        $crate::kernels::contract::kernel_contract!(@tests $module, matrix_kernel, $name,
            { let kernel: &dyn $crate::kernels::MatrixKernel<$block> = $kernel; kernel },
            is_listed_under_its_name matvec_is_close_to_the_reference sums_begin_with_a_bias_or_what_is_there
            matmul_is_matvec_to_the_bit
            matmul_leaves_other_columns_alone segments_and_ranges_of_rows_equal_the_whole
            plain_instruction_sets_give_the_bits_of_portable extremes_do_not_overflow
            inputs_that_are_not_numbers_show $($test)*);
    };
    (vector, $name:literal, $kernel:expr) => {
        $crate::kernels::contract::kernel_contract!(@tests vector_contract, vector_kernel, $name, $kernel,
            is_listed_under_its_name softmax_is_close_to_the_reference softmax_takes_extremes log_sum_exp_agrees_with_softmax
            layer_norm_is_close_to_the_reference activations_are_close_to_the_reference
            activations_take_extremes attention_is_close_to_the_reference attention_is_the_same_however_queries_are_cut
            attention_over_two_ranges_of_heads_equals_the_whole attention_never_touches_later_positions
            attention_over_integers_gives_the_bits_of_portable
            plain_instruction_sets_give_the_bits_of_portable);
    };
    (@tests $module:ident, $room:ident, $name:literal, $kernel:expr, $($test:ident)*) => {
        mod $module {
            use super::*;
            $(
                #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
                #[cfg_attr(not(target_arch = "wasm32"), test)]
                fn $test() {
                    $crate::kernels::contract::$room::$test($name, $kernel);
                }
            )*
        }
    };
}
pub(super) use kernel_contract;

/// Uniform in -1 to 1, from a fixed seed (xorshift).
pub(super) struct Random(u32);

impl Random {
    pub(super) fn new(seed: u32) -> Self {
        Self(seed.wrapping_mul(2_654_435_761) | 1)
    }

    pub(super) fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(super) fn vec(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Asserts `|found - expected| <= bound`, which may depend on the index.
fn assert_close(found: &[f32], expected: &[f64], bound: impl Fn(usize) -> f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(
            error <= bound(i),
            "{what}: element {i} is {found}, expected {expected} within {:e}",
            bound(i)
        );
    }
}
