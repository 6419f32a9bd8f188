//! What a run was started with, kept beside its activations so that shards can be merged.

use std::path::PathBuf;

use burn_lens::{
    Process,
    models::Control,
    sae::features::{FeatureOptions, TensorStore},
    tensor::{DeviceSpec, kernels::Products},
};
use serde::{Deserialize, Serialize};

use super::args::RunArgs;
use crate::{args::ModelArgs, error::CliError};

/// The entry of the store.
const NAME: &str = "setup";

/// What a run was started with, as text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) model: String,
    pub(crate) sae: Option<String>,
    pub(crate) vectors: Option<PathBuf>,
    pub(crate) hook: Option<String>,
    pub(crate) sae_b: Option<String>,
    pub(crate) options: FeatureOptions,
    device: String,
    dtype: String,
    /// Runs of earlier versions do not say.
    #[serde(default = "exact")]
    products: String,
    process: String,
    control: String,
    seed: u64,
    revision: Option<String>,
}

fn exact() -> String {
    Products::F32.to_string()
}

impl Setup {
    pub(crate) fn of(args: &RunArgs, options: &FeatureOptions) -> Self {
        let model = &args.model;
        Self {
            model: args.name.clone(),
            sae: args.sae.clone(),
            vectors: args.vectors.clone(),
            hook: args.hook.clone(),
            sae_b: args.sae_b.clone(),
            options: options.clone(),
            device: model.device.to_string(),
            dtype: model.dtype.to_string(),
            products: model.products.to_string(),
            process: model.process.to_string(),
            control: model.control.to_string(),
            seed: model.seed,
            revision: model.revision.clone(),
        }
    }

    /// What the model was called, with whatever makes it another one.
    pub(crate) fn model_name(&self) -> String {
        let mut name = self.model.clone();
        for (what, value, plain) in
            [("processed", &self.process, "none"), ("weights", &self.control, "trained")]
        {
            if value != plain {
                name = format!("{name} ({what}: {value})");
            }
        }
        name
    }

    pub(crate) fn save(&self, store: &mut dyn TensorStore) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(self).map_err(|error| CliError::Setup(error.into()))?;
        store.put_text(NAME, &text).map_err(CliError::Setup)
    }

    pub(crate) fn load(store: &dyn TensorStore) -> Result<Self, CliError> {
        let text = store.get_text(NAME).map_err(CliError::Setup)?;
        let text = text.ok_or_else(|| {
            CliError::Setup("there is no setup.json: it holds no run of `burn-lens features run`".into())
        })?;
        serde_json::from_str(&text).map_err(|error| CliError::Setup(error.into()))
    }

    /// The model's part as arguments.
    pub(crate) fn model_args(&self) -> Result<ModelArgs, CliError> {
        fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, CliError>
        where
            T::Err: std::error::Error + Send + Sync + 'static,
        {
            text.parse().map_err(|error: T::Err| CliError::Setup(error.into()))
        }
        Ok(ModelArgs {
            device: parsed::<DeviceSpec>(&self.device)?,
            dtype: parsed(&self.dtype)?,
            products: parsed::<Products>(&self.products)?,
            process: parsed::<Process>(&self.process)?,
            control: parsed::<Control>(&self.control)?,
            seed: self.seed,
            revision: self.revision.clone(),
        })
    }
}
