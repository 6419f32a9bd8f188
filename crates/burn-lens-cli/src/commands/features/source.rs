//! What has features: a dictionary or plain vectors, from what the command line names.

use std::path::Path;

use burn_lens::{
    Error as LensError, Pretrained,
    burn::tensor::{DType, Tensor},
    hooks::{HookPoint, HookedModel as _, RunError, parse_act_name},
    io::read_safetensors,
    sae::{
        SaeOptions,
        features::{FeatureSource, SaeFeatures, Vectors},
    },
};

use super::setup::Setup;
use crate::{error::CliError, load::load_sae, progress::Progress};

/// A dictionary, or vectors.
pub(super) type Source = Box<dyn FeatureSource>;

/// What the features are of.
pub(super) fn open(setup: &Setup, lens: &Pretrained, progress: &Progress) -> Result<Source, CliError> {
    let n_layers = lens.model.dims().n_layers;
    let hook = setup.hook.as_ref().map(|hook| parse_act_name(hook, None, None, n_layers));
    let hook: Option<HookPoint> = hook.transpose().map_err(RunError::from)?;
    match (&setup.vectors, hook) {
        (Some(path), Some(hook)) => Ok(Box::new(vectors(path, hook, lens)?)),
        _ => sae(setup.sae.as_deref().unwrap_or_default(), hook, lens, progress),
    }
}

/// What they are correlated with, if anything.
pub(super) fn open_b(
    setup: &Setup,
    lens: &Pretrained,
    progress: &Progress,
) -> Result<Option<Source>, CliError> {
    setup.sae_b.as_deref().map(|name| sae(name, None, lens, progress)).transpose()
}

/// The tensor `vectors` of a file.
fn vectors(path: &Path, hook: HookPoint, lens: &Pretrained) -> Result<Vectors, CliError> {
    let mut tensors = read_safetensors(path)?;
    let found: Vec<String> = tensors.keys().cloned().collect();
    let data = tensors.remove("vectors");
    let data = data.ok_or_else(|| CliError::NoTensor { path: path.to_owned(), tensor: "vectors", found })?;
    let shape = data.shape().to_vec();
    if shape.len() != 2 || shape.contains(&0) || !data.dtype().is_float() {
        let dtype = format!("{:?}", data.dtype()).to_lowercase();
        return Err(CliError::VectorsShape { path: path.to_owned(), dtype, shape });
    }
    let vectors = Tensor::<2>::from_data(data.convert::<f32>(), (&lens.model.device(), DType::F32));
    let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    Ok(Vectors { name, labels: Vec::new(), vectors, hook })
}

/// A dictionary, called after the last part of its path where it says no name.
fn sae(
    name: &str,
    hook: Option<HookPoint>,
    lens: &Pretrained,
    progress: &Progress,
) -> Result<Source, CliError> {
    let hook_name = hook.map(|hook| hook.to_string());
    let options = SaeOptions { hook_name, ..SaeOptions::on(&lens.model.device()) };
    let mut sae = load_sae(name, &options, progress)?;
    let called = &mut sae.base_mut().config.name;
    if let Some(last) = Path::new(&*called).file_name() {
        *called = last.to_string_lossy().into_owned();
    }
    Ok(Box::new(SaeFeatures::in_model(sae, &lens.model).map_err(LensError::from)?))
}
