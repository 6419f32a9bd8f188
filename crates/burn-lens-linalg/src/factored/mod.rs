//! Matrices of low rank, kept as a product.

mod algebra;
mod decompose;
mod index;
pub(crate) mod side;
mod stream;

use std::{fmt, sync::Arc};

use burn::tensor::{DType, Device, Tensor};

use crate::{LinalgError, Matrices};
use side::{Naming, Side, core, product};

pub use decompose::{Eigen, FactoredSvd};
pub use index::Index;
pub use stream::{Entry, Extreme};

/// Matrices `M = A B` of low rank, `[.., ldim, rdim]`, kept as their factors `A`
/// `[.., ldim, mdim]` and `B` `[.., mdim, rdim]`.
///
/// Leading axes (layers, heads) may be of any number, and broadcast. A matrix without leading axes
/// that is multiplied onto one with them, such as an embedding, stays a factor of its own: the
/// product with each head is not formed until something asks for it.
///
/// ```
/// # use burn_lens_linalg::FactoredMatrix;
/// # use burn_lens_tensor::{DeviceSpec, burn::tensor::Tensor};
/// # let device = DeviceSpec::cpu().open()?;
/// let a = Tensor::<2>::from_floats([[3.0], [4.0]], &device);
/// let b = Tensor::<2>::from_floats([[0.0, 2.0, 0.0]], &device);
/// let m = FactoredMatrix::new(a, b)?;
/// assert_eq!(m.to_string(), "FactoredMatrix: Shape(torch.Size([2, 3])), Hidden Dim(1)");
/// assert!((m.norm()?.get(&[]) - 10.0).abs() < 1e-12); // |(3, 4)| · |(0, 2, 0)|
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `FactoredMatrix` of TransformerLens; Elhage et al., *A Mathematical Framework for
/// Transformer Circuits* (2021).
#[derive(Clone, Debug)]
pub struct FactoredMatrix {
    lead: Vec<usize>,
    /// `A`.
    left: Side,
    /// `Bᵀ`: both sides are tall, so that whatever holds for one holds for the other.
    right: Side,
    name: Option<Arc<str>>,
}

impl FactoredMatrix {
    /// `A B`.
    ///
    /// # Shapes
    ///
    /// - `a`: `[.., ldim, mdim]`
    /// - `b`: `[.., mdim, rdim]`; leading axes broadcast
    ///
    /// # Errors
    ///
    /// If the inner dimensions differ, or the leading axes do not broadcast.
    pub fn new(a: impl Into<Matrices>, b: impl Into<Matrices>) -> Result<Self, LinalgError> {
        let (a, b) = (a.into(), b.into());
        let (a_shape, b_shape) = (a.shape(), b.shape());
        if a.flat().dims()[2] != b.flat().dims()[1] {
            return Err(LinalgError::Shape {
                what: "a factored matrix",
                left: a_shape,
                right: b_shape,
                expected: "[.., ldim, mdim] and [.., mdim, rdim]",
            });
        }
        let (lead, a_map, b_map) = broadcast("a factored matrix", a.lead(), b.lead())?;
        let left = Side { outer: None, inner: a.flat(), map: a_map };
        let right = Side { outer: None, inner: b.flat().transpose(), map: b_map };
        Ok(Self { lead, left, right, name: None })
    }

    /// With a name for errors to use.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    fn naming(&self) -> Naming<'_> {
        Naming { name: self.name.as_deref(), lead: &self.lead }
    }

    /// `A`, `Bᵀ`, and what to call them.
    pub(crate) fn sides(&self) -> (&Side, &Side, Naming<'_>) {
        (&self.left, &self.right, self.naming())
    }

    fn with(&self, left: Side, right: Side) -> Self {
        Self { lead: self.lead.clone(), left, right, name: self.name.clone() }
    }

    /// The lengths of the leading axes.
    #[must_use]
    pub fn lead(&self) -> &[usize] {
        &self.lead
    }

    /// Whether there are leading axes.
    #[must_use]
    pub fn has_leading_dims(&self) -> bool {
        !self.lead.is_empty()
    }

    /// How many matrices the leading axes hold.
    fn count(&self) -> usize {
        self.left.map.len()
    }

    /// The length of each axis: `[.., ldim, rdim]`.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        [&self.lead[..], &[self.ldim(), self.rdim()]].concat()
    }

    /// The number of axes.
    #[must_use]
    pub fn ndim(&self) -> usize {
        self.lead.len() + 2
    }

    /// The rows of each matrix.
    #[must_use]
    pub fn ldim(&self) -> usize {
        self.left.rows()
    }

    /// The columns of each matrix.
    #[must_use]
    pub fn rdim(&self) -> usize {
        self.right.rows()
    }

    /// The inner dimension, which bounds the rank.
    #[must_use]
    pub fn mdim(&self) -> usize {
        self.left.mid()
    }

    /// The device that the factors live on.
    #[must_use]
    pub fn device(&self) -> Device {
        self.left.device()
    }

    /// burn's dtype.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.left.dtype()
    }

    /// `A`: `[.., ldim, mdim]`.
    #[must_use]
    pub fn a(&self) -> Matrices {
        Matrices::new(self.lead.clone(), self.left.dense())
    }

    /// `B`: `[.., mdim, rdim]`.
    #[must_use]
    pub fn b(&self) -> Matrices {
        Matrices::new(self.lead.clone(), self.right.dense().transpose())
    }

    /// `(A, B)`
    #[must_use]
    pub fn pair(&self) -> (Matrices, Matrices) {
        (self.a(), self.b())
    }

    /// The product, formed: `[.., ldim, rdim]`.
    #[must_use]
    pub fn ab(&self) -> Matrices {
        Matrices::new(self.lead.clone(), product(self.left.dense(), self.right.dense().transpose()))
    }

    /// The factors multiplied the other way round: `[.., mdim, mdim]`. It has the eigenvalues of
    /// the product that are not 0.
    ///
    /// # Errors
    ///
    /// If `ldim` is not `rdim`.
    pub fn ba(&self) -> Result<Matrices, LinalgError> {
        self.check_square("BA and eigenvalues")?;
        Ok(Matrices::new(self.lead.clone(), core(&self.right, &self.left)))
    }

    /// The transpose: `[.., rdim, ldim]`.
    #[must_use]
    pub fn t(&self) -> Self {
        self.with(self.right.clone(), self.left.clone())
    }

    /// The matrix at `index` of the leading axes, as a dense `[ldim, rdim]`.
    ///
    /// # Panics
    ///
    /// If the index lies outside.
    #[must_use]
    #[track_caller]
    pub fn dense_at(&self, index: &[usize]) -> Tensor<2> {
        let one = self.at(index);
        product(one.left.dense(), one.right.dense().transpose()).squeeze_dim(0)
    }

    /// The factored matrix at `index` of the first leading axes.
    ///
    /// # Panics
    ///
    /// If the index lies outside.
    #[must_use]
    #[track_caller]
    pub fn at(&self, index: &[usize]) -> Self {
        let fits = index.len() <= self.lead.len() && index.iter().zip(&self.lead).all(|(at, len)| at < len);
        assert!(fits, "index {index:?} is outside the leading axes {:?}", self.lead);
        let lead = self.lead[index.len()..].to_vec();
        let len: usize = lead.iter().product();
        let start = index.iter().zip(&self.lead).fold(0, |flat, (at, len)| flat * len + at) * len;
        let kept: Vec<usize> = (start..start + len).collect();
        let name = self.name.as_ref().map(|name| match index {
            [] => name.clone(),
            index => format!("{name} at {index:?}").into(),
        });
        Self { lead, left: self.left.select(&kept), right: self.right.select(&kept), name }
    }

    fn check_square(&self, what: &'static str) -> Result<(), LinalgError> {
        if self.ldim() == self.rdim() {
            return Ok(());
        }
        let (rows, cols) = (self.ldim(), self.rdim());
        Err(LinalgError::NotSquare { matrix: self.naming().whole(), what, rows, cols })
    }
}

/// As TransformerLens prints it.
impl fmt::Display for FactoredMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FactoredMatrix: Shape(torch.Size({:?})), Hidden Dim({})", self.shape(), self.mdim())
    }
}

/// The axes that two lists of leading axes come to, and for each side which of its matrices
/// stands at each index.
pub(crate) type Broadcast = (Vec<usize>, Vec<usize>, Vec<usize>);

/// Broadcasts two lists of leading axes.
pub(crate) fn broadcast(what: &'static str, a: &[usize], b: &[usize]) -> Result<Broadcast, LinalgError> {
    let rank = a.len().max(b.len());
    let padded = |axes: &[usize]| [vec![1; rank - axes.len()], axes.to_vec()].concat();
    let (wide_a, wide_b) = (padded(a), padded(b));
    let mut lead = Vec::with_capacity(rank);
    for (&x, &y) in wide_a.iter().zip(&wide_b) {
        if x != y && x != 1 && y != 1 {
            return Err(LinalgError::Shape {
                what,
                left: a.to_vec(),
                right: b.to_vec(),
                expected: "leading axes of equal length, or of length 1",
            });
        }
        lead.push(if x == 1 { y } else { x });
    }
    let map = |axes: &[usize]| {
        let count: usize = lead.iter().product();
        (0..count)
            .map(|flat| {
                let (mut rest, mut at, mut stride) = (flat, 0, 1);
                for (&len, &axis) in lead.iter().zip(axes).rev() {
                    at += if axis == 1 { 0 } else { rest % len * stride };
                    rest /= len;
                    stride *= axis;
                }
                at
            })
            .collect::<Vec<usize>>()
    };
    let maps = (map(&wide_a), map(&wide_b));
    Ok((lead, maps.0, maps.1))
}
