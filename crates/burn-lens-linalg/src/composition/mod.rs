//! Composition: how much of what one circuit writes another reads.

mod blocks;
mod grams;

use burn::tensor::{DType, Tensor};
use faer::Mat;

use crate::{
    FactoredMatrix, LinalgError, Values,
    factored::side::{Naming, Side, product},
    host::{Host, is_on_host, par, upload},
};

/// Of each of some circuits, a small matrix `[k, d]` that stands for it in compositions.
///
/// Of a circuit `L = A B` whose output is read, `Rₐ B` with `AᵀA = RₐᵀRₐ`: it has the norms of `L` and
/// of `L X` for every `X`. Of a circuit that reads, the same of its transpose. So
/// `‖L R‖ = ‖core_l core_rᵀ‖`, and all pairs are one matrix product.
#[derive(Clone, Debug)]
pub struct CompositionCores {
    /// `[n, k, d]`
    cores: Tensor<3>,
    norms: Vec<f64>,
}

impl CompositionCores {
    /// The cores of circuits whose output is read.
    ///
    /// # Errors
    ///
    /// If a factor holds NaN or an infinity, or the device fails.
    pub fn of_writers(circuits: &FactoredMatrix) -> Result<Self, LinalgError> {
        let (left, right, naming) = circuits.sides();
        let distinct = match triangles(left, &naming)? {
            Some(triangles) => triangles,
            None => left.r_factors(&naming)?,
        };
        let rs: Vec<Mat<f64>> = left.map.iter().map(|&j| distinct[j].clone()).collect();
        let k = left.rows().min(left.mid());
        let rs = upload(&rs, [k, left.mid()], &circuits.device(), circuits.dtype());
        let cores = product(rs, right.dense().transpose());
        let norms = norms(cores.clone(), &naming.whole())?;
        Ok(Self { cores, norms })
    }

    /// The cores of circuits that read.
    ///
    /// # Errors
    ///
    /// If a factor holds NaN or an infinity, or the device fails.
    pub fn of_readers(circuits: &FactoredMatrix) -> Result<Self, LinalgError> {
        Self::of_writers(&circuits.t())
    }

    /// How many circuits there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.norms.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.norms.is_empty()
    }

    /// `‖L R‖ / (‖L‖ ‖R‖)` for each of these as `L` and each of `readers` as `R`: `[writers,
    /// readers]`. 0 where a matrix is 0.
    ///
    /// # Errors
    ///
    /// If the widths differ, or the device fails.
    pub fn scores(&self, readers: &Self) -> Result<Values, LinalgError> {
        self.scores_from(readers, |_| 0)
    }

    /// The same with the readers from `first(writer)` on alone, and 0 for those before.
    ///
    /// # Errors
    ///
    /// As [`CompositionCores::scores`].
    pub fn scores_from(
        &self,
        readers: &Self,
        first: impl Fn(usize) -> usize + Sync,
    ) -> Result<Values, LinalgError> {
        let ([n, k, d], [n_r, k_r, d_r]) = (self.cores.dims(), readers.cores.dims());
        if d != d_r {
            return Err(LinalgError::Shape {
                what: "a composition",
                left: vec![n, k, d],
                right: vec![n_r, d_r, k_r],
                expected: "circuits that write and read a stream of one width",
            });
        }
        let first = |i: usize| first(i).min(n_r);
        let pairs: usize = (0..n).map(|i| n_r - first(i)).sum();
        let products = pairs * k * k_r * d;
        let grams = (pairs + n * k + n_r * k_r) * d * d / 2;
        let plain = |x: &Tensor<3>| is_on_host(x) && x.dtype() == DType::F32;
        let mut squares = if plain(&self.cores) && plain(&readers.cores) && 2 * grams < products {
            grams::squares(self, readers, &first)?
        } else {
            blocks::squares(self, readers, &first)?
        };
        for (i, squares) in squares.chunks_exact_mut(n_r.max(1)).enumerate() {
            for (square, norm) in squares.iter_mut().zip(&readers.norms) {
                let norms = self.norms[i] * norm;
                *square = if norms > 0.0 { square.sqrt() / norms } else { 0.0 };
            }
        }
        Ok(Values::new(vec![n, n_r], squares))
    }
}

/// `Rₐ` with `AᵀA = RₐᵀRₐ`, by Cholesky's decomposition of `AᵀA`. Only the product counts here, and that is
/// as exact as `f32`, in which cores of `f32` are held. `None` where they are of `f64`, or where columns of
/// a factor depend on each other.
fn triangles(side: &Side, naming: &Naming<'_>) -> Result<Option<Vec<Mat<f64>>>, LinalgError> {
    if side.dtype() == DType::F64 || side.rows() <= side.mid() {
        return Ok(None);
    }
    let grams = side.grams(naming)?;
    let triangle =
        |gram: &Mat<f64>| gram.llt(faer::Side::Lower).ok().map(|llt| llt.L().transpose().to_owned());
    Ok(grams.iter().map(triangle).collect())
}

/// The norm of each core.
fn norms(cores: Tensor<3>, name: &str) -> Result<Vec<f64>, LinalgError> {
    let host = Host::read(cores, name)?;
    par(host.n, |i| {
        let values = host.values(i, 0..host.rows, || name.to_owned())?;
        Ok(values.iter().map(|x| x * x).sum::<f64>().sqrt())
    })
}

/// `‖L R‖ / (‖L‖ ‖R‖)` (Frobenius norms) for each `L` of `left` with each `R` of `right`: `[left's
/// leading axes, right's leading axes]`. From 0 to 1; 0 also where a matrix is 0.
///
/// Random matrices give about [`baseline::composition`](crate::baseline::composition).
///
/// # Shapes
///
/// - `left`: `[.., ldim, d]`
/// - `right`: `[.., d, rdim]`
///
/// # Errors
///
/// If the widths differ, a factor holds NaN or an infinity, or the device fails.
///
/// Source: `composition_scores` of TransformerLens; Elhage et al. (2021).
pub fn composition_scores(left: &FactoredMatrix, right: &FactoredMatrix) -> Result<Values, LinalgError> {
    if left.rdim() != right.ldim() {
        return Err(LinalgError::Shape {
            what: "a composition",
            left: left.shape(),
            right: right.shape(),
            expected: "[.., ldim, d] and [.., d, rdim]",
        });
    }
    let (writers, readers) = (CompositionCores::of_writers(left)?, CompositionCores::of_readers(right)?);
    let scores = writers.scores(&readers)?;
    Ok(Values::new([left.lead(), right.lead()].concat(), scores.into_data()))
}
