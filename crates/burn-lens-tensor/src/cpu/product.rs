//! Products with a weight matrix.
//!
//! Products of several rows are those of `gemm`, into memory that nobody cleared before, with the
//! bias already there; those of one row or a few are in `few_rows`. Sums do not depend on the number
//! of threads.

use super::{
    few_rows::{self, few_rows},
    half::Value,
    raw::{self, Matrix},
};

/// A matrix of a product, as it lies in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand<'a, E = f32> {
    /// `[rows, columns]`
    Rows(&'a [E]),
    /// `[columns, rows]`: the transpose of what is multiplied, as a tied unembedding is.
    Columns(&'a [E]),
}

impl<'a> Operand<'a> {
    fn matrix(self, rows: usize, columns: usize) -> Matrix<'a> {
        match self {
            Self::Rows(data) => Matrix { data, start: 0, strides: [columns, 1] },
            Self::Columns(data) => Matrix { data, start: 0, strides: [1, rows] },
        }
    }
}

/// `x w + b`, with weights that may be of half precision: a few rows read those where they lie, more rows from
/// a copy in `f32`.
///
/// # Shapes
///
/// - `x`: `[rows, inner]`, `w`: `[inner, columns]`, `b`: `[columns]`; returns `[rows, columns]`
pub(crate) fn linear<E: Value>(
    x: Operand<'_>,
    w: Operand<'_, E>,
    b: Option<&[f32]>,
    [rows, inner, columns]: [usize; 3],
) -> Vec<f32> {
    if let Operand::Rows(x) = x
        && !x.is_empty()
        && columns > 0
        && rows <= few_rows::MOST
    {
        return few_rows(x, w, b, [rows, columns]);
    }
    let (Operand::Rows(data) | Operand::Columns(data)) = w;
    let data = E::numbers(data);
    let w = match w {
        Operand::Rows(_) => Operand::Rows(&data),
        Operand::Columns(_) => Operand::Columns(&data),
    };
    raw::new_product([rows, inner, columns], x.matrix(rows, inner), w.matrix(inner, columns), b)
}
