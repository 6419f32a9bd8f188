//! The thin singular value decomposition of a dense matrix.

use burn::tensor::{DType, Tensor, TensorData};
use faer::{Mat, MatRef, Side};

use crate::{
    LinalgError,
    host::{Host, tall_gram, tall_product, upload},
    leading::leading_eigen,
};

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
pub fn svd(m: Tensor<2>) -> Result<Svd, LinalgError> {
    const NAME: &str = "the matrix";
    let [rows, cols] = m.dims();
    let (device, dtype) = (m.device().without_autodiff(), m.dtype());
    let matrix = Host::read(m.unsqueeze_dim::<3>(0), NAME)?.mat(0, || NAME.to_owned())?;
    let HostSvd { u, s, v } = host_svd(matrix.as_ref(), || NAME.to_owned())?;
    let k = s.len();
    Ok(Svd {
        u: upload(&[u], [rows, k], &device, dtype).squeeze_dim(0),
        s: Tensor::from_data(TensorData::new(s, [k]), (&device, dtype)),
        v: upload(&[v], [cols, k], &device, dtype).squeeze_dim(0),
    })
}

/// The first `count` singular triples of `m`, computed in `f64` on the host: [`svd`], cut off.
///
/// Those of a matrix that is taller than wide and not of `f64` come from the eigenvectors of `MᵀM`, at
/// a third of the time. Squares lose what is smaller than about `1e-8` of the largest singular value,
/// which is less than `f32` can tell: values differ from those of [`svd`] by about that share of the
/// largest. Columns of `u` are orthonormal to about `1e-16 (s₁ / s)²`; they say nothing where `s` is below
/// `1e-8 s₁`, and are 0 where it is 0.
///
/// # Shapes
///
/// - `m`: `[rows, cols]`
/// - returns `u`: `[rows, count]`, `s`: `[count]`, `v`: `[cols, count]`
///
/// # Errors
///
/// As [`svd`].
///
/// # Panics
///
/// If there are fewer than `count`.
pub fn svd_leading(m: Tensor<2>, count: usize) -> Result<Svd, LinalgError> {
    const NAME: &str = "the matrix";
    let [rows, cols] = m.dims();
    assert!(count <= rows.min(cols), "{count} singular vectors of a matrix of {rows} × {cols}");
    if m.dtype() == DType::F64 || rows <= cols {
        let Svd { u, s, v } = svd(m)?;
        return Ok(Svd { u: u.narrow(1, 0, count), s: s.narrow(0, 0, count), v: v.narrow(1, 0, count) });
    }
    let (device, dtype) = (m.device().without_autodiff(), m.dtype());
    let gram = tall_gram(m.clone(), NAME)?;
    let v = if let Some((_, v)) = leading_eigen(gram.as_ref(), count) {
        v
    } else {
        let eigen = gram.self_adjoint_eigen(Side::Lower).map_err(|_| LinalgError::NoConvergence {
            matrix: NAME.to_owned(),
            what: "the singular vectors",
        })?;
        // From the largest.
        Mat::from_fn(cols, count, |i, j| eigen.U()[(i, cols - 1 - j)])
    };
    let u = tall_product(m, &v, NAME)?;
    let s: Vec<f64> = (0..count).map(|j| u.col(j).norm_l2()).collect();
    // Where they are no more than rounding, norms need not fall as eigenvalues do.
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| s[b].total_cmp(&s[a]));
    let v = Mat::from_fn(cols, count, |i, j| v[(i, order[j])]);
    let mut u = Mat::from_fn(rows, count, |i, j| u[(i, order[j])]);
    let s: Vec<f64> = order.iter().map(|&at| s[at]).collect();
    for (j, &s) in s.iter().enumerate().filter(|(_, s)| **s > 0.0) {
        (0..rows).for_each(|i| u[(i, j)] /= s);
    }
    let mut found = HostSvd { u, s, v };
    fix_signs(&mut found);
    let HostSvd { u, s, v } = found;
    Ok(Svd {
        u: upload(&[u], [rows, count], &device, dtype).squeeze_dim(0),
        s: Tensor::from_data(TensorData::new(s, [count]), (&device, dtype)),
        v: upload(&[v], [cols, count], &device, dtype).squeeze_dim(0),
    })
}

/// A thin decomposition on the host.
pub(crate) struct HostSvd {
    pub(crate) u: Mat<f64>,
    pub(crate) s: Vec<f64>,
    pub(crate) v: Mat<f64>,
}

/// Decomposes `m`; `name` is for the error. Signs are not fixed.
fn thin(m: MatRef<'_, f64>, name: impl Fn() -> String) -> Result<HostSvd, LinalgError> {
    let (rows, cols) = m.shape();
    if rows == 0 || cols == 0 {
        return Ok(HostSvd { u: Mat::zeros(rows, 0), s: Vec::new(), v: Mat::zeros(cols, 0) });
    }
    let svd = m
        .thin_svd()
        .map_err(|_| LinalgError::NoConvergence { matrix: name(), what: "the singular vectors" })?;
    let s = svd.S().column_vector().iter().copied().collect();
    Ok(HostSvd { u: svd.U().to_owned(), s, v: svd.V().to_owned() })
}

/// Decomposes `m`, with signs fixed; `name` is for the error.
pub(crate) fn host_svd(m: MatRef<'_, f64>, name: impl Fn() -> String) -> Result<HostSvd, LinalgError> {
    let mut svd = thin(m, name)?;
    fix_signs(&mut svd);
    Ok(svd)
}

/// Decomposes `q_l core q_rᵀ`, where both `q` have orthonormal columns, with signs fixed.
pub(crate) fn between(
    q_l: &Mat<f64>,
    core: MatRef<'_, f64>,
    q_r: &Mat<f64>,
    name: impl Fn() -> String,
) -> Result<HostSvd, LinalgError> {
    let core = thin(core, name)?;
    let mut svd = HostSvd { u: q_l * &core.u, s: core.s, v: q_r * &core.v };
    fix_signs(&mut svd);
    Ok(svd)
}

/// The singular values of `m`, descending; `name` is for the error.
pub(crate) fn host_singular_values(
    m: MatRef<'_, f64>,
    name: impl Fn() -> String,
) -> Result<Vec<f64>, LinalgError> {
    if m.nrows() == 0 || m.ncols() == 0 {
        return Ok(Vec::new());
    }
    m.singular_values()
        .map_err(|_| LinalgError::NoConvergence { matrix: name(), what: "the singular values" })
}

/// Turns each pair of columns so that the largest entry of `u`'s is positive.
fn fix_signs(svd: &mut HostSvd) {
    let HostSvd { u, v, .. } = svd;
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
    fn leading_triples_are_those_of_the_whole() {
        let device = DeviceSpec::cpu().open().unwrap();
        device.seed(1);
        let m = Tensor::<2>::random([40, 12], Distribution::Normal(0.0, 1.0), &device);
        // Of rank 11: the last singular value is 0.
        let m = Tensor::cat(vec![m.clone().narrow(1, 0, 11), m.narrow(1, 0, 1)], 1);
        let whole = svd(m.clone()).unwrap();
        for (count, m) in [(1, m.clone()), (11, m.clone()), (12, m.clone())] {
            let leading = svd_leading(m, count).unwrap();
            let sure = count.min(11);
            let close = |a: Tensor<2>, b: Tensor<2>| {
                let (a, b) = (a.narrow(1, 0, sure), b.narrow(1, 0, sure));
                assert!((a - b).abs().max().into_scalar::<f32>() < 1e-5);
            };
            close(leading.u, whole.u.clone());
            close(leading.v, whole.v.clone());
            close(leading.s.unsqueeze(), whole.s.clone().unsqueeze::<2>().narrow(1, 0, count));
        }
        let wide = svd_leading(m.transpose(), 3).unwrap();
        assert_eq!((wide.u.dims(), wide.v.dims()), ([12, 3], [40, 3]));
    }

    #[test]
    fn refuses_what_is_not_finite() {
        let device = DeviceSpec::cpu().open().unwrap();
        let m = Tensor::<2>::from_floats([[1.0, f32::NAN]], &device);
        assert_eq!(svd(m).unwrap_err(), LinalgError::NotFinite { matrix: "the matrix".to_owned() });
    }
}
