//! What is done to the rows of a stack once they are made: the norm of the place that reads
//! them, then a projection.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookedModel, ModelWeights};
use burn_lens_tensor::Norm;

use super::{Chain, FrozenNorm, Normalize, Place, Residuals, StackOptions};
use crate::AnalysisError;

/// Finishes rows of the stream.
pub(crate) struct Reader {
    lens: Option<Norm>,
    frozen: Option<FrozenNorm>,
    /// `[d_model, n_out]`
    onto: Option<Tensor<2>>,
    pub(crate) normalized: bool,
}

impl Reader {
    pub(crate) fn new<M: HookedModel + ?Sized>(
        residuals: &Residuals<'_, M>,
        place: Place,
        options: &StackOptions,
        onto: Option<&Tensor<2>>,
    ) -> Result<Self, AnalysisError> {
        let d_model = residuals.dims.d_model;
        if let Some(onto) = onto
            && onto.dims()[0] != d_model
        {
            return Err(AnalysisError::Shape {
                what: "project_output_onto",
                expected: format!("[{d_model}, n_out]"),
                found: onto.dims().to_vec(),
            });
        }
        let (mut lens, mut frozen) = (None, None);
        match options.normalize {
            Normalize::None => {}
            Normalize::Lens => lens = Some(residuals.model.norm_at(residuals.read_norm(place)?)?),
            Normalize::Attribution => {
                let site = residuals.read_norm(place)?;
                frozen = Some(FrozenNorm::of(residuals, site, &options.pos_slice)?.unweighted());
            }
        }
        let normalized = lens.is_some() || frozen.is_some();
        Ok(Self { lens, frozen, onto: onto.cloned(), normalized })
    }

    /// Finishes rows `[component, batch, pos, d_model]` as they reach the stream.
    pub(crate) fn rows(&self, rows: Tensor<4>) -> Tensor<4> {
        let rows = match &self.lens {
            Some(norm) => norm.apply(rows),
            None => Chain(self.frozen.iter().cloned().collect()).rows(rows),
        };
        self.project(rows)
    }

    /// Finishes one whole row `[batch, pos, d_model]`.
    pub(crate) fn row(&self, row: Tensor<3>) -> Tensor<4> {
        self.rows(row.unsqueeze_dim(0))
    }

    /// The rows `coefficients · weights`, through `write` (the norm behind their sublayer).
    ///
    /// Norms and projection act on the weights, which are smaller than the rows, wherever that
    /// is the same thing.
    ///
    /// # Shapes
    ///
    /// - `coefficients`: `[unit, batch, pos, inner]`
    /// - `weights`: `[unit, inner, d_model]`
    pub(crate) fn factored(
        &self,
        coefficients: Tensor<4>,
        weights: Tensor<3>,
        write: Option<FrozenNorm>,
    ) -> Tensor<4> {
        if self.lens.is_some() {
            let chain = Chain(write.into_iter().collect());
            return self.rows(chain.divide(product(coefficients, chain.linear(weights))));
        }
        let chain = Chain(write.into_iter().chain(self.frozen.clone()).collect());
        let weights = chain.linear(weights);
        let weights = match &self.onto {
            None => weights,
            Some(onto) => {
                let [units, inner, d_model] = weights.dims();
                let n_out = onto.dims()[1];
                let flat: Tensor<2> = weights.reshape([units * inner, d_model]);
                flat.matmul(onto.clone()).reshape([units, inner, n_out])
            }
        };
        chain.divide(product(coefficients, weights))
    }

    fn project(&self, rows: Tensor<4>) -> Tensor<4> {
        match &self.onto {
            None => rows,
            Some(onto) => {
                let [n, batch, pos, d_model] = rows.dims();
                let n_out = onto.dims()[1];
                let flat: Tensor<2> = rows.reshape([n * batch * pos, d_model]);
                flat.matmul(onto.clone()).reshape([n, batch, pos, n_out])
            }
        }
    }
}

/// `[unit, batch, pos, inner] · [unit, inner, width]`, unit by unit.
fn product(coefficients: Tensor<4>, weights: Tensor<3>) -> Tensor<4> {
    let [units, batch, pos, inner] = coefficients.dims();
    let width = weights.dims()[2];
    if inner == 1 {
        return coefficients * weights.unsqueeze_dim::<4>(2);
    }
    coefficients.reshape([units, batch * pos, inner]).matmul(weights).reshape([units, batch, pos, width])
}
