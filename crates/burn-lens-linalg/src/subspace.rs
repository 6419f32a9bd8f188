//! How far two subspaces are the same.

use burn::tensor::Tensor;
use faer::Mat;

use crate::{
    LinalgError, Matrices, Values,
    host::{Host, frobenius, par, upload},
    svd::{host_singular_values, host_svd},
};

const NAME: &str = "the matrix of spanning vectors";

/// An orthonormal basis of the space that the columns of `m` span: `[rows, rank]`.
///
/// Directions whose singular value is below `max(rows, cols) · ε · s₀` count as not spanned, with the
/// rounding `ε` of the matrix's own dtype.
///
/// # Errors
///
/// If `m` holds NaN or an infinity, the iteration does not converge, or the device fails.
pub fn orthonormal_basis(m: Tensor<2>) -> Result<Tensor<2>, LinalgError> {
    let (device, dtype) = (m.device(), m.dtype());
    let basis = bases(&m.into())?.swap_remove(0);
    Ok(upload(std::slice::from_ref(&basis), [basis.nrows(), basis.ncols()], &device, dtype).squeeze_dim(0))
}

/// The principal angles between the spaces that the columns of `a` and of `b` span, in radians from
/// the smallest: `[min(rank a, rank b)]`.
///
/// `cos θ` are the singular values of `QₐᵀQ_b`. Small angles come from `sin θ`, the singular values
/// of `Q_b − QₐQₐᵀQ_b`, because a cosine near 1 has lost them (Björck and Golub, 1973).
///
/// # Shapes
///
/// - `a`: `[d, n]`
/// - `b`: `[d, m]`
///
/// # Errors
///
/// If the widths differ, a matrix holds NaN or an infinity, the iteration does not converge, or the
/// device fails.
pub fn principal_angles(a: Tensor<2>, b: Tensor<2>) -> Result<Vec<f64>, LinalgError> {
    let (a, b): (Matrices, Matrices) = (a.into(), b.into());
    check_widths(&a, &b)?;
    let (a, b) = (bases(&a)?.swap_remove(0), bases(&b)?.swap_remove(0));
    let (a, b) = if a.ncols() >= b.ncols() { (a, b) } else { (b, a) };
    let core = a.transpose() * &b;
    let name = || "the product of two bases".to_owned();
    let cosines = host_singular_values(core.as_ref(), name)?;
    let mut sines = host_singular_values((&b - &a * &core).as_ref(), name)?;
    sines.truncate(b.ncols());
    let angle = |(&cosine, &sine): (&f64, &f64)| {
        if cosine > std::f64::consts::FRAC_1_SQRT_2 { sine.min(1.0).asin() } else { cosine.min(1.0).acos() }
    };
    Ok(cosines.iter().zip(sines.iter().rev()).map(angle).collect())
}

/// The mean of `cos² θ` over the principal angles between the column spaces of each of `a` and each
/// of `b`: `[a's leading axes, b's leading axes]`. 1 where the smaller space lies in the larger, 0
/// where they are orthogonal.
///
/// Random spaces give [`baseline::overlap`](crate::baseline::overlap) on average.
///
/// # Shapes
///
/// - `a`: `[.., d, n]`
/// - `b`: `[.., d, m]`
///
/// # Errors
///
/// As [`principal_angles`].
pub fn subspace_overlap(a: impl Into<Matrices>, b: impl Into<Matrices>) -> Result<Values, LinalgError> {
    let (a, b) = (a.into(), b.into());
    check_widths(&a, &b)?;
    let shape = [a.lead(), b.lead()].concat();
    let (a, b) = (bases(&a)?, bases(&b)?);
    let overlaps = par(a.len() * b.len(), |pair| {
        let (a, b) = (&a[pair / b.len()], &b[pair % b.len()]);
        let least = a.ncols().min(b.ncols());
        let shared = frobenius((a.transpose() * b).as_ref()).powi(2);
        Ok(if least == 0 { 0.0 } else { shared / least as f64 })
    })?;
    Ok(Values::new(shape, overlaps))
}

fn check_widths(a: &Matrices, b: &Matrices) -> Result<(), LinalgError> {
    if a.flat().dims()[1] == b.flat().dims()[1] {
        return Ok(());
    }
    Err(LinalgError::Shape {
        what: "subspaces",
        left: a.shape(),
        right: b.shape(),
        expected: "[.., d, n] and [.., d, m]",
    })
}

/// An orthonormal basis of each column space.
fn bases(m: &Matrices) -> Result<Vec<Mat<f64>>, LinalgError> {
    let epsilon = match m.dtype() {
        burn::tensor::DType::F64 => f64::EPSILON,
        burn::tensor::DType::BF16 => 2f64.powi(-8),
        burn::tensor::DType::F16 => 2f64.powi(-10),
        _ => f64::from(f32::EPSILON),
    };
    let host = Host::read(m.flat(), NAME)?;
    par(host.n, |i| {
        let svd = host_svd(host.mat(i, || NAME.to_owned())?.as_ref(), || NAME.to_owned())?;
        let least = host.rows.max(host.cols) as f64 * epsilon * svd.s.first().copied().unwrap_or(0.0);
        let rank = svd.s.iter().filter(|&&s| s > least).count();
        Ok(svd.u.as_ref().subcols(0, rank).to_owned())
    })
}
