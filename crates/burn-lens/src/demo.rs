//! The bundled model: a small language model that this project trains itself.

use burn::tensor::Device;
use burn_lens_io::{Tokenizer, safetensors_from_bytes};
use burn_lens_models::{HookedTransformer, architecture_config, load_parameters};
use burn_lens_tensor::{FloatType, MemoryWeights};

use crate::Error;

/// The name of the bundled model, wherever a model is asked for.
pub const DEMO: &str = "demo";

const CONFIG: &str = include_str!("../assets/demo/config.json");
const WEIGHTS: &[u8] = include_bytes!("../assets/demo/model.safetensors");
const TOKENIZER: &str = include_str!("../assets/demo/tokenizer.json");
const TOKENIZER_CONFIG: &str = include_str!("../assets/demo/tokenizer_config.json");

pub(crate) fn load(dtype: FloatType, device: &Device) -> Result<(HookedTransformer, Tokenizer), Error> {
    let (architecture, config) = architecture_config(CONFIG)?;
    let mut weights = MemoryWeights::new(safetensors_from_bytes(WEIGHTS)?);
    let params = load_parameters(architecture, &config, &mut weights, dtype, device)?;
    let tokenizer = Tokenizer::from_json(TOKENIZER, TOKENIZER_CONFIG)?;
    Ok((HookedTransformer::new(config, params)?, tokenizer))
}
