//! What each sublayer added to the stream.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, HookedModel};

use super::{Component, Place, ResidStack, Residuals, StackOptions};
use crate::AnalysisError;

/// Which sublayers to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sublayers {
    /// Attention and MLPs.
    #[default]
    All,
    /// MLPs alone.
    Mlp,
    /// Attention alone.
    Attn,
}

impl std::str::FromStr for Sublayers {
    type Err = AnalysisError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            "mlp" => Ok(Self::Mlp),
            "attn" => Ok(Self::Attn),
            _ => Err(AnalysisError::Refused {
                what: "mode",
                reason: format!("`{text}` is none of `all`, `mlp`, `attn`"),
            }),
        }
    }
}

impl<M: HookedModel + ?Sized> Residuals<'_, M> {
    /// What wrote to the stream before `layer` reads it, in firing order: TransformerLens's
    /// `decompose_resid`. With [`Sublayers::All`] and embeddings the rows sum to the stream.
    ///
    /// With `mlp_input` the attention of `layer` is included, unless the MLP reads the same stream
    /// as attention (parallel blocks).
    ///
    /// # Shapes
    ///
    /// - rows: `embed`, `pos_embed`, `0_attn_out`, `0_mlp_out`, …
    /// - returns: `[component, batch, pos, d_model]`
    ///
    /// # Errors
    ///
    /// If an activation was not kept and does not follow from others, or nothing is left.
    pub fn decompose_resid(
        &self,
        options: &StackOptions,
        mode: Sublayers,
        incl_embeds: bool,
    ) -> Result<ResidStack, AnalysisError> {
        let place = self.place(options)?;
        let components = self.sublayers(place, mode, incl_embeds);
        if components.is_empty() {
            let reason = format!("no sublayer of this kind writes before layer {}", place.layer);
            return Err(AnalysisError::Empty { what: "decompose_resid", reason });
        }
        let groups: Vec<_> = components.iter().map(|&component| written_by(component)).collect();
        self.need("decompose_resid", &groups)?;
        let rows = components
            .iter()
            .map(|&component| self.sublayer(component, options))
            .collect::<Result<Vec<_>, _>>()?;
        let stack = self.stack(components, rows, options)?;
        self.normalized(stack, place, options.normalize)
    }

    /// The embeddings that the stream starts from.
    pub(crate) fn embeddings(&self) -> Vec<Component> {
        let mut components = vec![Component::Embed];
        if self.fires(HookPoint::PosEmbed) {
            components.push(Component::PosEmbed);
        }
        components
    }

    /// The layers whose attention wrote before `place`.
    pub(crate) fn attn_layers(&self, place: Place) -> Vec<usize> {
        let layers = 0..place.layer + usize::from(place.mlp_input && !self.is_parallel());
        layers.filter(|&layer| self.fires(HookPoint::AttnOut(layer))).collect()
    }

    /// The layers whose MLP wrote before `place`.
    pub(crate) fn mlp_layers(&self, place: Place) -> Vec<usize> {
        (0..place.layer).filter(|&layer| self.fires(HookPoint::MlpOut(layer))).collect()
    }

    fn sublayers(&self, place: Place, mode: Sublayers, incl_embeds: bool) -> Vec<Component> {
        let mut components = if incl_embeds { self.embeddings() } else { Vec::new() };
        let (attn, mlp) = (self.attn_layers(place), self.mlp_layers(place));
        for layer in 0..=place.layer {
            if mode != Sublayers::Mlp && attn.contains(&layer) {
                components.push(Component::AttnOut(layer));
            }
            if mode != Sublayers::Attn && mlp.contains(&layer) {
                components.push(Component::MlpOut(layer));
            }
        }
        components
    }

    /// What a whole sublayer or embedding wrote, `[batch, pos, d_model]`.
    pub(crate) fn sublayer(
        &self,
        component: Component,
        options: &StackOptions,
    ) -> Result<Tensor<3>, AnalysisError> {
        let pos = &options.pos_slice;
        match component {
            Component::AttnOut(layer) => self.attn_out(layer, pos),
            Component::MlpOut(layer) => self.mlp_out(layer, pos),
            component => self.get(written_by(component)[0], pos),
        }
    }
}

/// The hooks of which one gives what a sublayer wrote.
pub(crate) fn written_by(component: Component) -> Vec<HookPoint> {
    match component {
        Component::AttnOut(layer) => vec![HookPoint::AttnOut(layer), HookPoint::AttnZ(layer)],
        Component::MlpOut(layer) => vec![HookPoint::MlpOut(layer), HookPoint::MlpPost(layer)],
        Component::PosEmbed => vec![HookPoint::PosEmbed],
        _ => vec![HookPoint::Embed],
    }
}
