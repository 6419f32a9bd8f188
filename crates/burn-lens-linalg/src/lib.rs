//! Decompositions of weight matrices.
//!
//! They run through faer on the host in `f64` whatever the matrices' dtype is, and give their
//! result back on the device and in the dtype of the input. Signs are fixed, so results are
//! the same on every run and device.

mod svd;

pub use svd::{Svd, SvdError, svd};
