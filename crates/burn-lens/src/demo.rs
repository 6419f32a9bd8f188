//! The bundled model, a small language model that this project trains itself, and a dictionary of
//! its features, trained likewise.

use burn::tensor::Device;
use burn_lens_io::{Tokenizer, safetensors_from_bytes};
use burn_lens_models::{HookedTransformer, architecture_config, load_parameters};
use burn_lens_sae::{SaeFiles, SaeOptions, Settings, SparseAutoencoder, read_sae};
use burn_lens_tensor::{FloatType, MemoryWeights};

use crate::Error;

/// The name of the bundled model, wherever a model is asked for.
pub const DEMO: &str = "demo";

const CONFIG: &str = include_str!("../assets/demo/config.json");
const WEIGHTS: &[u8] = include_bytes!("../assets/demo/model.safetensors");
const TOKENIZER: &str = include_str!("../assets/demo/tokenizer.json");
const TOKENIZER_CONFIG: &str = include_str!("../assets/demo/tokenizer_config.json");

const SAE_CONFIG: &str = include_str!("../assets/demo/sae/cfg.json");
const SAE_WEIGHTS: &[u8] = include_bytes!("../assets/demo/sae/sae_weights.safetensors");

pub(crate) fn load_sae(options: &SaeOptions) -> Result<Box<dyn SparseAutoencoder>, Error> {
    let config = Some(Settings::parse(DEMO, SAE_CONFIG)?);
    let mut weights = MemoryWeights::new(safetensors_from_bytes(SAE_WEIGHTS)?);
    let files = SaeFiles { origin: DEMO.to_owned(), config, weights: &mut weights, whitening: None };
    Ok(read_sae(files, options)?)
}

pub(crate) fn load(dtype: FloatType, device: &Device) -> Result<(HookedTransformer, Tokenizer), Error> {
    let (architecture, config) = architecture_config(CONFIG)?;
    let mut weights = MemoryWeights::new(safetensors_from_bytes(WEIGHTS)?);
    let params = load_parameters(architecture, &config, &mut weights, dtype, device)?;
    let tokenizer = Tokenizer::from_json(TOKENIZER, TOKENIZER_CONFIG)?;
    Ok((HookedTransformer::new(config, params)?, tokenizer))
}
