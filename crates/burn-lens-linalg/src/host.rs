//! Matrices on the host, where decompositions run: in `f64`, one matrix a thread.

use burn::tensor::{DType, Device, Tensor, TensorData};
use faer::{Mat, MatRef, linalg::solvers::Qr};
use rayon::prelude::*;

use crate::LinalgError;

/// A batch of matrices `[n, rows, cols]` as it was read from its device.
pub(crate) struct Host {
    data: TensorData,
    pub(crate) n: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl Host {
    /// Reads a batch; `name` is for the error.
    pub(crate) fn read(tensor: Tensor<3>, name: &str) -> Result<Self, LinalgError> {
        let [n, rows, cols] = tensor.dims();
        let data = tensor
            .without_autodiff()
            .try_into_data()
            .map_err(|error| LinalgError::Device { matrix: name.to_owned(), reason: format!("{error:?}") })?;
        let wide = matches!(data.dtype(), DType::F32 | DType::F64);
        let data = if wide { data } else { data.convert::<f32>() };
        Ok(Self { data, n, rows, cols })
    }

    /// Matrix `i`, in `f64`; `name` is for the error.
    pub(crate) fn mat(&self, i: usize, name: impl Fn() -> String) -> Result<Mat<f64>, LinalgError> {
        self.rows_of(i, 0..self.rows, name)
    }

    /// Some rows of matrix `i`.
    pub(crate) fn rows_of(
        &self,
        i: usize,
        rows: std::ops::Range<usize>,
        name: impl Fn() -> String,
    ) -> Result<Mat<f64>, LinalgError> {
        let (len, cols) = (rows.len(), self.cols);
        let start = (i * self.rows + rows.start) * cols;
        let range = start..start + len * cols;
        let mat = match self.data.dtype() {
            DType::F64 => widened(&self.data.as_slice::<f64>().expect("the dtype is f64")[range], len, cols),
            _ => widened(&self.data.as_slice::<f32>().expect("read as f32")[range], len, cols),
        };
        mat.ok_or_else(|| LinalgError::NotFinite { matrix: name() })
    }
}

/// A row-major slice as a matrix, unless a value is not finite.
fn widened<T: Copy + Into<f64>>(values: &[T], rows: usize, cols: usize) -> Option<Mat<f64>> {
    let finite = values.iter().all(|&value| value.into().is_finite());
    finite.then(|| Mat::from_fn(rows, cols, |i, j| values[i * cols + j].into()))
}

/// `f` of every index below `n`, on all threads.
pub(crate) fn par<T: Send>(
    n: usize,
    f: impl Fn(usize) -> Result<T, LinalgError> + Send + Sync,
) -> Result<Vec<T>, LinalgError> {
    (0..n).into_par_iter().map(f).collect()
}

/// The triangular factor of a QR decomposition; a matrix that is not taller than wide is its own.
///
/// `rᵀ r = mᵀ m` either way, which is what its users rely on.
pub(crate) fn r_factor(m: Mat<f64>) -> Mat<f64> {
    if m.nrows() <= m.ncols() { m } else { Qr::new(m.as_ref()).thin_R().to_owned() }
}

/// `m = q r` with orthonormal columns in `q`.
pub(crate) fn qr(m: Mat<f64>) -> (Mat<f64>, Mat<f64>) {
    if m.nrows() <= m.ncols() {
        return (Mat::identity(m.nrows(), m.nrows()), m);
    }
    let qr = Qr::new(m.as_ref());
    (qr.compute_thin_Q(), qr.thin_R().to_owned())
}

/// Rows for which a tall matrix is worked on at once.
const CHUNK: usize = 4096;

/// [`r_factor`] of a tall matrix, in chunks of rows whose triangles are then stacked.
pub(crate) fn tall_r_factor(m: Tensor<2>, name: &str) -> Result<Mat<f64>, LinalgError> {
    let host = Host::read(m.unsqueeze_dim::<3>(0), name)?;
    let parts = chunks(&host, name, r_factor)?;
    let rows = parts.iter().map(Mat::nrows).sum();
    let mut stacked = Mat::zeros(rows, host.cols);
    let mut at = 0;
    for part in parts {
        stacked.as_mut().subrows_mut(at, part.nrows()).copy_from(&part);
        at += part.nrows();
    }
    Ok(r_factor(stacked))
}

/// `mᵀ m` of a tall matrix.
pub(crate) fn tall_gram(m: Tensor<2>, name: &str) -> Result<Mat<f64>, LinalgError> {
    let host = Host::read(m.unsqueeze_dim::<3>(0), name)?;
    let parts = chunks(&host, name, |part| gram(part.as_ref()))?;
    Ok(parts.into_iter().fold(Mat::zeros(host.cols, host.cols), |sum, part| sum + part))
}

fn chunks(
    host: &Host,
    name: &str,
    f: impl Fn(Mat<f64>) -> Mat<f64> + Send + Sync,
) -> Result<Vec<Mat<f64>>, LinalgError> {
    par(host.rows.div_ceil(CHUNK), |chunk| {
        let rows = chunk * CHUNK..((chunk + 1) * CHUNK).min(host.rows);
        host.rows_of(0, rows, || name.to_owned()).map(&f)
    })
}

/// `mᵀ m`.
pub(crate) fn gram(m: MatRef<'_, f64>) -> Mat<f64> {
    m.transpose() * m
}

/// The root of the sum of squares.
pub(crate) fn frobenius(m: MatRef<'_, f64>) -> f64 {
    m.norm_l2()
}

/// Host matrices of one shape as a batch `[n, rows, cols]`.
pub(crate) fn upload(mats: &[Mat<f64>], shape: [usize; 2], device: &Device, dtype: DType) -> Tensor<3> {
    let [rows, cols] = shape;
    let mut values = Vec::with_capacity(mats.len() * rows * cols);
    for mat in mats {
        values.extend((0..rows).flat_map(|i| (0..cols).map(move |j| mat[(i, j)])));
    }
    let data = TensorData::new(values, [mats.len(), rows, cols]);
    Tensor::from_data(data, (&device.clone().without_autodiff(), dtype))
}
