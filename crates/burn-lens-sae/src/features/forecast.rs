//! What a run will cost, before it starts.

use std::time::Instant;

use burn_lens_tensor::burn::tensor::{Device, Tensor};
use serde::Serialize;

use super::{StoreError, collect::FeatureRun};

/// What a run will cost. Counts of operations are exact for the products of matrices that it needs;
/// where the cost depends on how sparse activations are, [`Forecast::ACTIVE`] are assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// Operations of the model and the dictionaries over all tokens.
    pub run_operations: u64,
    /// Operations of the logit tables.
    pub logit_operations: u64,
    /// Operations of the window effects, at most: as if every token were shown.
    pub effect_operations: u64,
    /// Bytes that go into the store.
    pub stored_bytes: u64,
    /// Bytes of memory, about, beside the weights and what one batch takes.
    pub memory_bytes: u64,
}

impl Forecast {
    /// How many features are assumed to be active at a token.
    pub const ACTIVE: u64 = 64;

    /// The forecast for a run.
    #[must_use]
    pub fn of(run: &FeatureRun<'_>) -> Self {
        let (key, dims) = (run.key(), run.model.dims());
        let n_tokens = (key.n_prompts * key.n_positions) as u64;
        let features = key.features().unwrap_or_default();
        let (n_asked, n_computed) = (features.len() as u64, run.n_computed(&features));
        let [d_model, d_in, d_vocab] = [dims.d_model, key.d_in, dims.d_vocab_out].map(|size| size as u64);
        let attention = 2 * (dims.n_heads + dims.n_kv_heads) * dims.d_head;
        let layers = match (key.d_resid, run.source.hook_in().layer()) {
            (0, Some(layer)) => layer + 1,
            _ => dims.n_layers,
        };
        // Three matrices if the MLP is gated; two otherwise.
        let weights = (layers * dims.d_model * (attention + 3 * dims.d_mlp)) as u64;
        let encoders = d_in * (n_computed + key.n_features_b) as u64;
        let shown = (n_asked * run.options.shown_per_feature()).min(n_tokens);
        let codes = 8 * (1 + u64::from(key.sae_b.is_some())) * Self::ACTIVE.min(key.n_features as u64);
        let sums = 16 * d_in * key.n_correlated().map_or(0, |n| n as u64);
        let has_logits = u64::from(key.d_resid > 0);
        Self {
            run_operations: 2 * n_tokens * (weights + encoders),
            logit_operations: 2 * has_logits * n_asked * d_model * d_vocab,
            effect_operations: 2 * has_logits * shown * d_model * d_vocab,
            stored_bytes: n_tokens * (5 + 8 + codes + 4 * key.d_resid as u64) + sums,
            memory_bytes: sums + run.options.memory + 5 * n_tokens,
        }
    }

    /// How long it takes at a rate from [`operations_per_second`].
    #[must_use]
    pub fn seconds(&self, rate: f64) -> f64 {
        (self.run_operations + self.logit_operations + self.effect_operations) as f64 / rate
    }
}

/// How many operations a second a product of matrices does on a device: a short measurement.
///
/// # Errors
///
/// If the device fails.
pub fn operations_per_second(device: &Device) -> Result<f64, StoreError> {
    const SIZE: usize = 512;
    let x = Tensor::<2>::ones([SIZE, SIZE], device);
    let once = || -> Result<f64, StoreError> {
        let begun = Instant::now();
        x.clone().matmul(x.clone()).try_into_data()?;
        Ok(begun.elapsed().as_secs_f64())
    };
    once()?; // the first pays for what is set up
    let best = [once()?, once()?, once()?].into_iter().fold(f64::INFINITY, f64::min);
    Ok(2.0 * (SIZE as f64).powi(3) / best.max(1e-9))
}
