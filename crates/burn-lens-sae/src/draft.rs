//! What a format makes of a dictionary's files, before weights are read.

use std::collections::BTreeMap;

use burn_lens_tensor::Weights;

use crate::{
    Place, Reader, SaeConfig, SaeError, SaeKind, SaeOptions, Settings, SparseAutoencoder, Whitening,
    fold_scaling_factor, fold_w_dec_norm, fold_whitening,
};

/// What has to be folded into the weights after they are read.
#[derive(Clone, Debug)]
pub(crate) enum Fold {
    /// Inputs are multiplied by this; by what the user says if `None`.
    Scale(Option<f64>),
    /// Inputs are whitened by statistics in a file of their own.
    Whitening,
    /// Activations are meant for a decoder whose rows have norm 1.
    DecoderNorms,
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
    /// In this order.
    pub(crate) folds: Vec<Fold>,
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
        if self.config.head.is_some()
            && (self.config.is_transcoder() || self.kind.name.ends_with("transcoder"))
        {
            return Err(SaeError::Refused {
                change: "reading one head (`hook_head_index`)",
                kind: self.kind.name,
                reason: "which head of the activation that it writes is meant, nothing says",
            });
        }
        let name = self.config.name.clone();
        let not_folded = |normalization, how| SaeError::NotFolded { name: name.clone(), normalization, how };
        let mut reader = Reader::new(weights, self.places, options).ignoring(self.ignored);
        let mut sae = self.kind.build(self.config, &self.settings, &mut reader)?;
        reader.finish()?;
        for fold in &self.folds {
            match fold {
                Fold::Scale(known) => {
                    let how = "give the factor, √d_in over the activations' mean norm (`scaling_factor`; \
                               `--scaling-factor` of the command), or 1 if it is folded into the weights already";
                    let factor = options.scaling_factor.or(*known);
                    let factor = factor.ok_or_else(|| not_folded("expected_average_only_in", how))?;
                    fold_scaling_factor(&mut *sae, factor)?;
                }
                Fold::Whitening => {
                    let how = "put activation_whitening.safetensors beside them";
                    let whitening = whitening.ok_or_else(|| not_folded("covariance_whitening", how))?;
                    fold_whitening(&mut *sae, whitening)?;
                }
                Fold::DecoderNorms => fold_w_dec_norm(&mut *sae)?,
            }
        }
        Ok(sae)
    }
}

/// The name of the one threshold of a dictionary trained with BatchTopK. In training, the largest
/// activations of a whole batch are kept; the threshold is the running mean of the smallest of them,
/// by which a token is coded without its batch.
///
/// # Errors
///
/// If there is none, or it is negative, as it is until training has reached the step from which it is
/// known.
pub(crate) fn batch_threshold(weights: &mut dyn Weights, name: &str) -> Result<String, SaeError> {
    let known = match weights.shape(name) {
        None => false,
        Some(shape) => weights.get(name, &shape)?.iter::<f64>().all(|threshold| threshold >= 0.0),
    };
    known.then(|| name.to_owned()).ok_or_else(|| SaeError::Untold {
        origin: weights.origin(),
        what: "above which threshold a feature is active: in training, that depended on the batch",
        how: "take a later checkpoint, or what was saved for inference",
    })
}

/// Places from pairs.
pub(crate) fn places<const N: usize>(pairs: [(&str, Place); N]) -> BTreeMap<String, Place> {
    pairs.into_iter().map(|(name, place)| (name.to_owned(), place)).collect()
}
