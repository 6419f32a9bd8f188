//! A checkpoint, loaded: model and tokenizer.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    path::Path,
    str::FromStr,
};

use burn::tensor::Device;
use burn_lens_io::{Checkpoint, HubOptions, Tokenizer, resolve, save_safetensors, write_atomically};
use burn_lens_models::{
    Control, HookedTransformer, ModelConfig, architecture_config, export, load_parameters,
    processing::{Step, UnknownStep},
    to_config_json,
};
use burn_lens_tensor::{DeviceSpec, FloatType, computes};

use crate::{DEMO, Error, demo};

/// Which processing to apply to the weights after loading.
///
/// TransformerLens's `from_pretrained` folds and centres by default; here the default is the
/// checkpoint as it is, so that activations are Hugging Face's too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Process {
    /// None: the checkpoint's own numbers.
    #[default]
    None,
    /// TransformerLens's default steps, as far as they are valid for the model.
    Default,
    /// These steps; an error if one is not valid for the model.
    Steps(Vec<Step>),
}

/// Text that names neither `none`, `default` nor steps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected none, default or a list of steps: {0}")]
pub struct UnknownProcess(#[from] UnknownStep);

impl FromStr for Process {
    type Err = UnknownProcess;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "default" => Ok(Self::Default),
            steps => {
                Ok(Self::Steps(steps.split(',').map(|step| step.trim().parse()).collect::<Result<_, _>>()?))
            }
        }
    }
}

impl Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Default => f.write_str("default"),
            Self::Steps(steps) => {
                let names: Vec<&str> = steps.iter().map(|step| step.name()).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

/// How to load a model. The default: `f32` on the CPU, unprocessed.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where to put it.
    pub device: DeviceSpec,
    /// The float type to hold and run it in.
    pub dtype: FloatType,
    /// Weight processing.
    pub process: Process,
    /// Random or shuffled weights in place of the trained ones.
    pub control: Control,
    /// The seed of the control.
    pub seed: u64,
    /// How to download, where the name is one on the hub.
    pub hub: HubOptions,
}

/// A loaded checkpoint.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// What was asked for: a folder, a hub name, or [`DEMO`].
    pub name: String,
    /// The model.
    pub model: HookedTransformer,
    /// Its tokenizer, where the checkpoint has one.
    pub tokenizer: Option<Tokenizer>,
    /// Processing steps that are not valid for this model and were left out, with the reason.
    pub left_out: Vec<(Step, String)>,
}

/// Loads a model: a Hugging Face or TransformerLens folder, a name on the hub, or [`DEMO`]. (A
/// folder that is called `demo` is reached as `./demo`.)
///
/// # Errors
///
/// If the model cannot be found, read or understood, or the device is not to be had.
///
/// ```
/// use burn_lens::prelude::*;
/// let lens = from_pretrained(burn_lens::DEMO, &LoadOptions::default())?;
/// assert!(lens.model.config().n_layers >= 2);
/// # Ok::<(), burn_lens::Error>(())
/// ```
pub fn from_pretrained(name: &str, options: &LoadOptions) -> Result<Pretrained, Error> {
    let device = options.device.open()?;
    check_dtype(&device, options.dtype, &options.device)?;
    if name == DEMO {
        let (model, mut tokenizer) = demo::load(options.dtype, &device)?;
        tokenizer.set_default_prepend_bos(model.config().default_prepend_bos);
        return finish(name, model, Some(tokenizer), options);
    }
    let folder = resolve(name, &options.hub)?;
    let model = load_model(&folder, options.dtype, &device)?;
    let mut tokenizer = if Tokenizer::is_in(&folder) { Some(Tokenizer::from_folder(&folder)?) } else { None };
    if let Some(tokenizer) = &mut tokenizer {
        tokenizer.set_default_prepend_bos(model.config().default_prepend_bos);
    }
    finish(name, model, tokenizer, options)
}

/// Refuses a float type that a device, of that name, does not compute in.
pub(crate) fn check_dtype(device: &Device, dtype: FloatType, name: impl Display) -> Result<(), Error> {
    if computes(device, dtype) {
        return Ok(());
    }
    Err(Error::UnsupportedDtype { dtype, device: name.to_string() })
}

fn load_model(folder: &Path, dtype: FloatType, device: &Device) -> Result<HookedTransformer, Error> {
    let mut checkpoint = Checkpoint::open(folder)?;
    let (architecture, config) = architecture_config(checkpoint.config()?)?;
    let params = load_parameters(architecture, &config, &mut checkpoint, dtype, device)?;
    Ok(HookedTransformer::new(config, params)?)
}

fn finish(
    name: &str,
    model: HookedTransformer,
    tokenizer: Option<Tokenizer>,
    options: &LoadOptions,
) -> Result<Pretrained, Error> {
    let model = match options.control {
        Control::Trained => model,
        control => {
            let params = control.apply(model.config(), model.parameters().clone(), options.seed)?;
            let config = ModelConfig { tied: false, ..model.config().clone() };
            HookedTransformer::new(config, params)?
        }
    };
    let (model, left_out) = match &options.process {
        Process::None => (model, Vec::new()),
        Process::Default => model.processed_by_default()?,
        Process::Steps(steps) => (model.processed(steps)?, Vec::new()),
    };
    Ok(Pretrained { name: name.to_owned(), model, tokenizer, left_out })
}

impl Pretrained {
    /// Saves the model in TransformerLens's format: `config.json` and `model.safetensors`.
    ///
    /// The folder must exist. Both files are written to a temporary name and renamed.
    ///
    /// # Errors
    ///
    /// If the format has no place for a weight, or a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), Error> {
        let folder = folder.as_ref();
        let mut tensors = Vec::new();
        for (name, tensor) in export(&self.model)? {
            tensors.push((name, tensor.into_data().map_err(burn_lens_hooks::RunError::from)?));
        }
        save_safetensors(folder.join("model.safetensors"), tensors, BTreeMap::new())?;
        let config = to_config_json(self.model.config())?;
        write_atomically(folder.join("config.json"), |file| file.write_all(config.as_bytes()))?;
        Ok(())
    }
}
