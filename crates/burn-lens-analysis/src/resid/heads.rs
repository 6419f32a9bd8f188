//! What each head adds to the stream.

use burn::tensor::Tensor;
use burn_lens_hooks::{ActivationCache, HookPoint, HookedModel, ModelWeights, Param};
use burn_lens_tensor::{Slice, TypedTensor};

use super::{Component, FrozenNorm, Place, ResidStack, Residuals, StackOptions, reader::Reader, rows::Rows};
use crate::AnalysisError;

impl<M: HookedModel + ?Sized> Residuals<'_, M> {
    /// `hook_result` of one block: what each head writes, before any norm behind attention and
    /// without `b_O`. Computed from `z` where it was not kept, by one product for each head.
    ///
    /// # Shapes
    ///
    /// - returns: `[batch, pos, n_heads, d_model]`
    ///
    /// # Errors
    ///
    /// If neither was kept, or there is no such block.
    pub fn head_results(&self, layer: usize) -> Result<Tensor<4>, AnalysisError> {
        self.check_block(layer)?;
        let own = HookPoint::AttnResult(layer);
        if self.cache.contains(own) {
            return self.get(own, &Slice::All);
        }
        let z = self.units_of_z(layer, &Slice::All)?;
        let [heads, batch, pos, d_head] = z.dims();
        let rows = z.reshape([heads, batch * pos, d_head]).matmul(self.w_o(layer)?);
        Ok(rows.reshape([heads, batch, pos, self.dims.d_model]).permute([1, 2, 0, 3]))
    }

    /// The cache with `hook_result` of every block in it: TransformerLens's
    /// `compute_head_results`. Only tools that read those names need it; the methods here derive
    /// head results by themselves.
    ///
    /// # Errors
    ///
    /// As [`Residuals::head_results`].
    pub fn compute_head_results(&self) -> Result<ActivationCache, AnalysisError> {
        let mut cache = self.cache.clone();
        for layer in 0..self.dims.n_layers {
            let result = self.head_results(layer)?.into_any();
            let result = if cache.has_batch_dim() {
                result
            } else {
                let point = HookPoint::AttnResult(layer);
                result
                    .remove_axis(0)
                    .map_err(|source| burn_lens_hooks::RunError::HookRank { point, source })?
            };
            cache.insert(HookPoint::AttnResult(layer), result);
        }
        Ok(cache)
    }

    /// What each head adds to the stream before `layer` reads it, layer by layer:
    /// TransformerLens's `stack_head_results`. Where a norm stands behind attention, it is applied
    /// with the run's scale, so that rows are what reaches the stream.
    ///
    /// # Shapes
    ///
    /// - rows: `L0H0`, `L0H1`, …, then with `incl_remainder` `remainder`: the stream less the
    ///   others (embeddings, MLPs, biases)
    /// - returns: `[component, batch, pos, d_model]`
    ///
    /// # Errors
    ///
    /// If neither results nor `z` were kept, or no head writes before `layer` and no remainder is
    /// wanted.
    pub fn stack_head_results(
        &self,
        options: &StackOptions,
        incl_remainder: bool,
    ) -> Result<ResidStack, AnalysisError> {
        let place = self.place(options)?;
        let reader = Reader::new(self, place, options, None)?;
        self.need("stack_head_results", &self.head_hooks(place))?;
        let mut rows = Rows::new(self.head_count(place) + usize::from(incl_remainder));
        self.push_heads(place, options, &reader, &mut rows)?;
        if incl_remainder {
            self.push_remainder(place, options, &reader, &mut rows)?;
        }
        rows.into_stack("stack_head_results", options, &reader, self)
    }

    /// The hooks of which one gives the results of each block before `place`.
    pub(crate) fn head_hooks(&self, place: Place) -> Vec<Vec<HookPoint>> {
        self.attn_layers(place)
            .into_iter()
            .map(|layer| vec![HookPoint::AttnZ(layer), HookPoint::AttnResult(layer)])
            .collect()
    }

    /// How many heads write before `place`.
    pub(crate) fn head_count(&self, place: Place) -> usize {
        self.attn_layers(place).len() * self.dims.n_heads
    }

    /// Adds what each head writes before `place`.
    pub(crate) fn push_heads(
        &self,
        place: Place,
        options: &StackOptions,
        reader: &Reader,
        rows: &mut Rows,
    ) -> Result<(), AnalysisError> {
        for layer in self.attn_layers(place) {
            let heads = (0..self.dims.n_heads).map(|head| Component::Head(layer, head));
            rows.push(heads, self.heads_of(layer, &options.pos_slice, reader)?);
        }
        Ok(())
    }

    fn heads_of(&self, layer: usize, pos: &Slice, reader: &Reader) -> Result<Tensor<4>, AnalysisError> {
        let write = match self.attn_write_norm(layer) {
            None => None,
            Some(site) => Some(FrozenNorm::of(self, site, pos)?),
        };
        let own = HookPoint::AttnResult(layer);
        if self.cache.contains(own) {
            let results: Tensor<4> = self.get(own, pos)?;
            let chain = super::Chain(write.into_iter().collect());
            return Ok(reader.rows(chain.rows(results.permute([2, 0, 1, 3]))));
        }
        Ok(reader.factored(self.units_of_z(layer, pos)?, self.w_o(layer)?, write))
    }

    /// `z` with heads first: `[n_heads, batch, pos, d_head]`.
    fn units_of_z(&self, layer: usize, pos: &Slice) -> Result<Tensor<4>, AnalysisError> {
        let z: Tensor<4> = self.get(HookPoint::AttnZ(layer), pos)?;
        Ok(z.permute([2, 0, 1, 3]))
    }

    /// `[n_heads, d_head, d_model]`
    pub(crate) fn w_o(&self, layer: usize) -> Result<Tensor<3>, AnalysisError> {
        let w: Tensor<2> = self.model.weight(Param::WO(layer))?;
        Ok(w.reshape([self.dims.n_heads, self.dims.d_head, self.dims.d_model]))
    }

    pub(crate) fn check_block(&self, layer: usize) -> Result<(), AnalysisError> {
        let n_layers = self.dims.n_layers;
        if layer < n_layers { Ok(()) } else { Err(AnalysisError::Layer { layer: layer as isize, n_layers }) }
    }

    /// Adds the stream less the rows so far.
    pub(crate) fn push_remainder(
        &self,
        place: Place,
        options: &StackOptions,
        reader: &Reader,
        rows: &mut Rows,
    ) -> Result<(), AnalysisError> {
        if options.normalize == super::Normalize::Lens {
            let reason = "rows normalized one by one do not sum to the stream: use Normalize::Attribution";
            return Err(AnalysisError::Refused { what: "incl_remainder", reason: reason.to_owned() });
        }
        let whole = reader.row(self.whole(place, options)?);
        let remainder = match rows.sum() {
            None => whole,
            Some(sum) => whole - sum,
        };
        rows.push([Component::Remainder], remainder);
        Ok(())
    }
}
