//! Activations of the cache with all their axes, and those that follow from others.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, HookedModel, ModelWeights, NormPlacement, NormSite, Param, RunError};
use burn_lens_tensor::{AnyTensor, Slice, TypedTensor, kernels};

use super::{FrozenNorm, Residuals, slice_axis};
use crate::AnalysisError;

impl<M: HookedModel + ?Sized> Residuals<'_, M> {
    /// The activation at `point` with its batch axis, at some positions.
    pub(crate) fn get<const D: usize>(
        &self,
        point: HookPoint,
        pos: &Slice,
    ) -> Result<Tensor<D>, AnalysisError>
    where
        Tensor<D>: TypedTensor,
    {
        let mut any = self.cache.get(point).map_err(|error| Self::missing(point, error))?;
        if !self.cache.has_batch_dim() {
            any = with_batch_axis(any);
        }
        let x = Tensor::<D>::from_any(any).map_err(|source| RunError::HookRank { point, source })?;
        match point.pos_axis() {
            Some(axis) => slice_axis(x, axis, pos, "pos"),
            None => Ok(x),
        }
    }

    fn missing(point: HookPoint, error: RunError) -> AnalysisError {
        match error {
            RunError::NotCached { .. } => {
                AnalysisError::MissingHooks { what: format!("`{point}`"), missing: vec![point] }
            }
            error => error.into(),
        }
    }

    /// Fails with the whole list unless one hook of each group was kept.
    pub(crate) fn need(&self, what: &str, groups: &[Vec<HookPoint>]) -> Result<(), AnalysisError> {
        let kept = |group: &&Vec<HookPoint>| !group.iter().any(|&point| self.cache.contains(point));
        let missing: Vec<HookPoint> = groups.iter().filter(kept).map(|group| group[0]).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(AnalysisError::MissingHooks { what: what.to_owned(), missing })
    }

    /// The hooks of which one gives the stream that block `layer` reads (or that leaves the
    /// last block).
    pub(crate) fn resid_hooks(&self, layer: usize) -> Vec<HookPoint> {
        let mut hooks = Vec::new();
        if layer < self.dims.n_layers {
            hooks.push(HookPoint::ResidPre(layer));
        }
        if layer > 0 {
            hooks.push(HookPoint::ResidPost(layer - 1));
        }
        hooks
    }

    /// The stream that block `layer` reads, or that leaves the last block.
    pub(crate) fn resid(&self, layer: usize, pos: &Slice) -> Result<Tensor<3>, AnalysisError> {
        let hooks = self.resid_hooks(layer);
        let kept = hooks.iter().find(|&&point| self.cache.contains(point));
        self.get(*kept.unwrap_or(&hooks[0]), pos)
    }

    /// `[batch, pos, d_model]`: what attention of `layer` adds, from its own hook or from z.
    pub(crate) fn attn_out(&self, layer: usize, pos: &Slice) -> Result<Tensor<3>, AnalysisError> {
        let own = HookPoint::AttnOut(layer);
        if self.cache.contains(own) || !self.cache.contains(HookPoint::AttnZ(layer)) {
            return self.get(own, pos);
        }
        let z: Tensor<4> = self.get(HookPoint::AttnZ(layer), pos)?;
        let [batch, pos_len, heads, d_head] = z.dims();
        let w_o: Tensor<2> = self.model.weight(Param::WO(layer))?;
        let b_o = self.model.find_weight::<1>(Param::BO(layer));
        let out = kernels::linear(z.reshape([batch, pos_len, heads * d_head]), w_o, b_o);
        self.written(self.attn_write_norm(layer), out, pos)
    }

    /// `[batch, pos, d_model]`: what the MLP of `layer` adds, from its own hook or from post.
    pub(crate) fn mlp_out(&self, layer: usize, pos: &Slice) -> Result<Tensor<3>, AnalysisError> {
        let own = HookPoint::MlpOut(layer);
        if self.cache.contains(own) || !self.cache.contains(HookPoint::MlpPost(layer)) {
            return self.get(own, pos);
        }
        let post: Tensor<3> = self.get(HookPoint::MlpPost(layer), pos)?;
        let w_out: Tensor<2> = self.model.weight(Param::WOut(layer))?;
        let out = kernels::linear(post, w_out, self.model.find_weight::<1>(Param::BOut(layer)));
        self.written(self.mlp_write_norm(layer), out, pos)
    }

    /// The norm between attention's output and the stream, if there is one.
    pub(crate) fn attn_write_norm(&self, layer: usize) -> Option<NormSite> {
        match self.wiring.placement {
            NormPlacement::Pre => None,
            NormPlacement::Post => Some(NormSite::Ln1(layer)),
            NormPlacement::Both => Some(NormSite::Ln1Post(layer)),
        }
    }

    /// The norm between the MLP's output and the stream, if there is one.
    pub(crate) fn mlp_write_norm(&self, layer: usize) -> Option<NormSite> {
        match self.wiring.placement {
            NormPlacement::Pre => None,
            NormPlacement::Post => Some(NormSite::Ln2(layer)),
            NormPlacement::Both => Some(NormSite::Ln2Post(layer)),
        }
    }

    /// A whole sublayer's output as it reaches the stream: through the norm behind it.
    fn written(&self, site: Option<NormSite>, x: Tensor<3>, pos: &Slice) -> Result<Tensor<3>, AnalysisError> {
        match site {
            None => Ok(x),
            Some(site) => Ok(FrozenNorm::of(self, site, pos)?.whole(x)),
        }
    }
}

fn with_batch_axis(any: AnyTensor) -> AnyTensor {
    match any {
        AnyTensor::Float1(x) => AnyTensor::Float2(x.unsqueeze_dim(0)),
        AnyTensor::Float2(x) => AnyTensor::Float3(x.unsqueeze_dim(0)),
        AnyTensor::Float3(x) => AnyTensor::Float4(x.unsqueeze_dim(0)),
        AnyTensor::Float4(x) => AnyTensor::Float5(x.unsqueeze_dim(0)),
        AnyTensor::Int1(x) => AnyTensor::Int2(x.unsqueeze_dim(0)),
        AnyTensor::Int2(x) => AnyTensor::Int3(x.unsqueeze_dim(0)),
        other => other,
    }
}
