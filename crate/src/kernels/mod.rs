//! The arithmetic: slices and shapes in, slices out.
//!
//! This room knows no tensors, no models and no JavaScript. It does no I/O, reads no clock (a measurement is handed one), and
//! allocates only what is bounded by a shape: packed matrices, pages of the cache, scratch.
//!
//! # Legend
//!
//! `y = b + x Wᵀ`: `W` is `[n, k]` (`n` output rows, `k` inputs), `x` is `[m, k]`, `b` is `[n]`, `y` is `[m, n]`, all row-major.
//! `m = 1` while decoding (bounded by memory bandwidth), `m` = the length of a chunk while a prompt is read
//! (bounded by multiply-adds).
//!
//! # Layout of a packed matrix
//!
//! Rows are taken [`PANEL`] = 16 at a time. A *panel* is a run of *blocks* ([`Block`]), each some columns of its 16 rows, stored so
//! that every SIMD lane keeps the sum of its own row. So a matrix-vector product reads either half of the panels from front to back, and no
//! horizontal addition is needed. Of `f32` a block is one column ([`Entry`]):
//!
//! ```text
//! W [n, k]                     panels: &[[f32; 16]], panel p is entries p*k .. (p+1)*k
//!   row 0    a0 a1 a2 …          entry 0 of panel 0:  a0 b0 c0 …   (column 0 of rows 0..16)
//!   row 1    b0 b1 b2 …          entry 1 of panel 0:  a1 b1 c1 …   (column 1 of rows 0..16)
//!   row 2    c0 c1 c2 …          …
//!   …                            entry 0 of panel 1:  column 0 of rows 16..32
//! ```
//!
//! Of 8 and 4 bits a block is 32 columns with a scale for each row: [`Q8Block`], [`Q4Block`]; and `Q8QuadBlock`, the values of the first
//! in the order that some processors multiply, which is decided before weights are packed ([`calibrate::Q8Kernel`]). The last panel is padded with rows of
//! zeros. The KV cache is made of such panels too ([`Page`]), of `f32` or of 8-bit integers in either order: keys are panels of
//! positions, values panels of head dimensions, so that attention runs on the same two loops as a linear layer.
//!
//! # The two regimes
//!
//! - *Row* (`m = 1`): the four vectors of a panel's entry times one input, four accumulators; a panel of each half of the matrix in turns, since
//!   memory gives more to two streams than to one (`stream`).
//! - *Tile* (`m > 1`): 4 or 6 rows of `x` by half a panel, or 24 by two rows of a panel (`wide_tiles`), all sums in registers.
//!
//! Every output has exactly one accumulator that runs along `k` from front to back, in both regimes and in every tile
//! size, so one kernel gives the same bits whether a prompt is read whole, in chunks, or token by token.
//!
//! # Kernels and instruction sets
//!
//! The loops over floats are written once over a *token* of an instruction set ([`Lanes`]: four `f32`): [`portable`],
//! `simd128`, `relaxed_simd`. The `portable` and `simd128` tokens use the same unfused operations in the same order,
//! and give the same bits. The relaxed token fuses multiply and add where the processor can, and agrees within a
//! tolerance.
//!
//! The loops around blocks of integers are written once too (`quantised`, and for vectors `blocks_simd128`); what an instruction set does
//! inside a block is one file for each idea. All of them give the same bits, so which one runs is a matter of speed alone.
//!
//! | precision | `portable.rs` | simd128 | relaxed SIMD |
//! |---|---|---|---|
//! | `f32` | `panels.rs` with a token | `panels.rs` with a token | `panels.rs` with a token |
//! | `q8` | `q8.rs` | `q8_simd128.rs` | `q8_relaxed.rs`, of weights as in `q8_quads.rs` |
//! | `q4` | `q4.rs` | `q4_simd128.rs` | `q4_relaxed.rs` with the sums of `q4_relaxed_i32.rs` or `q4_relaxed_i16.rs` |
//!
//! An instruction of relaxed SIMD is one of the processor's on some processors and a sequence on others, and may do more than its
//! specification promises (`relaxed_dot`). So more than one kernel of a precision may be in a build, and [`calibrate`] chooses.
//!
//! # A new kernel
//!
//! 1. A file, and its `mod` line here: its doc comment has the layout and the tile, why they have their size, and what was measured on
//!    what. File, type and `NAME` go by precision, instruction set and idea, as their neighbours do. The `mod` line has the `cfg` of the
//!    list's lines: a kernel is compiled only where its instructions exist. The table above gets its name, too.
//! 2. For blocks of integers in the vectors of wasm implement `blocks_simd128::BlockDots`: how [`BLOCK`] inputs are held, the dots of a
//!    block with one row of inputs (`row`) and with a tile of them (`half`), both added to the bits of the inputs' bases (`quantise::BASE`: so
//!    a dot must stay below 2²² in magnitude), which quads of rows `half` returns (`HALVES`), and what a panel becomes before tiles meet it
//!    (`unpacked`, whose blocks carry their scales: the panel itself for `q8`, wider bytes for `q4`). The steps are written
//!    with `unrolled!(… apart by steps …)`, as a rule two to a part in `row` and one in `half`; plain code or a loop gives the same bits,
//!    slower. The loops around, the scales and the quantising of the inputs come with it, and a `static KERNEL` of `products` is the
//!    kernel; `q8_simd128.rs` is the one to follow (its layout, and what its zero point adds, are in `q8.rs`; its `Words::pairs` and `dot`
//!    serve others), and `q8_relaxed.rs` if results tell whether the processor has the instruction
//!    (`has_instruction`), or inputs meet weights in parts (`PASSES`). A kernel whose dots leave all registers but three for sums may have
//!    `wide_tiles::WideDots` as well, the same for two rows of weights with rows of inputs in the lanes. In anything but vectors implement `quantised::Dots`, which is given panels
//!    of rows and one panel of a tile. For anything else implement [`MatrixKernel`], all of it.
//! 3. The properties that every kernel of that precision must have, bits included, as the last line of the file, under a name that no other
//!    of its precision has:
//!    `#[cfg(test)] super::contract::kernel_contract!(q8, "its name", &KERNEL);`
//! 4. A line in the precision's list at the end of this file, in order of preference, `portable` last. Of `f32` the first of the list runs; of
//!    `q8` and `q4` the one that [`calibrate`] chooses: the first whose instruction the processor is known to have, or else the first unless
//!    another's instruction is faster by far. What is listed is shipped, and timed by "Measure this device".
//! 5. If its instruction is a new one, a [`Peak`](limits::Peak) in `limits`, which a test asks for: a loop of `chains!` over the
//!    instruction and whatever each of its products cannot do without, since `calibrate` takes its pace for the kernel's.
//!
//! Its tests are `wasm-pack test --headless --chrome crate --lib -- its_file` (and `--firefox`; README, "Tests of the crate in a browser"),
//! of a simd128 kernel in both builds.
//!
//! A new precision is a type that implements [`Block`], its list of kernels, and an arm in `layers::matrix` and
//! [`crate::layers::Precision`]. Another order of the weights of a precision, for a kernel that wants it, is such a type too, with its list, a
//! name in `kernel_contract!`, lines in `measure`, and an arm in `layers::matrix` and in a choice like [`calibrate::Q8Kernel`]:
//! wherever `Q8QuadBlock` (`q8_quads.rs`) is named.

mod attention;
mod block;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod blocks_simd128;
pub mod calibrate;
mod lanes;
pub mod limits;
mod math;
pub mod measure;
mod pack;
mod page;
mod panels;
pub mod portable;
mod q4;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
mod q4_relaxed;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
mod q4_relaxed_i16;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
mod q4_relaxed_i32;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod q4_simd128;
mod q8;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
mod q8_quads;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
mod q8_relaxed;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod q8_simd128;
mod quantise;
mod quantised;
pub mod reference;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
mod relaxed_dot;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
pub mod relaxed_simd;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;
mod stream;
mod vector;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
mod wide_tiles;

#[cfg(test)]
mod contract;

use std::ops::Range;

pub use attention::AttentionShape;
pub use block::{BLOCK, Block, Tile};
pub use lanes::Lanes;
pub use pack::{Packed, PackedF32};
pub use page::{CacheFormat, Page};
pub use panels::F32Panels;
pub use q4::Q4Block;
pub use q8::Q8Block;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
pub use q8_quads::Q8QuadBlock;
pub use quantise::Scale;
pub use vector::VectorOperations;

/// Rows of a packed matrix that are stored side by side.
pub const PANEL: usize = 16;

/// Rows of inputs that fill whole tiles, whichever kernel multiplies them: tiles have 4, 6 or 24.
pub const WHOLE_TILES: usize = 24;

/// Positions that one [`Page`] of the KV cache holds.
pub const PAGE: usize = 64;

/// One entry of a panel: one column of [`PANEL`] rows.
pub type Entry = [f32; PANEL];

/// Products with a packed matrix of blocks `B`.
///
/// Every sum begins with the output's bias, which replaces what `y` holds, or without biases with what `y` holds. Both methods add up every
/// output along `k` in the same order with a single accumulator: the rows of [`matmul`](Self::matmul) equal [`matvec`](Self::matvec) to
/// the bit.
pub trait MatrixKernel<B>: Sync {
    /// The name that benchmarks and the page show.
    fn name(&self) -> &'static str;

    /// The wasm instruction that does the multiply-adds of [`matmul`](Self::matmul); its peak is one of [`limits::peaks`]. Of two that
    /// share the work, one.
    fn instruction(&self) -> &'static str;

    /// Multiply-adds of that instruction for one of the product, where inputs meet weights in parts.
    fn passes(&self) -> u32 {
        1
    }

    /// Whether the processor has that instruction, where its results tell: [`calibrate`] takes the first kernel of a list of which that is
    /// known, and none whose instruction is emulated. Where results do not tell, its pace does.
    fn has_instruction(&self) -> Option<bool> {
        None
    }

    /// `y = bias + W x`, or `y += W x`, for one vector: `x` is `[k]`, `bias` and `y` are `[n]`, `panels` is `ceil(n / PANEL)` panels of
    /// `ceil(k / B::DEPTH)` blocks.
    ///
    /// # Panics
    /// If the number of blocks or of biases is another.
    fn matvec(&self, panels: &[B], x: &[f32], bias: Option<&[f32]>, y: &mut [f32]);

    /// Columns `columns` of `y = bias + x Wᵀ`, or `y += x Wᵀ`: `x` is `[m, k]`, `y` is `[m, n]`, and `panels` and `bias` are those of the output rows
    /// `columns` of `W`, which is all of it (`0..n`) or one segment. Other columns of `y` are left alone.
    ///
    /// # Panics
    /// If a length does not fit `m`, or the number of blocks or of biases is not that of `columns.len()` rows.
    fn matmul(
        &self,
        panels: &[B],
        m: usize,
        x: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
        columns: Range<usize>,
    );
}

/// What a model does to vectors between its matrix products.
pub trait VectorKernel: Sync {
    /// The name that benchmarks and the page show.
    fn name(&self) -> &'static str;

    /// `x = exp(x - max x) / sum`, in place, over one row. An empty row stays empty; a row with NaN becomes NaN.
    fn softmax(&self, x: &mut [f32]);

    /// `ln sum exp(x)`, without overflow: `x[i] - log_sum_exp(x)` is the log-probability of entry `i`. Minus
    /// infinity for an empty row.
    fn log_sum_exp(&self, x: &[f32]) -> f32;

    /// `y = (x - mean) / sqrt(variance + eps) * weight + bias` for every row: `x` and `y` are `[m, n]`, `weight`
    /// and `bias` are `[n]`; mean and variance (over `n`, not `n - 1`) are the row's.
    ///
    /// # Panics
    /// If lengths differ, or `x` is not a whole number of rows.
    fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]);

    /// Applies `activation` to every element.
    fn activation(&self, activation: Activation, x: &mut [f32]);

    /// Causal attention of `shape.queries` queries over the paged KV cache; see [`AttentionShape`] for the layout.
    ///
    /// Row `i` of `out` (`[queries, heads * head_dim]`) is `softmax(scale * q_i Kᵀ) V` per head, over positions
    /// `0..=past + i`. Keys and values of all these positions must have been [written](Page::write). The result of a
    /// query does not depend on the queries that it is called with. `scratch` is resized as needed
    /// ([`AttentionShape::scratch_len`]) and may hold anything.
    ///
    /// # Panics
    /// If a length does not fit `shape`, or the pages hold other heads or too few positions.
    fn attention(
        &self,
        shape: &AttentionShape,
        q: &[f32],
        pages: &[Page],
        out: &mut [f32],
        scratch: &mut Vec<f32>,
    );
}

/// The non-linearity between two linear layers.
///
/// Relative errors: of `Tanh` below 3e-7; of the others below 5e-7 from -1 on, and below that 2e-6 for `Silu`, and for both
/// GELUs 5e-6 down to -6 and 2e-5 in the tail, where the result is smaller than 1e-8. Results below 1e-30 may be given
/// as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`: `gelu_new`, `gelu_pytorch_tanh`.
    GeluTanh,
    /// `x Φ(x)` with the exact distribution function Φ of the normal distribution: `gelu`.
    GeluErf,
    /// `max(x, 0)`: `relu`. Exact.
    Relu,
    /// `x / (1 + exp(-x))`: `silu`, `swish`.
    Silu,
    /// The hyperbolic tangent: `tanh`.
    Tanh,
}

// The portable kernels of a build with SIMD are the yardstick of its tests, and not shipped.
static F32_KERNELS: &[&dyn MatrixKernel<Entry>] = &[
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    &relaxed_simd::F32,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    &simd128::F32,
    #[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
    &portable::F32,
];

static Q8_KERNELS: &[&dyn MatrixKernel<Q8Block>] = &[
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    &q8_simd128::KERNEL,
    #[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
    &portable::QUANTISED,
];

#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
static Q8_QUAD_KERNELS: &[&dyn MatrixKernel<Q8QuadBlock>] = &[
    &q8_relaxed::KERNEL,
    #[cfg(test)]
    &portable::QUANTISED,
];

static Q4_KERNELS: &[&dyn MatrixKernel<Q4Block>] = &[
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    &q4_relaxed_i32::KERNEL,
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    &q4_relaxed_i16::KERNEL,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    &q4_simd128::KERNEL,
    #[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
    &portable::QUANTISED,
];

static VECTOR_KERNELS: &[&dyn VectorKernel] = &[
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    &relaxed_simd::VECTOR,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    &simd128::VECTOR,
    #[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
    &portable::VECTOR,
];

/// The vector kernels of this build, the preferred one first.
pub fn vector_kernels() -> &'static [&'static dyn VectorKernel] {
    VECTOR_KERNELS
}

/// The preferred one of the vector kernels that give the same bits in every build.
pub fn exact_vector_kernel() -> &'static dyn VectorKernel {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    return &simd128::VECTOR;
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    &portable::VECTOR
}
