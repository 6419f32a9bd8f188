//! Singular values, eigenvalues, norms and traces, none of which forms the product.

use burn::tensor::Tensor;
use faer::{Mat, MatRef, linalg::solvers::Eigen as FaerEigen};

use super::{
    FactoredMatrix,
    side::{Side, core},
};
use crate::{
    Complex, LinalgError, Matrices, Values,
    host::{Host, frobenius, par, qr, upload},
    svd::{HostSvd, between, host_singular_values},
};

/// `M = U diag(s) Vᵀ`, thin, of each matrix.
///
/// With `k = min(ldim, mdim, rdim)`. Signs: in each column of `U`, the entry of largest magnitude
/// is positive.
#[derive(Clone, Debug)]
pub struct FactoredSvd {
    /// `[.., ldim, k]`, orthonormal columns.
    pub u: Matrices,
    /// `[.., k]`, descending, never negative.
    pub s: Values,
    /// `[.., rdim, k]`, orthonormal columns; **not** transposed.
    pub v: Matrices,
}

impl FactoredSvd {
    /// `Vᵀ`: `[.., k, rdim]`.
    ///
    /// What TransformerLens calls `Vh` is `V`.
    #[must_use]
    pub fn vh(&self) -> Matrices {
        Matrices::new(self.v.lead().to_vec(), self.v.flat().transpose())
    }
}

/// `M x = λ x` for each matrix.
#[derive(Clone, Debug)]
pub struct Eigen {
    /// `[.., k]` with `k = min(mdim, ldim)`, from the largest magnitude.
    pub values: Values<Complex>,
    /// The real parts of the eigenvectors, which are columns of length 1: `[.., ldim, k]`.
    pub re: Matrices,
    /// Their imaginary parts: `[.., ldim, k]`.
    pub im: Matrices,
}

impl FactoredMatrix {
    /// The thin singular value decomposition `M = U diag(s) Vᵀ`.
    ///
    /// With `A = Qₐ Rₐ` and `Bᵀ = Q_b R_b`, that of the small core `Rₐ R_bᵀ` gives that of `M`, in
    /// O((ldim + rdim)·mdim²). Runs in `f64` on the host, leading indices in parallel.
    ///
    /// # Errors
    ///
    /// If a factor holds NaN or an infinity, the iteration does not converge, or the device
    /// fails; the message names the matrix.
    pub fn svd(&self) -> Result<FactoredSvd, LinalgError> {
        let parts = self.decomposed(|svd| svd)?;
        let k = self.ldim().min(self.mdim()).min(self.rdim());
        let (us, vs): (Vec<_>, Vec<_>) = parts.iter().map(|svd| (svd.u.clone(), svd.v.clone())).unzip();
        let s = parts.into_iter().flat_map(|svd| svd.s).collect();
        let s = Values::new([&self.lead[..], &[k]].concat(), s);
        Ok(FactoredSvd {
            u: self.uploaded(&us, [self.ldim(), k]),
            s,
            v: self.uploaded(&vs, [self.rdim(), k]),
        })
    }

    /// `f` of the decomposition of each matrix.
    fn decomposed<T: Send>(&self, f: impl Fn(HostSvd) -> T + Send + Sync) -> Result<Vec<T>, LinalgError> {
        let name = self.naming();
        let [l, r] = [&self.left, &self.right].map(|side| HostSide::read(side, &name.whole()));
        let (l, r) = (l?, r?);
        par(self.count(), |i| {
            let (q_l, r_l) = qr(l.mat(i, || name.at(i))?);
            let (q_r, r_r) = qr(r.mat(i, || name.at(i))?);
            Ok(f(between(&q_l, (r_l * r_r.transpose()).as_ref(), &q_r, || name.at(i))?))
        })
    }

    fn uploaded(&self, mats: &[Mat<f64>], shape: [usize; 2]) -> Matrices {
        Matrices::new(self.lead.clone(), upload(mats, shape, &self.device(), self.dtype()))
    }

    /// The singular values: `[.., min(ldim, mdim, rdim)]`, descending.
    ///
    /// # Errors
    ///
    /// As [`FactoredMatrix::svd`].
    pub fn singular_values(&self) -> Result<Values, LinalgError> {
        let name = self.naming();
        let (l, r) = (self.left.r_factors(&name)?, self.right.r_factors(&name)?);
        let s = par(self.count(), |i| {
            let core = &l[self.left.map[i]] * r[self.right.map[i]].transpose();
            host_singular_values(core.as_ref(), || name.at(i))
        })?;
        let k = self.ldim().min(self.mdim()).min(self.rdim());
        Ok(Values::new([&self.lead[..], &[k]].concat(), s.concat()))
    }

    /// The Frobenius norm of each matrix: `[..]`.
    ///
    /// `‖AB‖² = tr(AᵀA · BBᵀ)`; where that cancels, as for factors that are nearly orthogonal,
    /// the norm of the core `Rₐ R_bᵀ`, which has the singular values of `AB`.
    ///
    /// # Errors
    ///
    /// If a factor holds NaN or an infinity, or the device fails.
    pub fn norm(&self) -> Result<Values, LinalgError> {
        /// Below this share of what it could be, the trace has lost more than half its digits.
        const CANCELLED: f64 = 1e-6;
        let name = self.naming();
        let (l, r) = (self.left.grams(&name)?, self.right.grams(&name)?);
        let squares: Vec<Option<f64>> = (0..self.count())
            .map(|i| {
                let (l, r) = (l[self.left.map[i]].as_ref(), r[self.right.map[i]].as_ref());
                let trace = dot(l, r);
                (trace >= CANCELLED * frobenius(l) * frobenius(r)).then_some(trace)
            })
            .collect();
        let norms = match squares.iter().copied().collect::<Option<Vec<f64>>>() {
            Some(squares) => squares.into_iter().map(f64::sqrt).collect(),
            None => self.norms_of_cores()?,
        };
        Ok(Values::new(self.lead.clone(), norms))
    }

    fn norms_of_cores(&self) -> Result<Vec<f64>, LinalgError> {
        let name = self.naming();
        let (l, r) = (self.left.r_factors(&name)?, self.right.r_factors(&name)?);
        par(self.count(), |i| {
            Ok(frobenius((&l[self.left.map[i]] * r[self.right.map[i]].transpose()).as_ref()))
        })
    }

    /// The eigenvalues, without the `ldim − mdim` that are 0 because of the rank: those of `BA`,
    /// `[.., min(mdim, ldim)]`, from the largest magnitude.
    ///
    /// What the factors share (as embedding and unembedding do in a full circuit) is multiplied
    /// once for all leading indices.
    ///
    /// # Errors
    ///
    /// If `ldim` is not `rdim`; otherwise as [`FactoredMatrix::svd`].
    pub fn eigenvalues(&self) -> Result<Values<Complex>, LinalgError> {
        let small = self.small_square()?;
        let name = self.naming();
        let values = par(self.count(), |i| {
            let values = eigenvalues(small.at(i)?.as_ref())
                .ok_or_else(|| LinalgError::NoConvergence { matrix: name.at(i), what: "the eigenvalues" })?;
            Ok(values)
        })?;
        Ok(Values::new([&self.lead[..], &[self.mdim().min(self.ldim())]].concat(), values.concat()))
    }

    /// The eigenvalues of [`FactoredMatrix::eigenvalues`] with an eigenvector each.
    ///
    /// A defective matrix has fewer directions than columns. A column that belongs to the
    /// eigenvalue 0 may be 0: `BA w = 0` says nothing of `M` where `A w = 0`.
    ///
    /// # Errors
    ///
    /// As [`FactoredMatrix::eigenvalues`].
    pub fn eigen(&self) -> Result<Eigen, LinalgError> {
        let small = self.small_square()?;
        let name = self.naming();
        let left = HostSide::read(&self.left, &name.whole())?;
        let parts = par(self.count(), |i| {
            let fail = || LinalgError::NoConvergence { matrix: name.at(i), what: "the eigenvectors" };
            let behind = (self.mdim() <= self.ldim()).then(|| left.mat(i, || name.at(i))).transpose()?;
            eigen(small.at(i)?.as_ref(), behind.as_ref()).ok_or_else(fail)
        })?;
        let k = self.mdim().min(self.ldim());
        let values = parts.iter().flat_map(|(values, _)| values.iter().copied()).collect();
        let [re, im] = [0, 1].map(|part| {
            let mats: Vec<Mat<f64>> = parts.iter().map(|(_, vectors)| vectors[part].clone()).collect();
            self.uploaded(&mats, [self.ldim(), k])
        });
        Ok(Eigen { values: Values::new([&self.lead[..], &[k]].concat(), values), re, im })
    }

    /// The trace of each matrix: `[..]`.
    ///
    /// # Errors
    ///
    /// If `ldim` is not `rdim`, a factor holds NaN or an infinity, or the device fails.
    pub fn trace(&self) -> Result<Values, LinalgError> {
        let small = self.small_square()?;
        let traces = par(self.count(), |i| {
            let m = small.at(i)?;
            Ok((0..m.nrows()).map(|j| m[(j, j)]).sum())
        })?;
        Ok(Values::new(self.lead.clone(), traces))
    }

    /// The same matrix with factors of equal norm: `A = U √s`, `B = √s Vᵀ`.
    ///
    /// # Errors
    ///
    /// As [`FactoredMatrix::svd`].
    pub fn make_even(&self) -> Result<Self, LinalgError> {
        let parts = self.decomposed(|HostSvd { mut u, s, mut v }| {
            let roots: Vec<f64> = s.iter().map(|s| s.sqrt()).collect();
            scale_columns(&mut u, &roots);
            scale_columns(&mut v, &roots);
            (u, v)
        })?;
        let (us, vs): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let k = self.ldim().min(self.mdim()).min(self.rdim());
        let [left, right] = [(&us, self.ldim()), (&vs, self.rdim())]
            .map(|(mats, rows)| Side::new(upload(mats, [rows, k], &self.device(), self.dtype())));
        Ok(self.with(left, right))
    }

    /// `diag(s) Vᵀ`: `[.., k, rdim]`. It has the norm of `M`, and does the same to vectors on its
    /// right up to a rotation.
    ///
    /// # Errors
    ///
    /// As [`FactoredMatrix::svd`].
    pub fn collapse_l(&self) -> Result<Matrices, LinalgError> {
        let mats = self.decomposed(|HostSvd { s, mut v, .. }| {
            scale_columns(&mut v, &s);
            v.transpose().to_owned()
        })?;
        let k = self.ldim().min(self.mdim()).min(self.rdim());
        Ok(self.uploaded(&mats, [k, self.rdim()]))
    }

    /// `U diag(s)`: `[.., ldim, k]`. It has the norm of `M`, and does the same to vectors on its
    /// left up to a rotation.
    ///
    /// # Errors
    ///
    /// As [`FactoredMatrix::svd`].
    pub fn collapse_r(&self) -> Result<Matrices, LinalgError> {
        let mats = self.decomposed(|HostSvd { mut u, s, .. }| {
            scale_columns(&mut u, &s);
            u
        })?;
        let k = self.ldim().min(self.mdim()).min(self.rdim());
        Ok(self.uploaded(&mats, [self.ldim(), k]))
    }

    /// `BA`, or `AB` where that is smaller: what has the eigenvalues of `M`.
    fn small_square(&self) -> Result<Small<'_>, LinalgError> {
        self.check_square("BA and eigenvalues")?;
        let name = self.naming().whole();
        if self.left.outer.is_some() || self.right.outer.is_some() {
            let formed =
                if self.mdim() <= self.ldim() { core(&self.right, &self.left) } else { self.ab().flat() };
            return Ok(Small::Formed(self, Box::new(Host::read(formed, &name)?)));
        }
        let (l, r) =
            (Host::read(self.left.inner.clone(), &name)?, Host::read(self.right.inner.clone(), &name)?);
        Ok(Small::Factors(self, Box::new([l, r])))
    }
}

/// A small square matrix for each leading index.
enum Small<'a> {
    /// Multiplied on the device.
    Formed(&'a FactoredMatrix, Box<Host>),
    /// To be multiplied in `f64`.
    Factors(&'a FactoredMatrix, Box<[Host; 2]>),
}

impl Small<'_> {
    fn at(&self, i: usize) -> Result<Mat<f64>, LinalgError> {
        match self {
            Self::Formed(m, host) => host.mat(i, || m.naming().at(i)),
            Self::Factors(m, sides) => {
                let [l, r] = &**sides;
                let name = || m.naming().at(i);
                let [l, r] = [(l, &m.left), (r, &m.right)].map(|(host, side)| {
                    host.values(side.map[i], 0..host.rows, name).map(|values| (values, host.rows, host.cols))
                });
                let (l, r) = (l?, r?);
                let [l, r] =
                    [&l, &r].map(|(values, rows, cols)| MatRef::from_row_major_slice(values, *rows, *cols));
                Ok(if m.mdim() <= m.ldim() { r.transpose() * l } else { l * r.transpose() })
            }
        }
    }
}

/// A side on the host.
struct HostSide {
    outer: Option<Mat<f64>>,
    inner: Host,
    map: Vec<usize>,
}

impl HostSide {
    fn read(side: &Side, name: &str) -> Result<Self, LinalgError> {
        let whole =
            |outer: Tensor<2>| Host::read(outer.unsqueeze_dim::<3>(0), name)?.mat(0, || name.to_owned());
        let outer = side.outer.clone().map(whole).transpose()?;
        Ok(Self { outer, inner: Host::read(side.inner.clone(), name)?, map: side.map.clone() })
    }

    fn mat(&self, i: usize, name: impl Fn() -> String) -> Result<Mat<f64>, LinalgError> {
        let inner = self.inner.mat(self.map[i], name)?;
        Ok(match &self.outer {
            Some(outer) => outer * inner,
            None => inner,
        })
    }
}

/// `Σ a b`, entry by entry.
fn dot(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> f64 {
    (0..a.ncols()).map(|j| (0..a.nrows()).map(|i| a[(i, j)] * b[(i, j)]).sum::<f64>()).sum()
}

fn scale_columns(m: &mut Mat<f64>, factors: &[f64]) {
    for (j, factor) in factors.iter().enumerate() {
        (0..m.nrows()).for_each(|i| m[(i, j)] *= factor);
    }
}

/// The sorted eigenvalues of `m`; `None` where the iteration does not converge.
fn eigenvalues(m: MatRef<'_, f64>) -> Option<Vec<Complex>> {
    /// Up to how many rows an iteration without blocks is the faster one.
    const SMALL: usize = 256;
    let small = (m.nrows() <= SMALL).then(|| crate::eigenvalues::eigenvalues(m)).flatten();
    let mut values = match small {
        Some(values) => values,
        None => m.eigenvalues().ok()?.iter().map(|value| Complex { re: value.re, im: value.im }).collect(),
    };
    Complex::sort(&mut values, |value| *value);
    Some(values)
}

/// The sorted eigenvalues of `m`, and the real and imaginary parts of `behind` times its
/// eigenvectors, at length 1.
fn eigen(m: MatRef<'_, f64>, behind: Option<&Mat<f64>>) -> Option<(Vec<Complex>, [Mat<f64>; 2])> {
    let (n, rows) = (m.nrows(), behind.map_or(m.nrows(), Mat::nrows));
    if n == 0 {
        return Some((Vec::new(), [Mat::zeros(rows, 0), Mat::zeros(rows, 0)]));
    }
    let found = FaerEigen::new_from_real(m).ok()?;
    let column = |j: usize| found.S().column_vector()[j];
    let mut order: Vec<usize> = (0..n).collect();
    Complex::sort(&mut order, |&j| Complex { re: column(j).re, im: column(j).im });
    let part = |of: fn(&faer::c64) -> f64| {
        let vectors = Mat::from_fn(n, n, |i, j| of(&found.U()[(i, order[j])]));
        behind.map_or(vectors.clone(), |behind| behind * vectors)
    };
    let (mut re, mut im) = (part(|z| z.re), part(|z| z.im));
    let inverse = |j: usize| {
        let length = (0..rows).map(|i| re[(i, j)].powi(2) + im[(i, j)].powi(2)).sum::<f64>().sqrt();
        if length > 0.0 { 1.0 / length } else { 0.0 }
    };
    let factors: Vec<f64> = (0..n).map(inverse).collect();
    scale_columns(&mut re, &factors);
    scale_columns(&mut im, &factors);
    let values = order.iter().map(|&j| Complex { re: column(j).re, im: column(j).im }).collect();
    Some((values, [re, im]))
}
