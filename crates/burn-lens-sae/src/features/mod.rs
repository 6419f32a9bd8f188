//! What each feature means: where it is active, what it does to the prediction, what it goes with.
//!
//! [`get_feature_data`] does it all in memory. For more tokens than that, and for several machines, the
//! steps are apart: [`collect`] runs the model and the dictionary once over a shard of the prompts, into
//! a [`TensorStore`]; [`build`] makes [`FeatureData`] of the shards. The result does not depend on
//! the batch size, the shards or the number of threads.
//!
//! Source: `data_fns.py`, sae_visualizer (McDougall 2024), and its successors sae_vis and
//! SAEDashboard. `docs/feature-data.md` says where this differs from them, and why.

mod attribution;
mod build;
mod collect;
mod correlate;
mod data;
mod decoder;
mod draft;
mod effects;
mod error;
mod forecast;
pub mod formats;
mod histogram;
mod kernels;
mod logits;
mod neurons;
mod options;
mod parts;
mod prompt;
mod readout;
mod rows;
mod sae;
mod segment;
mod select;
mod source;
mod store;
mod sums;
mod threads;
mod tokens;

pub use build::build;
pub use collect::{FeatureRun, collect, shard};
pub use data::{
    Aligned, Correlated, FeatureData, FeatureKind, FeatureSet, FeatureStatistics, GroupKind, Hover,
    LogitEffects, RunInfo, SCHEMA, SequenceData, SequenceGroup, SourceAttribution, TokenText, TokenValue,
};
pub use error::FeatureError;
pub use forecast::{Forecast, operations_per_second};
pub use histogram::{Histogram, Quantiles};
pub use options::{Correlate, FeatureChoice, FeatureOptions, Intervals, SequenceOptions, Window};
pub use parts::{Manifest, RunKey, stored_run};
pub use prompt::{PromptFeature, PromptMetric, prompt_features};
pub use rows::SparseRows;
pub use sae::SaeFeatures;
pub use source::{FeatureSource, Vectors};
pub use store::{MemoryStore, StoreError, TensorStore, TieredStore};
pub use tokens::TokenTable;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is under way.
    pub stage: Stage,
    /// How much of it is done.
    pub done: usize,
    /// How much there is: prompts of a run, features of the rest.
    pub total: usize,
}

/// A stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The model and the dictionaries, over the tokens.
    Run,
    /// Statistics, correlations and the choice of sequences.
    Select,
    /// Logit tables.
    Logits,
    /// Effects on predictions at the tokens shown.
    Effects,
}

/// The data of features: the model and the dictionaries run once over the tokens, in memory.
///
/// # Errors
///
/// If the model or a dictionary fails, or they do not fit together.
///
/// ```
/// use burn_lens_hooks::{HookPoint, HookedModel, Firing, Hooks, Input, ModelDims, Output, RunError, RunOptions};
/// use burn_lens_sae::features::{FeatureOptions, FeatureRun, TokenTable, Vectors, get_feature_data};
/// use burn_lens_tensor::{DeviceSpec, burn::tensor::{Device, Tensor}};
///
/// // A model that writes each token's id into its residual stream.
/// struct Ids(Device);
/// impl HookedModel for Ids {
///     fn dims(&self) -> ModelDims {
///         ModelDims { n_layers: 1, d_model: 1, ..ModelDims::default() }
///     }
///     fn firing(&self) -> Firing {
///         Firing { always: vec![HookPoint::ResidPost(0)], ..Firing::default() }
///     }
///     fn device(&self) -> Device {
///         self.0.clone()
///     }
///     fn forward(&self, input: &Input, _: &RunOptions, hooks: &mut Hooks<'_>) -> Result<Output, RunError> {
///         let Input::Tokens(tokens) = input else { unreachable!() };
///         hooks.at(HookPoint::ResidPost(0), tokens.clone().float().unsqueeze_dim::<3>(2));
///         Ok(Output::default())
///     }
/// }
///
/// let device = DeviceSpec::cpu().open()?;
/// let model = Ids(device.clone());
/// let source = Vectors {
///     name: "the id".to_owned(),
///     labels: vec!["id".to_owned()],
///     vectors: Tensor::ones([1, 1], &device),
///     hook: HookPoint::ResidPost(0),
/// };
/// let tokens = TokenTable::new(&[vec![0, 3, 1, 2]], None)?;
/// let options = FeatureOptions::default();
/// let run = FeatureRun { model: &model, model_name: "ids", source: &source, source_b: None, tokens: &tokens, options: &options };
/// let set = get_feature_data(&run)?;
/// assert_eq!(set.features[0].statistics.max, 3.0);
/// assert_eq!(set.features[0].statistics.density(), 0.75);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn get_feature_data(run: &FeatureRun<'_>) -> Result<FeatureSet, FeatureError> {
    let mut store = MemoryStore::default();
    collect(run, 0..run.tokens.n_prompts(), &mut store, &mut |_| ())?;
    let mut features = Vec::new();
    let mut sink = |data| {
        features.push(data);
        Ok(())
    };
    let info = build(run, &[&store], &mut sink, &mut |_| ())?;
    Ok(FeatureSet { schema: SCHEMA, run: info, features, ..FeatureSet::default() })
}
