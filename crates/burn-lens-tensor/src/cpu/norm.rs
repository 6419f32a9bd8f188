//! Layer norm and root-mean-square norm.
//!
//! The whole norm and its parts are the same operations in the same order, so a run that looks
//! at a norm's scale gives the same bits as one that does not.

use pulp::NullaryFnOnce;

use super::{
    path::dispatch,
    rows::{PairKernel, ReduceKernel, RowKernel, folded, total},
};
use crate::columns::Columns;

#[inline(always)]
fn center(row: &mut [f32]) {
    let mean = total(folded!(row, 0.0_f32, |sum, x| sum + x)) / row.len() as f32;
    for x in row {
        *x -= mean;
    }
}

#[inline(always)]
fn scale(row: &[f32], eps: f32) -> f32 {
    (total(folded!(row, 0.0_f32, |sum, x| x.mul_add(x, sum))) / row.len() as f32 + eps).sqrt()
}

/// Subtracts the mean of each row.
pub(crate) struct Center;

impl RowKernel for Center {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], row: usize, _: usize) {
        for row in rows.chunks_exact_mut(row) {
            center(row);
        }
    }
}

/// `sqrt(mean(x²) + eps)` of each row.
pub(crate) struct RootMeanSquare(pub(crate) f32);

impl ReduceKernel for RootMeanSquare {
    #[inline(always)]
    fn reduce(&self, out: &mut [f32], rows: &[f32], row: usize, _: usize) {
        for (out, row) in out.iter_mut().zip(rows.chunks_exact(row)) {
            *out = scale(row, self.0);
        }
    }
}

/// The whole norm: `x / scale · w + b`, with `x` centered first in a layer norm.
pub(crate) struct Normalize<'a> {
    pub(crate) layer: bool,
    pub(crate) eps: f32,
    pub(crate) w: Option<&'a [f32]>,
    pub(crate) b: Option<&'a [f32]>,
}

impl RowKernel for Normalize<'_> {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], row: usize, _: usize) {
        for row in rows.chunks_exact_mut(row) {
            if self.layer {
                center(row);
            }
            let scale = scale(row, self.eps);
            match (self.w, self.b) {
                (None, None) => row.iter_mut().for_each(|x| *x /= scale),
                (Some(w), None) => row.iter_mut().zip(w).for_each(|(x, w)| *x = *x / scale * w),
                (None, Some(b)) => row.iter_mut().zip(b).for_each(|(x, b)| *x = *x / scale + b),
                (Some(w), Some(b)) => {
                    row.iter_mut().zip(w).zip(b).for_each(|((x, w), b)| *x = *x / scale * w + b);
                }
            }
        }
    }
}

/// `x · w + b` along each row.
pub(crate) struct Affine<'a> {
    pub(crate) w: Option<&'a [f32]>,
    pub(crate) b: Option<&'a [f32]>,
}

impl RowKernel for Affine<'_> {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], row: usize, _: usize) {
        for row in rows.chunks_exact_mut(row) {
            if let Some(w) = self.w {
                row.iter_mut().zip(w).for_each(|(x, w)| *x *= w);
            }
            if let Some(b) = self.b {
                row.iter_mut().zip(b).for_each(|(x, b)| *x += b);
            }
        }
    }
}

/// A norm whose scale is given for each row: `x · w / scale`.
pub(crate) struct Rescale<'a> {
    pub(crate) scale: &'a [f32],
    pub(crate) w: &'a [f32],
}

impl Rescale<'_> {
    /// Writes the rows of `x` as the next columns of `out`.
    pub(crate) fn append(&self, out: &Columns, x: &[f32]) {
        let width = self.w.len();
        out.append(width, |row, out| {
            let out = out.write_copy_of_slice(&x[row * width..][..width]);
            dispatch(RescaleRow { out, w: self.w, factor: self.scale[row].recip() });
            out
        });
    }
}

struct RescaleRow<'a> {
    out: &'a mut [f32],
    w: &'a [f32],
    factor: f32,
}

impl NullaryFnOnce for RescaleRow<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (out, w) in self.out.iter_mut().zip(self.w) {
            *out = *out * w * self.factor;
        }
    }
}

/// The gradient of the norm without weights, over that of its result, from its input.
///
/// With `n = x / scale`: `(g - n · mean(g n)) / scale`, centered in a layer norm.
pub(crate) struct NormalizeSlope {
    pub(crate) layer: bool,
    pub(crate) eps: f32,
}

impl PairKernel for NormalizeSlope {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], other: &[f32], row: usize) {
        for (g, x) in rows.chunks_exact_mut(row).zip(other.chunks_exact(row)) {
            let len = row as f32;
            let mean = if self.layer { total(folded!(x, 0.0_f32, |sum, x| sum + x)) / len } else { 0.0 };
            let mut squares = [0.0; super::rows::LANES];
            let mut products = squares;
            for (at, (&g, &x)) in g.iter().zip(x).enumerate() {
                let lane = at % super::rows::LANES;
                let x = x - mean;
                squares[lane] = x.mul_add(x, squares[lane]);
                products[lane] = g.mul_add(x, products[lane]);
            }
            let variance = total(squares) / len + self.eps;
            let along = total(products) / len / variance;
            let scale = variance.sqrt();
            for (g, &x) in g.iter_mut().zip(x) {
                *g = (x - mean).mul_add(-along, *g) / scale;
            }
            if self.layer {
                center(g);
            }
        }
    }
}
