//! What each neuron adds to the stream.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, HookedModel, ModelWeights, Param};
use burn_lens_tensor::{Indices, Slice};

use super::{
    Component, FrozenNorm, Place, ResidStack, Residuals, StackOptions, reader::Reader, rows::Rows, slice_axis,
};
use crate::AnalysisError;

/// Which neurons, and what of them.
#[derive(Clone, Debug, Default)]
pub struct NeuronOptions {
    /// Which neurons of each block. An index keeps its axis.
    pub neuron_slice: Slice,
    /// `[d_model, n_out]`: projects each row onto these directions, without forming the rows.
    pub project_output_onto: Option<Tensor<2>>,
    /// Also give the stream less the other rows.
    pub incl_remainder: bool,
}

impl<M: HookedModel + ?Sized> Residuals<'_, M> {
    /// What the neurons of one block write, `post · W_out` neuron by neuron, before any norm behind
    /// the MLP: TransformerLens's `get_neuron_results`.
    ///
    /// # Shapes
    ///
    /// - returns: `[batch, pos, neuron, d_model]`, or `[.., n_out]` with a projection
    ///
    /// # Errors
    ///
    /// If `mlp.hook_post` was not kept, a slice does not fit, or there is no such block.
    pub fn get_neuron_results(
        &self,
        layer: usize,
        pos_slice: &Slice,
        options: &NeuronOptions,
    ) -> Result<Tensor<4>, AnalysisError> {
        self.check_block(layer)?;
        let stack = StackOptions { pos_slice: pos_slice.clone(), ..StackOptions::default() };
        let place = Place { layer: self.dims.n_layers, mlp_input: false };
        let reader = Reader::new(self, place, &stack, options.project_output_onto.as_ref())?;
        let (post, w_out) = self.units_of_post(layer, pos_slice, &options.neuron_slice)?;
        Ok(reader.factored(post, w_out, None).permute([1, 2, 0, 3]))
    }

    /// What each neuron adds to the stream before `layer` reads it: TransformerLens's
    /// `stack_neuron_results`. The peak of memory is the result, `component × batch × pos ×
    /// d_model` numbers ([`Residuals::stack_bytes`]); with a projection `n_out` takes the place of
    /// `d_model`.
    ///
    /// # Shapes
    ///
    /// - rows: `L0N0`, `L0N1`, …, then `remainder`
    /// - returns: `[component, batch, pos, d_model]`, or `[.., n_out]` with a projection
    ///
    /// # Errors
    ///
    /// If `mlp.hook_post` was not kept, or no neuron writes before `layer` and no remainder is
    /// wanted.
    pub fn stack_neuron_results(
        &self,
        options: &StackOptions,
        neurons: &NeuronOptions,
    ) -> Result<ResidStack, AnalysisError> {
        let place = self.place(options)?;
        let reader = Reader::new(self, place, options, neurons.project_output_onto.as_ref())?;
        self.need("results of neurons", &self.neuron_hooks(place))?;
        let count = self.neuron_count(place, &neurons.neuron_slice)?;
        let mut rows = Rows::new(count + usize::from(neurons.incl_remainder));
        self.push_neurons(place, options, &neurons.neuron_slice, &reader, &mut rows)?;
        if neurons.incl_remainder {
            self.push_remainder(place, options, &reader, &mut rows)?;
        }
        let mut stack = rows.into_stack("stack_neuron_results", options, &reader, self)?;
        stack.is_resid = neurons.project_output_onto.is_none();
        Ok(stack)
    }

    /// The bytes that a stack of `rows` components over all prompts and positions takes, and with
    /// it about the peak of the methods that make one.
    ///
    /// # Errors
    ///
    /// If the cache holds no activation of the stream.
    pub fn stack_bytes(&self, rows: usize, pos_slice: &Slice) -> Result<u64, AnalysisError> {
        let whole = self.resid(self.dims.n_layers, pos_slice)?;
        Ok(whole.dims().iter().product::<usize>() as u64 * whole.dtype().size() as u64 * rows as u64)
    }

    /// The hooks of which each gives the results of a block before `place`.
    pub(crate) fn neuron_hooks(&self, place: Place) -> Vec<Vec<HookPoint>> {
        self.mlp_layers(place).into_iter().map(|layer| vec![HookPoint::MlpPost(layer)]).collect()
    }

    /// How many neurons of a slice write before `place`.
    pub(crate) fn neuron_count(&self, place: Place, slice: &Slice) -> Result<usize, AnalysisError> {
        match self.mlp_layers(place).len() {
            0 => Ok(0),
            layers => Ok(layers * self.neurons(slice)?.len()),
        }
    }

    /// Adds what each neuron of a slice writes before `place`.
    pub(crate) fn push_neurons(
        &self,
        place: Place,
        options: &StackOptions,
        slice: &Slice,
        reader: &Reader,
        rows: &mut Rows,
    ) -> Result<(), AnalysisError> {
        for layer in self.mlp_layers(place) {
            let write = match self.mlp_write_norm(layer) {
                None => None,
                Some(site) => Some(FrozenNorm::of(self, site, &options.pos_slice)?),
            };
            let (post, w_out) = self.units_of_post(layer, &options.pos_slice, slice)?;
            let neurons = self.neurons(slice)?.into_iter().map(|neuron| Component::Neuron(layer, neuron));
            rows.push(neurons, reader.factored(post, w_out, write));
        }
        Ok(())
    }

    fn neurons(&self, slice: &Slice) -> Result<Vec<usize>, AnalysisError> {
        let kept = slice.resolve(self.dims.d_mlp);
        kept.map(|kept: Indices| kept.to_vec())
            .map_err(|source| AnalysisError::Slice { axis: "neuron", source })
    }

    /// `post` and `W_out` with neurons first: `[neuron, batch, pos, 1]`, `[neuron, 1, d_model]`.
    fn units_of_post(
        &self,
        layer: usize,
        pos: &Slice,
        neurons: &Slice,
    ) -> Result<(Tensor<4>, Tensor<3>), AnalysisError> {
        let post: Tensor<3> = slice_axis(self.get(HookPoint::MlpPost(layer), pos)?, 2, neurons, "neuron")?;
        let w_out: Tensor<2> = slice_axis(self.model.weight(Param::WOut(layer))?, 0, neurons, "neuron")?;
        Ok((post.permute([2, 0, 1]).unsqueeze_dim(3), w_out.unsqueeze_dim(1)))
    }
}
