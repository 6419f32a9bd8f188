//! Products with a weight matrix.
//!
//! Products of several rows are those of `gemm`, into memory that nobody cleared before, with the
//! bias already there, or of tiles; those of one row or a few are in `few_rows`. Sums do not depend on the
//! number of threads.

use burn::tensor::bf16;

use super::{
    few_rows::{self, few_rows},
    half::Value,
    raw::{self, Matrix},
    tiled::{self, Terms},
    tiles::Registers,
};
use crate::kernels::{Products, SimdPath};

/// A matrix of a product, as it lies in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand<'a, E = f32> {
    /// `[rows, columns]`
    Rows(&'a [E]),
    /// `[columns, rows]`: the transpose of what is multiplied, as a tied unembedding is.
    Columns(&'a [E]),
}

impl<'a> Operand<'a> {
    pub(super) fn matrix(self, rows: usize, columns: usize) -> Matrix<'a> {
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
pub(super) fn linear<E: Value>(
    x: Operand<'_>,
    w: Operand<'_, E>,
    b: Option<&[f32]>,
    [rows, inner, columns]: [usize; 3],
) -> Vec<f32> {
    if let Operand::Rows(x) = x
        && !x.is_empty()
        && columns > 0
        && rows <= few_rows::most(&w)
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

/// `x w + b` of `f32`, by tiles where somebody chose that.
pub(crate) fn linear_f32(x: Operand<'_>, w: Operand<'_>, b: Option<&[f32]>, size: [usize; 3]) -> Vec<f32> {
    let split = || (Products::active() == Products::Bf16x3).then(|| by_tiles(x, w, b, size))?;
    split().unwrap_or_else(|| linear(x, w, b, size))
}

/// `x w + b` of `bf16`, rounded once; `None` where tiles do not compute it.
pub(crate) fn linear_bf16(
    x: Operand<'_, bf16>,
    w: Operand<'_, bf16>,
    b: Option<&[f32]>,
    size: [usize; 3],
) -> Option<Vec<bf16>> {
    (SimdPath::active() == SimdPath::Amx).then(|| by_tiles(x, w, b, size))?
}

fn by_tiles<E: Terms>(
    x: Operand<'_, E>,
    w: Operand<'_, E>,
    b: Option<&[f32]>,
    size: [usize; 3],
) -> Option<Vec<E>> {
    /// Up to how many rows each weight is better read once, where it lies: reading it takes the time.
    const FEW: usize = 8;
    match x {
        Operand::Rows(x) if size[0] > FEW => Some(tiled::linear::<Registers, E>(x, w, b, size)),
        _ => None,
    }
}
