//! The thin singular value decomposition.

use burn::tensor::{Tensor, TensorData};
use faer::{Mat, MatRef};

/// `M = U diag(s) Vᵀ`, thin.
#[derive(Clone, Debug)]
pub struct Svd {
    /// `[rows, k]` with `k = min(rows, cols)`; orthonormal columns.
    pub u: Tensor<2>,
    /// `[k]`, descending, never negative.
    pub s: Tensor<1>,
    /// `[cols, k]`; orthonormal columns, **not** transposed.
    pub v: Tensor<2>,
}

/// Why a matrix could not be decomposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SvdError {
    /// It holds NaN or an infinity.
    #[error("the matrix holds NaN or an infinity")]
    NotFinite,
    /// The iteration did not converge.
    #[error("the iteration did not converge")]
    NoConvergence,
    /// The device failed.
    #[error("the matrix could not be read from its device")]
    Device,
}

/// The thin singular value decomposition of `m`, computed in `f64` on the host.
///
/// Signs: in each column of `U`, the entry of largest magnitude is positive.
///
/// # Shapes
///
/// - `m`: `[rows, cols]`
///
/// # Errors
///
/// If `m` holds NaN or an infinity, the iteration does not converge, or the device fails.
///
/// ```
/// # use burn_lens_linalg::svd;
/// # use burn_lens_tensor::{DeviceSpec, burn::tensor::Tensor};
/// # let device = DeviceSpec::cpu().open()?;
/// let m = Tensor::<2>::from_floats([[3.0, 0.0], [0.0, -4.0], [0.0, 0.0]], &device);
/// let svd = svd(m)?;
/// assert_eq!(svd.s.into_data().to_vec::<f32>().unwrap(), [4.0, 3.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn svd(m: Tensor<2>) -> Result<Svd, SvdError> {
    let [rows, cols] = m.dims();
    let (device, dtype) = (m.device().without_autodiff(), m.dtype());
    let values: Vec<f64> = m.try_into_vec_as().map_err(|_| SvdError::Device)?;
    if values.iter().any(|value| !value.is_finite()) {
        return Err(SvdError::NotFinite);
    }
    let matrix = MatRef::from_row_major_slice(&values, rows, cols);
    let svd = matrix.thin_svd().map_err(|_| SvdError::NoConvergence)?;
    let k = rows.min(cols);
    let (mut u, mut v) = (svd.U().to_owned(), svd.V().to_owned());
    fix_signs(&mut u, &mut v);
    let s: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    let tensor = |m: &Mat<f64>, rows: usize| {
        let values: Vec<f64> = (0..rows).flat_map(|i| (0..k).map(move |j| m[(i, j)])).collect();
        Tensor::<2>::from_data(TensorData::new(values, [rows, k]), (&device, dtype))
    };
    Ok(Svd {
        u: tensor(&u, rows),
        s: Tensor::from_data(TensorData::new(s, [k]), (&device, dtype)),
        v: tensor(&v, cols),
    })
}

/// Turns each pair of columns so that the largest entry of `u`'s is positive.
fn fix_signs(u: &mut Mat<f64>, v: &mut Mat<f64>) {
    for j in 0..u.ncols() {
        let largest = (0..u.nrows())
            .map(|i| u[(i, j)])
            .fold(0.0f64, |best, x| if x.abs() > best.abs() { x } else { best });
        if largest < 0.0 {
            (0..u.nrows()).for_each(|i| u[(i, j)] = -u[(i, j)]);
            (0..v.nrows()).for_each(|i| v[(i, j)] = -v[(i, j)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tensor};
    use burn_lens_tensor::DeviceSpec;

    use super::*;

    #[track_caller]
    fn check(rows: usize, cols: usize) {
        let device = DeviceSpec::cpu().open().unwrap();
        device.seed(0);
        let m = Tensor::<2>::random([rows, cols], Distribution::Normal(0.0, 1.0), &device);
        let Svd { u, s, v } = svd(m.clone()).unwrap();
        let close = |a: Tensor<2>, b: Tensor<2>| {
            assert!((a - b).abs().max().into_scalar::<f32>() < 1e-5);
        };
        let k = rows.min(cols);
        close(u.clone().transpose().matmul(u.clone()), Tensor::eye(k, &device));
        close(v.clone().transpose().matmul(v.clone()), Tensor::eye(k, &device));
        close((u * s.clone().unsqueeze()).matmul(v.transpose()), m);
        assert!(s.into_data().try_to_vec::<f32>().unwrap().is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn decomposes_every_shape() {
        check(7, 3);
        check(3, 7);
        check(5, 5);
    }

    #[test]
    fn refuses_what_is_not_finite() {
        let device = DeviceSpec::cpu().open().unwrap();
        let m = Tensor::<2>::from_floats([[1.0, f32::NAN]], &device);
        assert_eq!(svd(m).unwrap_err(), SvdError::NotFinite);
    }
}
