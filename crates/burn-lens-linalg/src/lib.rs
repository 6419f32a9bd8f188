//! Circuit linear algebra: matrices of low rank, decompositions and what compares circuits.
//!
//! - [`FactoredMatrix`]: a product of two small factors with any leading axes, whose singular
//!   values, eigenvalues, norms and largest entries are found without forming it
//! - [`svd`], [`svd_leading`]: the decomposition of a dense matrix
//! - [`composition_scores`]: how much of what one circuit writes another reads
//! - [`principal_angles`] and [`subspace_overlap`]: how far two spaces are the same
//! - [`baseline`]: what random matrices would give
//! - [`regression`]: linear models on the host
//!
//! Products run on the tensors' device. Decompositions run through faer on the host in `f64`
//! whatever the matrices' dtype is, leading indices in parallel, and give vectors back on the device
//! and in the dtype of the input. Signs are fixed, so results are the same on every run and device.

pub mod baseline;
mod complex;
mod composition;
mod eigenvalues;
mod error;
mod factored;
mod host;
mod leading;
mod matrices;
pub mod regression;
mod subspace;
mod svd;
mod values;

pub use complex::Complex;
pub use composition::{CompositionCores, composition_scores};
pub use error::LinalgError;
pub use factored::{Eigen, Entry, Extreme, FactoredMatrix, FactoredSvd, Index};
pub use matrices::Matrices;
pub use subspace::{orthonormal_basis, principal_angles, subspace_overlap};
pub use svd::{Svd, svd, svd_leading};
pub use values::Values;
