//! Loading fixtures and running them.

use std::{borrow::Borrow, path::Path};

use burn::tensor::{Int, Tensor, TensorData};
use burn_lens::{
    io::Checkpoint,
    models::{architecture_config, load_parameters},
    prelude::*,
};
use burn_lens_testkit::{Golden, device, fixture, fixtures};

/// The model in `folder`, unprocessed.
pub(crate) fn load(folder: &Path, dtype: FloatType) -> HookedTransformer {
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    load_with(folder, &config, dtype)
}

/// The weights of `folder` under another configuration text.
pub(crate) fn load_with(folder: &Path, config: &str, dtype: FloatType) -> HookedTransformer {
    let name = folder.display();
    let (architecture, config) =
        architecture_config(config).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut weights = Checkpoint::open(folder).unwrap_or_else(|error| panic!("{name}: {error}"));
    let params = load_parameters(architecture, &config, &mut weights, dtype, &device())
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    HookedTransformer::new(config, params).unwrap()
}

/// The fixtures that hold a model and what it computes, but for the one that is refused.
pub(crate) fn whole_models() -> Vec<String> {
    fixtures(|name| {
        let has = |file| fixture(name).join(file).exists();
        has("config.json") && has("golden.safetensors") && name != "tl-shortformer"
    })
}

/// A fixture's model and golden values.
pub(crate) fn open(name: &str, dtype: FloatType) -> (HookedTransformer, Golden) {
    let folder = fixture(name);
    (load(&folder, dtype), Golden::open(folder.join("golden.safetensors")))
}

pub(crate) fn logits(model: &HookedTransformer, tokens: &Tensor<2, Int>) -> TensorData {
    run(model, tokens, Vec::new())
}

/// Logits of a run with hooks.
pub(crate) fn run(model: &HookedTransformer, tokens: &Tensor<2, Int>, hooks: Vec<Hook<'_>>) -> TensorData {
    let output = model.run_with_hooks(&tokens.into(), &RunOptions::default(), hooks).unwrap();
    output.into_logits().unwrap().into_data()
}

/// Everything that `names` select, or what always fires if there are none.
pub(crate) fn cached(model: &HookedTransformer, tokens: &Tensor<2, Int>, names: &[&str]) -> ActivationCache {
    let options = CacheOptions::names(names.iter().copied());
    model.run_with_cache(&tokens.into(), &RunOptions::default(), &options).unwrap().1
}

pub(crate) fn data(any: impl Borrow<AnyTensor>) -> TensorData {
    any.borrow().clone().into_data().unwrap()
}

/// `data` with another shape of as many values: TransformerLens flattens some activations.
pub(crate) fn reshaped(data: &TensorData, shape: Vec<usize>) -> TensorData {
    TensorData::new(data.iter::<f64>().collect::<Vec<_>>(), shape)
}
