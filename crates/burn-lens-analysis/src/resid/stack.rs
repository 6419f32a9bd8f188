//! Rows of a residual stream, with what each is and which positions they hold.

use burn::tensor::Tensor;
use burn_lens_tensor::{AnyTensor, Slice, TypedTensor};

use super::Component;
use crate::AnalysisError;

/// Rows of the residual stream (or of projections of it), one for each component.
///
/// All four axes are always there, so nothing is ever broadcast by accident;
/// [`ResidStack::into_any`] drops those that TransformerLens drops.
#[derive(Clone, Debug)]
pub struct ResidStack {
    pub(crate) components: Vec<Component>,
    pub(crate) values: Tensor<4>,
    /// Which of the cache's positions and prompts these are.
    pub(crate) pos_slice: Slice,
    pub(crate) batch_slice: Slice,
    /// Whether the cache still had its batch axis.
    pub(crate) has_batch_dim: bool,
    /// Whether a norm was applied to the rows.
    pub(crate) normalized: bool,
    /// Whether the last axis is d_model and not a projection.
    pub(crate) is_resid: bool,
}

impl ResidStack {
    /// A stack of the user's own: rows `[component, batch, pos, d_model]`, at the positions
    /// `pos_slice` of the cache that they will be used with.
    ///
    /// # Errors
    ///
    /// If there are no rows, or not as many as components.
    pub fn new(
        components: Vec<Component>,
        values: Tensor<4>,
        pos_slice: Slice,
    ) -> Result<Self, AnalysisError> {
        if components.is_empty() || values.dims()[0] != components.len() {
            return Err(AnalysisError::Shape {
                what: "the stack",
                expected: format!("[{}, batch, pos, d_model] with at least one row", components.len()),
                found: values.dims().to_vec(),
            });
        }
        Ok(Self {
            components,
            values,
            pos_slice,
            batch_slice: Slice::All,
            has_batch_dim: true,
            normalized: false,
            is_resid: true,
        })
    }

    /// What each row is.
    #[must_use]
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// TransformerLens's labels of the rows.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        self.components.iter().map(ToString::to_string).collect()
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.components.len()
    }

    /// Never: a stack has at least one row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.components.is_empty()
    }

    /// `[component, batch, pos, d_model]`; the last axis is that of the projection where one
    /// was asked for.
    #[must_use]
    pub fn values(&self) -> Tensor<4> {
        self.values.clone()
    }

    /// The sum of all rows, `[batch, pos, d_model]`.
    #[must_use]
    pub fn sum(&self) -> Tensor<3> {
        self.values.clone().sum_dim(0).squeeze_dim(0)
    }

    /// The rows in TransformerLens's shape: without the batch axis where the cache has none or
    /// a single prompt was chosen, without the position axis where a single position was.
    #[must_use]
    pub fn into_any(self) -> AnyTensor {
        let [n, batch, pos, width] = self.values.dims();
        let no_batch = !self.has_batch_dim || self.batch_slice.is_index();
        match (no_batch, self.pos_slice.is_index()) {
            (false, false) => self.values.into_any(),
            (true, false) => self.values.reshape([n, pos, width]).into_any(),
            (false, true) => self.values.reshape([n, batch, width]).into_any(),
            (true, true) => self.values.reshape([n, width]).into_any(),
        }
    }

    /// The rows at some prompts.
    ///
    /// # Errors
    ///
    /// If the slice does not fit, or the stack was sliced or its cache had no batch axis.
    pub fn slice_batch(self, slice: &Slice) -> Result<Self, AnalysisError> {
        if *slice == Slice::All {
            return Ok(self);
        }
        if !self.has_batch_dim || self.batch_slice != Slice::All {
            let reason = "it has no batch axis, or was sliced along it already".to_owned();
            return Err(AnalysisError::Refused { what: "slicing the batch axis of a stack", reason });
        }
        let values = slice_axis(self.values, 1, slice, "batch")?;
        Ok(Self { values, batch_slice: slice.clone(), ..self })
    }
}

/// Keeps some positions of `axis`; an index keeps the axis with length 1.
pub(crate) fn slice_axis<const D: usize>(
    x: Tensor<D>,
    axis: usize,
    slice: &Slice,
    name: &'static str,
) -> Result<Tensor<D>, AnalysisError>
where
    Tensor<D>: TypedTensor,
{
    if *slice == Slice::All {
        return Ok(x);
    }
    let sliced =
        x.into_any().slice_axis(axis, slice).map_err(|source| AnalysisError::Slice { axis: name, source })?;
    Ok(Tensor::<D>::from_any(sliced).expect("slicing keeps the rank"))
}
