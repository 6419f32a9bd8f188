//! Dictionaries from disk, and to it.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Tensor, TensorData};
use burn_lens_io::{
    Checkpoint, DictionaryFiles, HubOptions, create_folder, read_safetensors, read_text, read_yaml_texts,
    resolve_dictionary, save_safetensors, torch_values, write_atomically,
};
use burn_lens_sae::{
    CrossLayerTranscoder, Crosscoder, SaeFiles, SaeOptions, Settings, SparseAutoencoder, Whitening, read_sae,
    sae_lens_config, sae_lens_tensors,
};
use burn_lens_tensor::{WeightError, burn::tensor::DType};

use crate::{DEMO, Error, demo, pretrained::check_dtype};

/// Loads a dictionary in any of [`SAE_FORMATS`](burn_lens_sae::SAE_FORMATS): a folder, or a weights
/// file beside its configuration; one of either on the hub, as `OWNER/REPO/PATH`; or
/// [`DEMO`](crate::DEMO), the one bundled with the bundled model. (A folder that is called `demo` is
/// reached as `./demo`.)
///
/// # Errors
///
/// If the files cannot be found, read or understood, or the device does not compute in the float type.
///
/// ```no_run
/// use burn_lens::{load_sae, prelude::*, sae::SaeOptions};
///
/// let device = DeviceSpec::cpu().open()?;
/// let name = "jbloom/GPT2-Small-SAEs-Reformatted/blocks.8.hook_resid_pre";
/// let sae = load_sae(name, &SaeOptions::on(&device))?;
/// assert_eq!(sae.config().d_in, 768);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn load_sae(name: impl AsRef<Path>, options: &SaeOptions) -> Result<Box<dyn SparseAutoencoder>, Error> {
    load_sae_with(name, options, &HubOptions::default())
}

/// As [`load_sae`], saying how to download.
///
/// # Errors
///
/// As [`load_sae`].
pub fn load_sae_with(
    name: impl AsRef<Path>,
    options: &SaeOptions,
    hub: &HubOptions,
) -> Result<Box<dyn SparseAutoencoder>, Error> {
    let name = name.as_ref();
    check(options)?;
    if name == Path::new(DEMO) {
        return demo::load_sae(options);
    }
    // A name that is no text is a path at most.
    let path = match name.to_str() {
        Some(name) => resolve_dictionary(name, hub)?,
        None => name.to_owned(),
    };
    let files = DictionaryFiles::find(&path)?;
    let mut weights = Checkpoint::open_file(&files.weights)?;
    let mut config = match &files.config {
        Some(config) => Some(Settings::parse(config.display().to_string(), &read_text(config)?)?),
        None => settings_in(&files.weights)?,
    };
    if let (Some(config), Some(scaler)) = (&mut config, &files.scaler) {
        let scaler = Settings::parse(scaler.display().to_string(), &read_text(scaler)?)?;
        if let Some(factor) = scaler.optional_number("scaling_factor")? {
            config.set("scaling_factor", factor);
        }
    }
    let whitening = match &files.whitening {
        Some(path) => Some(whitening(path, options)?),
        None => None,
    };
    // A path through a link can say more than where it leads, and the other way round: both are the user's.
    let origin = if path.is_dir() { path.display().to_string() } else { files.weights.display().to_string() };
    Ok(read_sae(SaeFiles { origin, config, weights: &mut weights, whitening }, options)?)
}

/// Loads a crosscoder: a weights file, or a folder that holds one.
///
/// # Errors
///
/// If the files cannot be read, or a weight is missing, surplus or of another shape.
pub fn load_crosscoder(path: impl AsRef<Path>, options: &SaeOptions) -> Result<Crosscoder, Error> {
    check(options)?;
    let files = DictionaryFiles::find(path)?;
    Ok(Crosscoder::read(&mut Checkpoint::open_file(&files.weights)?, options)?)
}

/// Loads a cross-layer transcoder: a folder of `W_enc_{layer}.safetensors` and
/// `W_dec_{layer}.safetensors`, and its `config.yaml`, if there is one.
///
/// # Errors
///
/// As [`load_crosscoder`].
pub fn load_cross_layer_transcoder(
    folder: impl AsRef<Path>,
    options: &SaeOptions,
) -> Result<CrossLayerTranscoder, Error> {
    check(options)?;
    let folder = folder.as_ref();
    let config = folder.join("config.yaml");
    let settings = if config.is_file() {
        Settings::new(config.display().to_string(), read_yaml_texts(&config)?)
    } else {
        Settings::default()
    };
    Ok(CrossLayerTranscoder::read(&mut Checkpoint::open_all(folder)?, &settings, options)?)
}

/// Refuses a float type that the device does not compute in.
fn check(options: &SaeOptions) -> Result<(), Error> {
    check_dtype(&options.device, options.dtype, format_args!("{:?}", options.device))
}

/// What a `.pt` says beside its tensors.
fn settings_in(weights: &Path) -> Result<Option<Settings>, Error> {
    if !weights.extension().is_some_and(|extension| extension == "pt" || extension == "pth") {
        return Ok(None);
    }
    let mut values = torch_values(weights)?;
    // OpenAI's files keep `k` one level down.
    if let Some(inner) = values.remove("activation_state_dict")
        && let Some(k) = inner.get("k")
    {
        values.insert("k".to_owned(), k.clone());
    }
    Ok(Some(Settings::new(weights.display().to_string(), values)))
}

fn whitening(path: &Path, options: &SaeOptions) -> Result<Whitening, Error> {
    let mut tensors = read_safetensors(path)?;
    let mut take = |name: &str| -> Result<TensorData, Error> {
        tensors.remove(name).ok_or_else(|| {
            let nearest = tensors.keys().cloned().collect();
            let (name, origin) = (name.to_owned(), path.display().to_string());
            burn_lens_sae::SaeError::from(WeightError::Missing { name, origin, nearest }).into()
        })
    };
    let (mean, matrix, inverse) = (take("mean")?, take("matrix")?, take("inverse_matrix")?);
    for (name, data, rank) in [("mean", &mean, 1), ("matrix", &matrix, 2), ("inverse_matrix", &inverse, 2)] {
        let (d, found) = (mean.shape()[0], data.shape().to_vec());
        if found != vec![d; rank] {
            let (name, origin) = (name.to_owned(), path.display().to_string());
            let wrong = WeightError::Shape { name, origin, expected: vec![d; rank], found };
            return Err(burn_lens_sae::SaeError::from(wrong).into());
        }
    }
    let dtype: DType = options.dtype.dtype();
    let on = (&options.device, dtype);
    Ok(Whitening {
        mean: Tensor::from_data(mean.convert_dtype(dtype), on),
        matrix: Tensor::from_data(matrix.convert_dtype(dtype), on),
        inverse: Tensor::from_data(inverse.convert_dtype(dtype), on),
    })
}

/// Saves a dictionary in SAELens's format: `cfg.json` and `sae_weights.safetensors`, each written to
/// a temporary name and renamed. The folder is made if it is not there.
///
/// # Errors
///
/// If a file cannot be written.
pub fn save_sae(sae: &dyn SparseAutoencoder, folder: impl AsRef<Path>) -> Result<(), Error> {
    let folder = folder.as_ref();
    create_folder(folder)?;
    let tensors = sae_lens_tensors(sae)?;
    save_safetensors(folder.join("sae_weights.safetensors"), tensors, BTreeMap::new())?;
    let config = sae_lens_config(sae);
    write_atomically(folder.join("cfg.json"), |file| file.write_all(config.as_bytes()))?;
    Ok(())
}
