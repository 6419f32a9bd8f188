//! Dense matrices by plain loops, and random factors: the reference of these tests.

use burn_lens_linalg::{FactoredMatrix, Matrices};
use burn_lens_tensor::{
    DeviceSpec,
    burn::tensor::{DType, Device, Tensor, TensorData},
};
use proptest::prelude::*;
use std::ops::Range;

/// A row-major matrix.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dense {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: Vec<f64>,
}

impl Dense {
    pub(crate) fn at(&self, i: usize, j: usize) -> f64 {
        self.data[i * self.cols + j]
    }

    pub(crate) fn from_fn(rows: usize, cols: usize, f: impl Fn(usize, usize) -> f64) -> Self {
        let data = (0..rows * cols).map(|at| f(at / cols, at % cols)).collect();
        Self { rows, cols, data }
    }

    pub(crate) fn times(&self, other: &Self) -> Self {
        assert_eq!(self.cols, other.rows);
        Self::from_fn(self.rows, other.cols, |i, j| {
            (0..self.cols).map(|k| self.at(i, k) * other.at(k, j)).sum()
        })
    }

    pub(crate) fn t(&self) -> Self {
        Self::from_fn(self.cols, self.rows, |i, j| self.at(j, i))
    }

    pub(crate) fn norm(&self) -> f64 {
        self.data.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    pub(crate) fn trace(&self) -> f64 {
        (0..self.rows).map(|i| self.at(i, i)).sum()
    }
}

/// Each matrix of a batch.
pub(crate) fn dense(m: &Matrices) -> Vec<Dense> {
    let flat = m.flat();
    let [n, rows, cols] = flat.dims();
    let data: Vec<f64> = flat.into_data().iter::<f64>().collect();
    let matrix = |i: usize| Dense { rows, cols, data: data[i * rows * cols..(i + 1) * rows * cols].to_vec() };
    (0..n).map(matrix).collect()
}

/// What the tests start from: leading axes, and `[ldim, mdim, rdim]`.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) lead: Vec<usize>,
    pub(crate) dims: [usize; 3],
    pub(crate) seed: u64,
}

impl Case {
    pub(crate) fn matrices(&self, what: u64, rows: usize, cols: usize) -> Matrices {
        let n = self.lead.iter().product();
        Matrices::new(self.lead.clone(), random(self.seed.wrapping_add(what), [n, rows, cols]))
    }

    pub(crate) fn factored(&self) -> FactoredMatrix {
        let [l, m, r] = self.dims;
        FactoredMatrix::new(self.matrices(1, l, m), self.matrices(2, m, r)).unwrap()
    }

    /// The dense product by plain loops.
    pub(crate) fn product(&self) -> Vec<Dense> {
        let [l, m, r] = self.dims;
        let (a, b) = (dense(&self.matrices(1, l, m)), dense(&self.matrices(2, m, r)));
        a.iter().zip(&b).map(|(a, b)| a.times(b)).collect()
    }
}

/// Shapes with the inner dimension below, at and above the sides, zero and one, and no, one or two
/// leading axes.
pub(crate) fn cases() -> impl Strategy<Value = Case> {
    shaped(1..9)
}

/// As [`cases`], but square.
pub(crate) fn square_cases() -> impl Strategy<Value = Case> {
    shaped(1..9).prop_map(|case| Case { dims: [case.dims[0], case.dims[1], case.dims[0]], ..case })
}

fn shaped(sides: Range<usize>) -> impl Strategy<Value = Case> {
    let lead = prop::collection::vec(1..4usize, 0..3);
    (lead, sides.clone(), 0..10usize, sides, any::<u64>()).prop_map(|(lead, l, m, r, seed)| Case {
        lead,
        dims: [l, m, r],
        seed,
    })
}

pub(crate) fn device() -> Device {
    DeviceSpec::cpu().open().unwrap()
}

/// Normal numbers in `f64` from a seed.
pub(crate) fn random(seed: u64, shape: [usize; 3]) -> Tensor<3> {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut uniform = || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut normal = || (-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    let data: Vec<f64> = (0..shape.iter().product()).map(|_| normal()).collect();
    Tensor::from_data(TensorData::new(data, shape), (&device(), DType::F64))
}

/// `f64` rounding through a handful of products of small matrices.
pub(crate) const TOLERANCE: f64 = 1e-10;

#[track_caller]
pub(crate) fn close(a: f64, b: f64, scale: f64) {
    assert!((a - b).abs() <= TOLERANCE * scale.max(1e-300), "{a} and {b} differ, at the scale {scale}");
}

#[track_caller]
pub(crate) fn same(found: &[Dense], expected: &[Dense]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((found.rows, found.cols), (expected.rows, expected.cols));
        let scale = expected.norm().max(1.0);
        found.data.iter().zip(&expected.data).for_each(|(&a, &b)| close(a, b, scale));
    }
}
