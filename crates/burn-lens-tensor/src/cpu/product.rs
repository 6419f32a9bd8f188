//! Products with a weight matrix.
//!
//! Products of several rows are those of `gemm`, into memory that nobody cleared before, with the
//! bias already there; those of one row or a few are in `few_rows`. Sums do not depend on the number
//! of threads.

use super::{
    few_rows::{self, few_rows},
    raw::{self, Matrix},
};

/// How the weights of a product lie in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weights<'a> {
    /// `[inner, columns]`
    Rows(&'a [f32]),
    /// `[columns, inner]`: the transpose of what is multiplied, as a tied unembedding is.
    Columns(&'a [f32]),
}

impl<'a> Weights<'a> {
    fn matrix(self, inner: usize, columns: usize) -> Matrix<'a> {
        match self {
            Self::Rows(data) => Matrix { data, start: 0, strides: [columns, 1] },
            Self::Columns(data) => Matrix { data, start: 0, strides: [1, inner] },
        }
    }
}

/// `x w + b`.
///
/// # Shapes
///
/// - `x`: `[rows, inner]`, `w`: `[inner, columns]`, `b`: `[columns]`; returns `[rows, columns]`
pub(crate) fn linear(x: &[f32], w: Weights<'_>, b: Option<&[f32]>, [rows, columns]: [usize; 2]) -> Vec<f32> {
    let inner = x.len() / rows.max(1);
    if !x.is_empty() && columns > 0 && rows <= few_rows::MOST {
        return few_rows(x, w, b, [rows, columns]);
    }
    let w = w.matrix(inner, columns);
    let x = Matrix { data: x, start: 0, strides: [inner, 1] };
    raw::new_product([rows, inner, columns], x, w, b)
}
