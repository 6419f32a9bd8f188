//! Composition: how much of what one circuit writes another reads.

use burn::tensor::{DType, Tensor};
use faer::Mat;
use pulp::{Arch, NullaryFnOnce};

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

    /// Some of the circuits.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[must_use]
    #[track_caller]
    pub fn narrow(&self, start: usize, len: usize) -> Self {
        Self {
            cores: self.cores.clone().narrow(0, start, len),
            norms: self.norms[start..start + len].to_vec(),
        }
    }

    /// `‖L R‖ / (‖L‖ ‖R‖)` for each of these as `L` and each of `readers` as `R`: `[writers,
    /// readers]`. 0 where a matrix is 0.
    ///
    /// # Errors
    ///
    /// If the widths differ, or the device fails.
    pub fn scores(&self, readers: &Self) -> Result<Values, LinalgError> {
        /// The entries of a block of products: 32 MiB of `f32`.
        const BLOCK: usize = 1 << 23;
        let ([n, k, d], [n_r, k_r, d_r]) = (self.cores.dims(), readers.cores.dims());
        if d != d_r {
            return Err(LinalgError::Shape {
                what: "a composition",
                left: vec![n, k, d],
                right: vec![n_r, d_r, k_r],
                expected: "circuits that write and read a stream of one width",
            });
        }
        let r = readers.cores.clone().reshape([1, n_r * k_r, d]).transpose();
        let block = (BLOCK / (k * n_r * k_r).max(1)).clamp(1, n.max(1));
        let mut scores = Vec::with_capacity(n * n_r);
        for start in (0..n).step_by(block) {
            let len = block.min(n - start);
            let l = self.cores.clone().narrow(0, start, len).reshape([1, len * k, d]);
            let sums = squares_of_blocks(product(l, r.clone()), [len, k, n_r, k_r])?;
            for (i, sums) in sums.into_iter().enumerate() {
                let of = self.norms[start + i];
                let score = |(sum, norm): (f64, f64)| {
                    let norms = of * norm;
                    if norms > 0.0 { sum.sqrt() / norms } else { 0.0 }
                };
                scores.extend(sums.into_iter().zip(readers.norms.iter().copied()).map(score));
            }
        }
        Ok(Values::new(vec![n, n_r], scores))
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

/// The sum of squares of each block of `k × k_r` entries of a matrix of `n × n_r` blocks.
fn squares_of_blocks(all: Tensor<3>, [n, k, n_r, k_r]: [usize; 4]) -> Result<Vec<Vec<f64>>, LinalgError> {
    let name = || "a composition".to_owned();
    if !is_on_host(&all) || all.dtype() != DType::F32 {
        let squares = (all.clone() * all).reshape([n, k, n_r * k_r]);
        let sums = Host::read(squares.sum_dim(1).reshape([n, n_r, k_r]).sum_dim(2), &name())?;
        return (0..n).map(|i| sums.values(i, 0..n_r, name)).collect();
    }
    let data = all
        .try_into_data()
        .map_err(|error| LinalgError::Device { matrix: name(), reason: format!("{error:?}") })?;
    let rows = data.as_slice::<f32>().expect("the dtype is f32");
    par(n, |i| {
        let rows = &rows[i * k * n_r * k_r..][..k * n_r * k_r];
        let sums = Arch::new().dispatch(Squares { rows, n_r, k_r });
        let finite = sums.iter().all(|sum| sum.is_finite());
        if finite { Ok(sums) } else { Err(LinalgError::NotFinite { matrix: name() }) }
    })
}

/// Adds up the squares of `k_r` entries of each row at a time, for each of `n_r` blocks, in `f64`: squares of
/// what `f32` holds may be too large for it.
struct Squares<'a> {
    rows: &'a [f32],
    n_r: usize,
    k_r: usize,
}

impl NullaryFnOnce for Squares<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn call(self) -> Vec<f64> {
        const LANES: usize = 8;
        let Self { rows, n_r, k_r } = self;
        let mut sums = vec![0.0; n_r];
        for row in rows.chunks_exact((n_r * k_r).max(1)) {
            for (sum, block) in sums.iter_mut().zip(row.chunks_exact(k_r.max(1))) {
                let mut lanes = [0.0_f64; LANES];
                let (chunks, rest) = block.as_chunks::<LANES>();
                for chunk in chunks {
                    for lane in 0..LANES {
                        let x = f64::from(chunk[lane]);
                        lanes[lane] = x.mul_add(x, lanes[lane]);
                    }
                }
                let rest = rest.iter().map(|&x| f64::from(x) * f64::from(x));
                *sum += lanes.iter().copied().chain(rest).sum::<f64>();
            }
        }
        sums
    }
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
