//! Products, multiples, sums and differences.

use std::ops::{Mul, Neg};

use burn::tensor::Tensor;
use burn_lens_tensor::AnyTensor;

use super::{
    FactoredMatrix, broadcast,
    side::{Side, core, product},
};
use crate::{LinalgError, Matrices, matrices::reshaped};

impl FactoredMatrix {
    /// `M x`: each matrix with a dense one on the right.
    ///
    /// The inner dimension stays as small as it can: where `x` has fewer rows than that, `M` is
    /// formed and becomes the left factor.
    ///
    /// # Shapes
    ///
    /// - `x`: `[.., rdim, cols]`; leading axes broadcast
    /// - returns `[.., ldim, cols]`
    ///
    /// # Errors
    ///
    /// If the shapes do not fit.
    pub fn matmul(&self, x: impl Into<Matrices>) -> Result<Self, LinalgError> {
        let x = x.into();
        if self.rdim() != x.flat().dims()[1] {
            return Err(self.misfit(&x.shape(), false));
        }
        let (this, map) = self.broadcast_with(x.lead())?;
        let sheet = x.lead().is_empty().then(|| x.flat().squeeze_dim::<2>(0).transpose());
        let x = Side { outer: None, inner: x.flat().transpose(), map };
        let (right, left) = multiplied(&this.right, &this.left, x, sheet);
        Ok(this.with(left, right))
    }

    /// `x M`: each matrix with a dense one on the left; otherwise as [`FactoredMatrix::matmul`].
    ///
    /// # Shapes
    ///
    /// - `x`: `[.., rows, ldim]`; leading axes broadcast
    /// - returns `[.., rows, rdim]`
    ///
    /// # Errors
    ///
    /// If the shapes do not fit.
    pub fn matmul_left(&self, x: impl Into<Matrices>) -> Result<Self, LinalgError> {
        let x = x.into();
        if self.ldim() != x.flat().dims()[2] {
            return Err(self.misfit(&x.shape(), true));
        }
        let (this, map) = self.broadcast_with(x.lead())?;
        let sheet = x.lead().is_empty().then(|| x.flat().squeeze_dim::<2>(0));
        let (left, right) =
            multiplied(&this.left, &this.right, Side { outer: None, inner: x.flat(), map }, sheet);
        Ok(this.with(left, right))
    }

    /// `M N` with another factored matrix; the smaller of the two inner dimensions is kept.
    ///
    /// # Errors
    ///
    /// If the shapes do not fit.
    pub fn matmul_factored(&self, other: &Self) -> Result<Self, LinalgError> {
        if self.rdim() != other.ldim() {
            return Err(self.misfit(&other.shape(), false));
        }
        let (lead, this, that) = broadcast("a product", &self.lead, &other.lead)?;
        let (left, inner_l) = (self.left.select(&this), self.right.select(&this));
        let (inner_r, right) = (other.left.select(&that), other.right.select(&that));
        let core = core(&inner_l, &inner_r);
        let (left, right) = if self.mdim() <= other.mdim() {
            (left, right.times(core.transpose()))
        } else {
            (left.times(core), right)
        };
        Ok(Self { lead, left, right, name: None })
    }

    /// `M x` for one vector.
    ///
    /// # Shapes
    ///
    /// - `x`: `[rdim]`
    /// - returns `[.., ldim]`
    ///
    /// # Errors
    ///
    /// If the lengths differ, or there are more than four leading axes.
    pub fn matvec(&self, x: Tensor<1>) -> Result<AnyTensor, LinalgError> {
        let x = x.unsqueeze_dim::<2>(1);
        if self.rdim() != x.dims()[0] {
            return Err(self.misfit(&x.dims()[..1], false));
        }
        let x = Side { outer: None, inner: x.unsqueeze_dim::<3>(0), map: vec![0; self.count()] };
        let product = product(self.left.dense(), core(&self.right, &x));
        reshaped(product, &[&self.lead[..], &[self.ldim()]].concat(), "the product")
    }

    /// `x M` for one vector.
    ///
    /// # Shapes
    ///
    /// - `x`: `[ldim]`
    /// - returns `[.., rdim]`
    ///
    /// # Errors
    ///
    /// If the lengths differ, or there are more than four leading axes.
    pub fn matvec_left(&self, x: Tensor<1>) -> Result<AnyTensor, LinalgError> {
        if self.ldim() != x.dims()[0] {
            return Err(self.misfit(&x.dims(), true));
        }
        self.t().matvec(x)
    }

    /// `M + N`, exactly: the factors stand side by side, and inner dimensions add up.
    ///
    /// # Errors
    ///
    /// If the shapes do not fit; leading axes broadcast.
    pub fn add(&self, other: &Self) -> Result<Self, LinalgError> {
        if (self.ldim(), self.rdim()) != (other.ldim(), other.rdim()) {
            return Err(LinalgError::Shape {
                what: "a sum",
                left: self.shape(),
                right: other.shape(),
                expected: "two of [.., ldim, rdim]",
            });
        }
        let (lead, this, that) = broadcast("a sum", &self.lead, &other.lead)?;
        let beside = |a: &Side, b: &Side| {
            Side::new(Tensor::cat(vec![a.select(&this).dense(), b.select(&that).dense()], 2))
        };
        let (left, right) = (beside(&self.left, &other.left), beside(&self.right, &other.right));
        Ok(Self { lead, left, right, name: None })
    }

    /// `M − N`, exactly; see [`FactoredMatrix::add`].
    ///
    /// # Errors
    ///
    /// If the shapes do not fit; leading axes broadcast.
    pub fn sub(&self, other: &Self) -> Result<Self, LinalgError> {
        self.add(&-other)
    }

    /// This matrix with the leading axes that it has together with `lead`, and which of those of
    /// `lead` stands at each index.
    fn broadcast_with(&self, lead: &[usize]) -> Result<(Self, Vec<usize>), LinalgError> {
        let (lead, this, other) = broadcast("a product", &self.lead, lead)?;
        let (left, right) = (self.left.select(&this), self.right.select(&this));
        Ok((Self { lead, left, right, name: self.name.clone() }, other))
    }

    fn misfit(&self, other: &[usize], on_the_left: bool) -> LinalgError {
        let expected = "as many columns on the left as rows on the right";
        let (this, other) = (self.shape(), other.to_vec());
        let (left, right) = if on_the_left { (other, this) } else { (this, other) };
        LinalgError::Shape { what: "a product", left, right, expected }
    }
}

impl Mul<f64> for &FactoredMatrix {
    type Output = FactoredMatrix;

    fn mul(self, factor: f64) -> FactoredMatrix {
        self.with(self.left.scaled(factor), self.right.clone())
    }
}

impl Mul<&FactoredMatrix> for f64 {
    type Output = FactoredMatrix;

    fn mul(self, matrix: &FactoredMatrix) -> FactoredMatrix {
        matrix * self
    }
}

impl Neg for &FactoredMatrix {
    type Output = FactoredMatrix;

    fn neg(self) -> FactoredMatrix {
        self * -1.0
    }
}

/// The sides of a product with `x` `[rows, near.rows()]` before its side `near`; a `sheet` is an `x` that all
/// leading indices share. The inner dimension stays as small as it can.
fn multiplied(near: &Side, far: &Side, x: Side, sheet: Option<Tensor<2>>) -> (Side, Side) {
    if near.rows() <= near.mid() {
        return (x, Side::new(product(far.dense(), near.dense().transpose())));
    }
    let near = match sheet {
        Some(sheet) => near.behind(sheet),
        None => Side::new(product(x.dense(), near.dense())),
    };
    (near, far.clone())
}
