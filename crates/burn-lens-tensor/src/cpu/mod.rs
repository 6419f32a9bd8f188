//! Kernels of the CPU over plain `f32` slices: what transformers spend their time in beside
//! matrix products.
//!
//! A kernel is a scalar loop without branches that the compiler vectorizes; [`path`] chooses at
//! run time for which instructions. No sum depends on the instructions or on the number of
//! threads, so neither does any bit of a result; but for products of tiles. Unsafe code is in `raw`, in
//! `room` and, for tiles, in `tiles` and `tiled`.

#![expect(
    clippy::inline_always,
    reason = "a loop takes the instruction set of the function that it is inlined into"
)]

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod few_rows;
pub(crate) mod half;
pub(crate) mod loss;
mod math;
pub(crate) mod norm;
pub(crate) mod path;
pub(crate) mod placed;
pub(crate) mod product;
mod raw;
mod room;
pub(crate) mod rotary;
pub(crate) mod rounded;
pub(crate) mod rows;
pub(crate) mod softmax;
mod tiled;
mod tiles;
pub(crate) mod top;

/// Whether products can be computed by tile registers.
pub(crate) fn has_tiles() -> bool {
    tiles::Registers::available()
}
