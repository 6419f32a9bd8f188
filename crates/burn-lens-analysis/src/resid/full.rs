//! The stream down to heads and neurons.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, HookedModel, ModelWeights, NormSite, Param};
use burn_lens_tensor::{AnyTensor, Slice};

use super::{
    Component, FrozenNorm, Place, ResidStack, Residuals, StackOptions, decompose::written_by, reader::Reader,
    rows::Rows,
};
use crate::AnalysisError;

impl<M: HookedModel + ?Sized> Residuals<'_, M> {
    /// Every head, every neuron (or whole MLPs), the embeddings and the output biases:
    /// TransformerLens's `get_full_resid_decomposition`. The rows sum to the stream.
    ///
    /// With `project_output_onto` (`[d_model, n_out]`) rows are projected without being formed.
    ///
    /// # Shapes
    ///
    /// - rows: heads, neurons (or `{l}_mlp_out`), `embed`, `pos_embed`, `bias`
    /// - returns: `[component, batch, pos, d_model]`, or `[.., n_out]` with a projection
    ///
    /// # Errors
    ///
    /// If an activation was not kept and does not follow from others, or [`super::Normalize::Lens`]
    /// is asked for together with rows that must sum.
    pub fn get_full_resid_decomposition(
        &self,
        options: &StackOptions,
        expand_neurons: bool,
        project_output_onto: Option<&Tensor<2>>,
    ) -> Result<ResidStack, AnalysisError> {
        let place = self.place(options)?;
        let reader = Reader::new(self, place, options, project_output_onto)?;
        self.need("get_full_resid_decomposition", &self.full_hooks(place, expand_neurons))?;
        let of_mlps = if expand_neurons {
            self.neuron_count(place, &Slice::All)?
        } else {
            self.mlp_layers(place).len()
        };
        let mut rows = Rows::new(self.head_count(place) + of_mlps + self.embeddings().len() + 1);
        self.push_heads(place, options, &reader, &mut rows)?;
        if expand_neurons {
            self.push_neurons(place, options, &Slice::All, &reader, &mut rows)?;
        }
        let mlps = if expand_neurons { Vec::new() } else { self.mlp_layers(place) };
        let whole = mlps.into_iter().map(Component::MlpOut).chain(self.embeddings());
        let mut shape = None;
        for component in whole {
            let row = self.sublayer(component, options)?;
            shape = Some(row.dims());
            rows.push([component], reader.row(row));
        }
        let Some(shape) = shape else {
            let reason = "the model fires no embedding, with which its stream begins".to_owned();
            return Err(AnalysisError::Refused { what: "a decomposition of the whole stream", reason });
        };
        let bias = self.accumulated_bias(place, expand_neurons, &options.pos_slice, shape)?;
        rows.push([Component::Bias], reader.row(bias));
        let mut stack = rows.into_stack("get_full_resid_decomposition", options, &reader, self)?;
        stack.is_resid = project_output_onto.is_none();
        Ok(stack)
    }

    fn full_hooks(&self, place: Place, expand_neurons: bool) -> Vec<Vec<HookPoint>> {
        let mut groups = self.head_hooks(place);
        for layer in self.mlp_layers(place) {
            groups.push(if expand_neurons {
                vec![HookPoint::MlpPost(layer)]
            } else {
                written_by(Component::MlpOut(layer))
            });
        }
        groups.extend(self.embeddings().into_iter().map(written_by));
        groups
    }

    /// The output biases that were written before `place`, those of MLPs with
    /// `include_mlp_biases`: `[batch, pos, d_model]`. They differ between positions only where a
    /// norm stands behind a sublayer.
    fn accumulated_bias(
        &self,
        place: Place,
        include_mlp_biases: bool,
        pos: &Slice,
        shape: [usize; 3],
    ) -> Result<Tensor<3>, AnalysisError> {
        let device = self.model.device();
        let mut sum = Tensor::<3>::zeros(shape, &device);
        if let Some(embed) = self.model.param(Param::WO(0)) {
            sum = sum.cast(AnyTensor::dtype(&embed));
        }
        for layer in self.attn_layers(place) {
            sum = self.add_bias(sum, Param::BO(layer), self.attn_write_norm(layer), pos)?;
        }
        if include_mlp_biases {
            for layer in self.mlp_layers(place) {
                sum = self.add_bias(sum, Param::BOut(layer), self.mlp_write_norm(layer), pos)?;
            }
        }
        Ok(sum)
    }

    fn add_bias(
        &self,
        sum: Tensor<3>,
        param: Param,
        write: Option<NormSite>,
        pos: &Slice,
    ) -> Result<Tensor<3>, AnalysisError> {
        let bias = self.model.find_weight::<1>(param);
        match write {
            None => Ok(match bias {
                None => sum,
                Some(bias) => sum + bias.unsqueeze(),
            }),
            Some(site) => {
                let norm = FrozenNorm::of(self, site, pos)?;
                let through = match bias {
                    None => sum.zeros_like(),
                    Some(bias) => bias.unsqueeze::<3>().expand(sum.dims()),
                };
                Ok(sum + norm.whole(through))
            }
        }
    }
}
