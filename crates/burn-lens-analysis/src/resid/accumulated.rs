//! The stream at each layer.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, HookedModel};

use super::{Component, Place, ResidStack, Residuals, StackOptions};
use crate::AnalysisError;

impl<M: HookedModel + ?Sized> Residuals<'_, M> {
    /// The stream before each block up to `layer`, and between each block's halves with
    /// `incl_mid`: TransformerLens's `accumulated_resid`.
    ///
    /// # Shapes
    ///
    /// - rows: `0_pre`, (`0_mid`,) …, `{layer}_pre` (`{layer}_mid` with `mlp_input`) or
    ///   `final_post`
    /// - returns: `[component, batch, pos, d_model]`
    ///
    /// # Errors
    ///
    /// If an activation was not kept and does not follow from others, or the layout has no
    /// stream between a block's halves.
    pub fn accumulated_resid(
        &self,
        options: &StackOptions,
        incl_mid: bool,
    ) -> Result<ResidStack, AnalysisError> {
        let place = self.place(options)?;
        if (incl_mid || place.mlp_input)
            && !(0..self.dims.n_layers).any(|l| self.fires(HookPoint::ResidMid(l)))
        {
            let reason = "in this layout no stream lies between a block's attention and its MLP".to_owned();
            return Err(AnalysisError::Refused { what: "incl_mid or mlp_input", reason });
        }
        let mut components = Vec::new();
        for layer in 0..=place.layer {
            components.push(if layer == self.dims.n_layers {
                Component::FinalPost
            } else {
                Component::ResidPre(layer)
            });
            let mid = if layer == place.layer { place.mlp_input } else { incl_mid };
            if mid {
                components.push(Component::ResidMid(layer));
            }
        }
        self.need("accumulated_resid", &self.stream_hooks(&components))?;
        let rows = components
            .iter()
            .map(|&component| self.stream(component, options))
            .collect::<Result<Vec<Tensor<3>>, _>>()?;
        let stack = self.stack(components, rows, options)?;
        self.normalized(stack, place, options.normalize)
    }

    fn stream_hooks(&self, components: &[Component]) -> Vec<Vec<HookPoint>> {
        let hooks = |&component: &Component| match component {
            Component::ResidMid(layer) => vec![HookPoint::ResidMid(layer), HookPoint::MlpIn(layer)],
            Component::ResidPre(layer) => self.resid_hooks(layer),
            _ => self.resid_hooks(self.dims.n_layers),
        };
        components.iter().map(hooks).collect()
    }

    fn stream(&self, component: Component, options: &StackOptions) -> Result<Tensor<3>, AnalysisError> {
        match component {
            Component::ResidMid(layer) => self.resid_mid(layer, options),
            Component::ResidPre(layer) => self.resid(layer, &options.pos_slice),
            _ => self.resid(self.dims.n_layers, &options.pos_slice),
        }
    }

    fn resid_mid(&self, layer: usize, options: &StackOptions) -> Result<Tensor<3>, AnalysisError> {
        let hooks = [HookPoint::ResidMid(layer), HookPoint::MlpIn(layer)];
        let kept = hooks.iter().find(|&&point| self.cache.contains(point));
        self.get(*kept.unwrap_or(&hooks[0]), &options.pos_slice)
    }

    /// The whole stream at `place`.
    pub(crate) fn whole(&self, place: Place, options: &StackOptions) -> Result<Tensor<3>, AnalysisError> {
        if place.mlp_input && !self.is_parallel() {
            return self.resid_mid(place.layer, options);
        }
        self.resid(place.layer, &options.pos_slice)
    }

    /// Rows `[batch, pos, d_model]` as a stack.
    pub(crate) fn stack(
        &self,
        components: Vec<Component>,
        rows: Vec<Tensor<3>>,
        options: &StackOptions,
    ) -> Result<ResidStack, AnalysisError> {
        let mut stack = ResidStack::new(components, Tensor::stack(rows, 0), options.pos_slice.clone())?;
        stack.has_batch_dim = self.cache.has_batch_dim();
        Ok(stack)
    }
}
