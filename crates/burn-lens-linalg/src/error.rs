//! Why something could not be computed.

use burn_lens_tensor::SliceError;

/// Why something could not be computed; the message names the matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinalgError {
    /// Two matrices that do not meet in a product or sum.
    #[error("{what}: {left:?} and {right:?} do not fit: {expected}")]
    Shape {
        /// Which operation.
        what: &'static str,
        /// The shape on the left.
        left: Vec<usize>,
        /// The shape on the right.
        right: Vec<usize>,
        /// What was expected, in axis words.
        expected: &'static str,
    },
    /// Something that only square matrices have.
    #[error("{matrix} is {rows} × {cols}, but {what} need a square matrix")]
    NotSquare {
        /// Which matrix.
        matrix: String,
        /// What was asked for, in the plural.
        what: &'static str,
        /// Its rows.
        rows: usize,
        /// Its columns.
        cols: usize,
    },
    /// It holds NaN or an infinity.
    #[error("{matrix} holds NaN or an infinity")]
    NotFinite {
        /// Which matrix.
        matrix: String,
    },
    /// The iteration did not converge.
    #[error("the iteration for {what} of {matrix} did not converge")]
    NoConvergence {
        /// Which matrix.
        matrix: String,
        /// What was being computed.
        what: &'static str,
    },
    /// The device failed.
    #[error("{matrix} could not be read from its device: {reason}")]
    Device {
        /// Which matrix.
        matrix: String,
        /// What the device said.
        reason: String,
    },
    /// More indices than axes.
    #[error("{found} indices for {matrix}, which has {axes} axes")]
    TooManyIndices {
        /// Which matrix.
        matrix: String,
        /// How many axes it has.
        axes: usize,
        /// How many indices were given.
        found: usize,
    },
    /// Indices that cannot stand together.
    #[error("indices of {matrix}: {reason}")]
    Indices {
        /// Which matrix.
        matrix: String,
        /// What is wrong with them.
        reason: String,
    },
    /// An index that does not fit its axis.
    #[error("axis {axis} of {matrix}: {source}")]
    Index {
        /// Which matrix.
        matrix: String,
        /// Which axis.
        axis: usize,
        /// What is wrong with the index.
        source: SliceError,
    },
    /// More axes than a tensor can have.
    #[error("{matrix} has shape {shape:?}, but tensors here have {expected}")]
    Rank {
        /// Which matrix.
        matrix: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What was expected.
        expected: String,
    },
}
