//! The kernels of the CPU beside the same operations composed in `f64`.

mod attention;
mod common;
mod gradients;
mod halves;
mod rows;
