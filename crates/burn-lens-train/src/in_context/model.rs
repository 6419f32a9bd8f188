//! The model that learns in context.

use burn_lens_models::{
    AttentionConfig, BlockLayout, Interface, MlpBias, MlpConfig, MlpKind, ModelConfig, NormConfig,
    NormPlacement, Readers,
    components::{ActFn, NormKind, Positions},
};
use serde::{Deserialize, Serialize};

use super::Problem;
use crate::TrainError;

/// How large a model is. The default is the notebook's: three blocks of two heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSize {
    /// Blocks.
    pub n_layers: usize,
    /// Heads in a block; a divisor of `d_model`.
    pub n_heads: usize,
    /// Width of the residual stream.
    pub d_model: usize,
}

impl Default for ModelSize {
    fn default() -> Self {
        Self { n_layers: 3, n_heads: 2, d_model: 64 }
    }
}

impl Problem {
    /// A GPT-2 for this problem: layer norm, learned positions, an MLP of `4 · d_model`.
    ///
    /// # Errors
    ///
    /// If a size is out of all bounds, or the heads do not divide the width.
    pub fn model(&self, size: ModelSize) -> Result<ModelConfig, TrainError> {
        let ModelSize { n_layers, n_heads, d_model } = size;
        let sizes = [("n_layers", n_layers, 1024, "1 to 1024"), ("d_model", d_model, 65536, "1 to 65536")];
        if let Some((key, found, _, expected)) =
            sizes.into_iter().find(|&(_, size, most, _)| !(1..=most).contains(&size))
        {
            return Err(TrainError::Config { key, expected, found: found as f64 });
        }
        if n_heads == 0 || !d_model.is_multiple_of(n_heads) {
            let found = n_heads as f64;
            return Err(TrainError::Config { key: "n_heads", expected: "a divisor of d_model", found });
        }
        let config = ModelConfig {
            architecture: "HookedTransformer".to_owned(),
            n_layers,
            d_model,
            n_ctx: self.positions(),
            interface: Interface::Vectors(Readers::plain(self.d_in(), self.d_out())),
            d_vocab: 0,
            d_vocab_out: 0,
            attention: AttentionConfig {
                qkv_bias: true,
                out_bias: true,
                ..AttentionConfig::plain(n_heads, d_model / n_heads, n_layers)
            },
            mlp: Some(MlpConfig {
                d_mlp: 4 * d_model,
                act_fn: ActFn::GeluTanh,
                kind: MlpKind::Plain,
                bias: MlpBias::BehindProduct,
            }),
            norm: NormConfig::plain(NormKind::Layer, 1e-5, NormPlacement::Pre),
            positions: Positions::Learned,
            layout: BlockLayout::Sequential,
            logits_soft_cap: None,
            unembed_bias: false,
            tied: false,
            default_prepend_bos: false,
        };
        config.check()?;
        Ok(config)
    }
}
