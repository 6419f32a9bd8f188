//! Matrices on the host, where decompositions run: in `f64`, one matrix a thread.

use std::ops::Range;

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lens_tensor::{kept, kernels};
use faer::{
    Accum, Mat, MatRef, Par,
    linalg::{
        matmul::triangular::{self, BlockStructure},
        solvers::Qr,
    },
};
use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use crate::LinalgError;

/// A batch of matrices `[n, rows, cols]` to be read on the host.
pub(crate) struct Host {
    held: Held,
    pub(crate) n: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// Where they are.
enum Held {
    /// Read at once, as a GPU gives them fastest.
    Whole(TensorData),
    /// In the host's memory: each is read where it is worked on, so that no copy of all is made.
    Each(Tensor<3>),
}

/// The values of a tensor in `f32` or `f64`.
fn read(tensor: Tensor<3>, name: impl Fn() -> String) -> Result<TensorData, LinalgError> {
    let data = tensor
        .try_into_data()
        .map_err(|error| LinalgError::Device { matrix: name(), reason: format!("{error:?}") })?;
    let wide = matches!(data.dtype(), DType::F32 | DType::F64);
    Ok(if wide { data } else { data.convert::<f32>() })
}

/// Some values in `f64`.
fn widened(data: &TensorData, range: Range<usize>) -> Vec<f64> {
    if data.dtype() == DType::F64 {
        return data.as_slice::<f64>().expect("the dtype is f64")[range].to_vec();
    }
    let values = &data.as_slice::<f32>().expect("read as f32")[range];
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Whether a tensor is in the host's memory.
pub(crate) fn is_on_host(tensor: &Tensor<3>) -> bool {
    kernels::available(&tensor.device(), DType::F32)
}

impl Host {
    /// Reads a batch; `name` is for the error.
    pub(crate) fn read(tensor: Tensor<3>, name: &str) -> Result<Self, LinalgError> {
        let [n, rows, cols] = tensor.dims();
        let tensor = tensor.without_autodiff();
        let held = if is_on_host(&tensor) {
            Held::Each(tensor)
        } else {
            Held::Whole(kept(read(tensor, || name.to_owned())?))
        };
        Ok(Self { held, n, rows, cols })
    }

    /// Matrix `i`, in `f64`; `name` is for the error.
    pub(crate) fn mat(&self, i: usize, name: impl Fn() -> String) -> Result<Mat<f64>, LinalgError> {
        Ok(by_columns(&self.values(i, 0..self.rows, name)?, self.rows, self.cols))
    }

    /// Some rows of matrix `i`, row by row.
    pub(crate) fn values(
        &self,
        i: usize,
        rows: Range<usize>,
        name: impl Fn() -> String,
    ) -> Result<Vec<f64>, LinalgError> {
        let len = rows.len() * self.cols;
        let values = match &self.held {
            _ if len == 0 => Vec::new(),
            Held::Whole(data) => {
                let start = (i * self.rows + rows.start) * self.cols;
                widened(data, start..start + len)
            }
            Held::Each(tensor) => {
                let part = tensor.clone().narrow(0, i, 1).narrow(1, rows.start, rows.len());
                widened(&read(part, &name)?, 0..len)
            }
        };
        // No value is finite once multiplied by 0 but those that were.
        let finite = values.iter().map(|value| value * 0.0).sum::<f64>() == 0.0;
        if finite { Ok(values) } else { Err(LinalgError::NotFinite { matrix: name() }) }
    }
}

/// A row-major slice as a matrix, whose columns are contiguous.
fn by_columns(values: &[f64], rows: usize, cols: usize) -> Mat<f64> {
    /// Rows that are read beside each other: a cache line of each column is written at once.
    const ROWS: usize = 8;
    let mut mat = Mat::zeros(rows, cols);
    for first in (0..rows).step_by(ROWS) {
        let last = (first + ROWS).min(rows);
        for j in 0..cols {
            for i in first..last {
                mat[(i, j)] = values[i * cols + j];
            }
        }
    }
    mat
}

/// `f` of every index below `n`, on all threads.
pub(crate) fn par<T: Send>(
    n: usize,
    f: impl Fn(usize) -> Result<T, LinalgError> + Send + Sync,
) -> Result<Vec<T>, LinalgError> {
    let each = |i| {
        let result = f(i);
        settle();
        result
    };
    (0..n).into_par_iter().map(each).collect()
}

/// Ends the use of wide vector registers.
///
/// faer's products return with the upper halves of those registers in use; until another function
/// that uses them returns, code for narrow ones, which is all that is compiled for any processor,
/// takes up to four times as long (seen on Zen 5).
pub(crate) fn settle() {
    std::hint::black_box(Arch::new().dispatch(Wide));
}

/// A few products in wide registers.
struct Wide;

impl NullaryFnOnce for Wide {
    type Output = f64;

    #[expect(
        clippy::inline_always,
        reason = "it takes the instruction set of the function that it is inlined into"
    )]
    #[inline(always)]
    fn call(self) -> f64 {
        let values = std::hint::black_box([1.0_f64; 8]);
        values.iter().map(|x| x * x).sum()
    }
}

/// The triangular factor of a QR decomposition; a matrix that is not taller than wide is its own.
///
/// `rᵀ r = mᵀ m` either way, which is what its users rely on.
pub(crate) fn r_factor(m: Mat<f64>) -> Mat<f64> {
    if m.nrows() <= m.ncols() {
        return m;
    }
    let qr = Qr::new(m.as_ref());
    settle();
    qr.thin_R().to_owned()
}

/// `m = q r` with orthonormal columns in `q`.
pub(crate) fn qr(m: Mat<f64>) -> (Mat<f64>, Mat<f64>) {
    if m.nrows() <= m.ncols() {
        return (Mat::identity(m.nrows(), m.nrows()), m);
    }
    let qr = Qr::new(m.as_ref());
    (qr.compute_thin_Q(), qr.thin_R().to_owned())
}

/// [`r_factor`] of a tall matrix, in chunks of rows whose triangles are then stacked.
pub(crate) fn tall_r_factor(m: Tensor<2>, name: &str) -> Result<Mat<f64>, LinalgError> {
    let host = Host::read(m.unsqueeze_dim::<3>(0), name)?;
    let cols = host.cols;
    let parts = chunks(&host, 4096, name, |values, rows| r_factor(by_columns(&values, rows, cols)))?;
    let rows = parts.iter().map(Mat::nrows).sum();
    let mut stacked = Mat::zeros(rows, cols);
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
    let cols = host.cols;
    let size = host.rows.div_ceil(16).clamp(512, 4096);
    let of = |values: Vec<f64>, rows| gram(MatRef::from_row_major_slice(&values, rows, cols));
    let parts = chunks(&host, size, name, of)?;
    Ok(parts.into_iter().fold(Mat::zeros(cols, cols), |sum, part| sum + part))
}

/// `m x` of a tall matrix.
pub(crate) fn tall_product(m: Tensor<2>, x: &Mat<f64>, name: &str) -> Result<Mat<f64>, LinalgError> {
    let host = Host::read(m.unsqueeze_dim::<3>(0), name)?;
    let (rows, cols) = (host.rows, host.cols);
    let of = |values: Vec<f64>, rows| MatRef::from_row_major_slice(&values, rows, cols) * x;
    let parts = chunks(&host, 256, name, of)?;
    let mut product = Mat::zeros(rows, x.ncols());
    let mut at = 0;
    for part in parts {
        product.as_mut().subrows_mut(at, part.nrows()).copy_from(&part);
        at += part.nrows();
    }
    Ok(product)
}

/// `f` of each `size` rows of a tall matrix, row by row, on all threads.
fn chunks(
    host: &Host,
    size: usize,
    name: &str,
    f: impl Fn(Vec<f64>, usize) -> Mat<f64> + Send + Sync,
) -> Result<Vec<Mat<f64>>, LinalgError> {
    par(host.rows.div_ceil(size), |chunk| {
        let rows = chunk * size..((chunk + 1) * size).min(host.rows);
        let len = rows.len();
        host.values(0, rows, || name.to_owned()).map(|values| f(values, len))
    })
}

/// `mᵀ m`.
pub(crate) fn gram(m: MatRef<'_, f64>) -> Mat<f64> {
    let n = m.ncols();
    let mut gram = Mat::zeros(n, n);
    // Half of it, then the other half from that.
    triangular::matmul(
        gram.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        m.transpose(),
        BlockStructure::Rectangular,
        m,
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
    for j in 0..n {
        (0..j).for_each(|i| gram[(i, j)] = gram[(j, i)]);
    }
    gram
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
