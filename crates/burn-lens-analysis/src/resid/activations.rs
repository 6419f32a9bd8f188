//! One hook of every layer as one tensor.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, HookedModel, RunError, parse_act_name};
use burn_lens_tensor::{AnyTensor, TypedTensor};

use super::{Residuals, StackOptions};
use crate::AnalysisError;

impl<M: HookedModel + ?Sized> Residuals<'_, M> {
    /// One hook of each block below `layer`, by its short name: TransformerLens's
    /// `stack_activation`. `sublayer_type` is needed where a name stands for several hooks
    /// (`("scale", "ln1")`).
    ///
    /// # Shapes
    ///
    /// - returns: `[layer, …]`, behind it the activation's own axes
    ///
    /// # Errors
    ///
    /// If no hook has that name, one was not kept, there is no block below `layer`, or the shapes
    /// differ between layers.
    ///
    /// # Panics
    ///
    /// Never: activations have at most four axes.
    pub fn stack_activation(
        &self,
        activation_name: &str,
        layer: impl Into<Option<isize>>,
        sublayer_type: Option<&str>,
    ) -> Result<AnyTensor, AnalysisError> {
        let place = self.place(&StackOptions::at(layer))?;
        let points = (0..place.layer)
            .map(|layer| {
                parse_act_name(activation_name, Some(layer as isize), sublayer_type, self.dims.n_layers)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(RunError::from)?;
        let groups: Vec<_> = points.iter().map(|&point| vec![point]).collect();
        self.need("stack_activation", &groups)?;
        let mut values = Vec::new();
        for &point in &points {
            values.push(self.cache.get(point)?);
        }
        let Some(first) = values.first() else {
            let reason = "there is no block below layer 0".to_owned();
            return Err(AnalysisError::Empty { what: "stack_activation", reason });
        };
        if let Some(other) = values.iter().find(|value| value.shape() != first.shape()) {
            return Err(AnalysisError::Shape {
                what: "an activation of a later layer",
                expected: format!("{:?}, as in the first", first.shape()),
                found: other.shape(),
            });
        }
        match first.rank() {
            1 => stacked::<1, 2>(values, &points),
            2 => stacked::<2, 3>(values, &points),
            3 => stacked::<3, 4>(values, &points),
            _ => stacked::<4, 5>(values, &points),
        }
    }
}

fn stacked<const D: usize, const D2: usize>(
    values: Vec<AnyTensor>,
    points: &[HookPoint],
) -> Result<AnyTensor, AnalysisError>
where
    Tensor<D>: TypedTensor,
    Tensor<D2>: TypedTensor,
{
    let tensors = values
        .into_iter()
        .zip(points)
        .map(|(value, &point)| {
            Tensor::<D>::from_any(value).map_err(|source| RunError::HookRank { point, source })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::stack::<D2>(tensors, 0).into_any())
}
