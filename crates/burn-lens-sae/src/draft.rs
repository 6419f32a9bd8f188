//! What a format makes of a dictionary's files, before weights are read.

use std::collections::BTreeMap;

use burn_lens_tensor::Weights;

use crate::{
    Place, Reader, SaeConfig, SaeError, SaeKind, SaeOptions, Settings, SparseAutoencoder, Whitening,
    fold_scaling_factor, fold_whitening,
};

/// What has to be folded into the weights after they are read.
#[derive(Clone, Debug, Default)]
pub(crate) enum Folding {
    #[default]
    Nothing,
    /// Inputs are multiplied by this; by what the user says if `None`.
    Scale(Option<f64>),
    /// Inputs are whitened by statistics in a file of their own.
    Whiten,
}

/// A dictionary whose weights are not read yet.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) kind: &'static SaeKind,
    pub(crate) config: SaeConfig,
    pub(crate) settings: Settings,
    /// Where weights lie that are not where SAELens has them.
    pub(crate) places: BTreeMap<String, Place>,
    /// Tensors that may be left over.
    pub(crate) ignored: Vec<String>,
    pub(crate) folding: Folding,
}

impl Draft {
    /// The dictionary.
    pub(crate) fn build(
        mut self,
        weights: &mut dyn Weights,
        options: &SaeOptions,
        whitening: Option<&Whitening>,
    ) -> Result<Box<dyn SparseAutoencoder>, SaeError> {
        if let Some(hook) = &options.hook_name {
            self.config.hook_name = Some(hook.clone());
        }
        if let Some(hook) = &options.hook_name_out {
            self.config.hook_name_out = Some(hook.clone());
        }
        let name = self.config.name.clone();
        let not_folded = |normalization, how| SaeError::NotFolded { name, normalization, how };
        let mut reader = Reader::new(weights, self.places, options).ignoring(self.ignored);
        let mut sae = self.kind.build(self.config, &self.settings, &mut reader)?;
        reader.finish()?;
        match self.folding {
            Folding::Nothing => {}
            Folding::Scale(known) => {
                let how = "give the factor, √d_in over the activations' mean norm (`scaling_factor`; \
                           `--scaling-factor` of the command), or 1 if it is folded into the weights already";
                let factor = options.scaling_factor.or(known);
                let factor = factor.ok_or_else(|| not_folded("expected_average_only_in", how))?;
                fold_scaling_factor(&mut *sae, factor)?;
            }
            Folding::Whiten => {
                let how = "put activation_whitening.safetensors beside them";
                let whitening = whitening.ok_or_else(|| not_folded("covariance_whitening", how))?;
                fold_whitening(&mut *sae, whitening)?;
            }
        }
        Ok(sae)
    }
}

/// Places from pairs.
pub(crate) fn places<const N: usize>(pairs: [(&str, Place); N]) -> BTreeMap<String, Place> {
    pairs.into_iter().map(|(name, place)| (name.to_owned(), place)).collect()
}
