//! Products with a weight matrix.
//!
//! Products of several rows are those of `gemm`, into memory that nobody cleared before, with the
//! bias already there. `gemm` multiplies one row on one thread; here threads share its columns, so
//! that the weights are read at the speed of memory. Sums do not depend on the number of threads.

use rayon::prelude::*;

use super::raw::{self, Matrix};

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
    let w = w.matrix(inner, columns);
    if rows == 1 && inner > 0 {
        return one_row(x, w, b, columns);
    }
    let x = Matrix { data: x, start: 0, strides: [inner, 1] };
    raw::new_product([rows, inner, columns], x, w, b)
}

/// How many columns a thread takes at once, at least: reading short stretches of each row of the
/// weights is slower than reading all of it on one thread.
const COLUMNS: usize = 1024;

/// One row, by products of a vector and some columns on each thread.
fn one_row(x: &[f32], w: Matrix<'_>, b: Option<&[f32]>, columns: usize) -> Vec<f32> {
    let mut out = match b {
        Some(b) => b.to_vec(),
        None => vec![0.0; columns],
    };
    let row = Matrix { data: x, start: 0, strides: [x.len(), 1] };
    let chunk = COLUMNS.max(columns.div_ceil(16));
    out.par_chunks_mut(chunk).enumerate().for_each(|(at, out)| {
        let len = out.len();
        let w = Matrix { start: at * chunk * w.strides[1], ..w };
        raw::product((out, len), [1, x.len(), len], row, w, b.is_some());
    });
    out
}
