//! The eigenvalues of a small real matrix, without its eigenvectors.
//!
//! What is wanted of a circuit is a matrix of `d_head` rows for each head, hundreds of them. A general
//! decomposition spends most of its time on vectors and on blocking that only large matrices repay;
//! here a matrix is a few rows in the first cache, and every inner loop runs along one.
//!
//! Source: Francis's implicit double shift; Golub and Van Loan, *Matrix Computations* (4th ed., 2013),
//! §7.4 and §7.5; the shifts and tests for convergence of EISPACK's `hqr`.

#![expect(
    clippy::inline_always,
    reason = "a loop takes the instruction set of the function that it is inlined into"
)]

mod francis;
mod hessenberg;

use faer::MatRef;
use pulp::{Arch, NullaryFnOnce};

use crate::Complex;

/// The eigenvalues of `m`, in no order; `None` where the iteration does not converge.
pub(crate) fn eigenvalues(m: MatRef<'_, f64>) -> Option<Vec<Complex>> {
    let n = m.nrows();
    let mut rows = Rows { n, stride: n.next_multiple_of(LANES) + LANES, data: Vec::new() };
    rows.data.resize(n * rows.stride, 0.0);
    (0..n).for_each(|i| rows.row_mut(i).iter_mut().enumerate().for_each(|(j, x)| *x = m[(i, j)]));
    Arch::new().dispatch(Search(rows))
}

/// The search for eigenvalues, compiled for what the processor has.
struct Search(Rows);

impl NullaryFnOnce for Search {
    type Output = Option<Vec<Complex>>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        let Self(mut h) = self;
        h.balance();
        h.reduce();
        h.deflate()
    }
}

/// Numbers in a wide register.
const LANES: usize = 8;

/// A square matrix, row by row, with room for [`LANES`] numbers behind each: what is done to a row is done to as many at
/// once, from any column on, and what becomes of those behind it does not matter.
struct Rows {
    n: usize,
    stride: usize,
    data: Vec<f64>,
}

impl std::ops::Index<(usize, usize)> for Rows {
    type Output = f64;

    #[inline(always)]
    fn index(&self, (i, j): (usize, usize)) -> &f64 {
        &self.data[i * self.stride + j]
    }
}

impl std::ops::IndexMut<(usize, usize)> for Rows {
    #[inline(always)]
    fn index_mut(&mut self, (i, j): (usize, usize)) -> &mut f64 {
        &mut self.data[i * self.stride + j]
    }
}

impl Rows {
    #[inline(always)]
    fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.stride..][..self.n]
    }

    #[inline(always)]
    fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.data[i * self.stride..][..self.n]
    }

    /// The registers of row `i` from the one that holds column `from`.
    #[inline(always)]
    fn wide(&self, i: usize, from: usize) -> &[[f64; LANES]] {
        &self.data[i * self.stride..][..self.n.next_multiple_of(LANES)].as_chunks().0[from / LANES..]
    }

    #[inline(always)]
    fn wide_mut(&mut self, i: usize, from: usize) -> &mut [[f64; LANES]] {
        &mut self.data[i * self.stride..][..self.n.next_multiple_of(LANES)].as_chunks_mut().0[from / LANES..]
    }
}

/// A wide register of numbers.
#[inline(always)]
fn lanes(f: impl FnMut(usize) -> f64) -> [f64; LANES] {
    std::array::from_fn(f)
}

#[cfg(test)]
mod tests {
    use faer::Mat;

    use super::*;

    /// Numbers that look random, between -1 and 1.
    fn random(n: usize, mut state: u64) -> Mat<f64> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
        };
        Mat::from_fn(n, n, |_, _| next())
    }

    /// Each eigenvalue of one list has one of the other near it.
    #[track_caller]
    fn same(found: &[Complex], expected: &[Complex], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        let mut left = expected.to_vec();
        for z in found {
            let away = |w: &Complex| (z.re - w.re).hypot(z.im - w.im);
            let nearest = (0..left.len()).min_by(|&a, &b| away(&left[a]).total_cmp(&away(&left[b])));
            let nearest = left.swap_remove(nearest.expect("as many"));
            assert!(away(&nearest) < tolerance, "{z} is {:e} from {nearest}", away(&nearest));
        }
    }

    fn of_faer(m: &Mat<f64>) -> Vec<Complex> {
        m.eigenvalues().unwrap().iter().map(|z| Complex { re: z.re, im: z.im }).collect()
    }

    #[test]
    fn as_a_general_decomposition_finds_them() {
        for n in [0, 1, 2, 3, 4, 5, 17, 64, 130] {
            for seed in 0..4 {
                let m = random(n, seed);
                same(&eigenvalues(m.as_ref()).unwrap(), &of_faer(&m), 1e-11);
            }
        }
    }

    #[test]
    fn of_matrices_whose_eigenvalues_are_known() {
        let real = |values: &[f64]| values.iter().map(|&re| Complex { re, im: 0.0 }).collect::<Vec<_>>();
        let triangle = Mat::from_fn(6, 6, |i, j| if j >= i { (i + 2 * j) as f64 } else { 0.0 });
        same(&eigenvalues(triangle.as_ref()).unwrap(), &real(&[0.0, 3.0, 6.0, 9.0, 12.0, 15.0]), 1e-12);
        let turn = Mat::from_fn(2, 2, |i, j| [[0.0, -2.0], [2.0, 0.0]][i][j]);
        let expected = [Complex { re: 0.0, im: 2.0 }, Complex { re: 0.0, im: -2.0 }];
        same(&eigenvalues(turn.as_ref()).unwrap(), &expected, 1e-14);
        // A cyclic shift has the roots of one; no shift of the iteration tells them apart by size.
        let n = 12;
        let shift = Mat::from_fn(n, n, |i, j| f64::from(u8::from((i + 1) % n == j)));
        let roots = (0..n).map(|k| (k as f64 * std::f64::consts::TAU / n as f64).sin_cos());
        let roots: Vec<Complex> = roots.map(|(im, re)| Complex { re, im }).collect();
        same(&eigenvalues(shift.as_ref()).unwrap(), &roots, 1e-12);
        same(&eigenvalues(Mat::zeros(5, 5).as_ref()).unwrap(), &real(&[0.0; 5]), 1e-300);
    }

    #[test]
    fn rows_and_columns_of_very_different_sizes() {
        let plain = random(8, 9);
        let scale = |i: usize| 2.0_f64.powi(12 * (i as i32 - 4));
        let scaled = Mat::from_fn(8, 8, |i, j| plain[(i, j)] * scale(i) / scale(j));
        same(&eigenvalues(scaled.as_ref()).unwrap(), &of_faer(&plain), 1e-12);
    }

    #[test]
    fn what_is_not_finite_ends() {
        assert!(eigenvalues(Mat::from_fn(4, 4, |_, _| f64::NAN).as_ref()).is_none());
    }
}
