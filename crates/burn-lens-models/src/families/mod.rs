//! The architectures that burn-lens loads: one file and one line of [`ARCHITECTURES`] each.

mod export;
mod gemma;
mod gemma2;
mod gpt2;
mod gpt_j;
mod gpt_neo;
mod gpt_neox;
mod llama;
mod mistral;
mod opt;
mod phi3;
mod qwen2;
mod qwen3;
mod transformer_lens;

use std::fmt;

use burn_lens_tensor::nearest;

use crate::{HfConfig, ModelConfig, ModelError, Param, Source};

pub use export::{export, to_config_json};

/// How checkpoints of one class become a model.
pub trait Architecture: Sync {
    /// The classes that `config.json` names.
    fn names(&self) -> &'static [&'static str];

    /// What the model is made of. The caller fails on any key that was neither read here nor
    /// ignored by [`HfConfig`].
    ///
    /// # Errors
    ///
    /// If a key is missing or has a value that is not supported.
    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError>;

    /// Where `param`, which belongs to a model of `config`, lies in the checkpoint.
    fn source(&self, config: &ModelConfig, param: Param) -> Source;

    /// A tensor's name in this checkpoint: some were saved without the outer model's prefix.
    fn stored_name(&self, name: &str, names: &[String]) -> String {
        let known = |name: &str| names.binary_search_by(|candidate| candidate.as_str().cmp(name)).is_ok();
        if known(name) {
            return name.to_owned();
        }
        match name.split_once('.') {
            Some((_, bare)) if known(bare) => bare.to_owned(),
            _ => name.to_owned(),
        }
    }

    /// Whether a tensor of the checkpoint is known to be of no use: buffers, a tied head.
    fn ignores(&self, config: &ModelConfig, name: &str) -> bool {
        let tied = self.source(config, Param::WU).name == self.source(config, Param::Embed).name;
        let buffer =
            [".attn.bias", ".masked_bias", ".attention.bias", ".rotary_emb.inv_freq", ".attn.attention.bias"];
        buffer.iter().any(|suffix| name.ends_with(suffix))
            || (tied && (name == "lm_head.weight" || name == "embed_out.weight"))
    }
}

impl fmt::Debug for dyn Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Architecture({})", self.names().join(", "))
    }
}

/// Every architecture. Documentation, errors and completeness tests derive from this slice.
pub static ARCHITECTURES: &[&dyn Architecture] = &[
    &gpt2::Gpt2,
    &gpt_neo::GptNeo,
    &gpt_neox::GptNeoX,
    &gpt_j::GptJ,
    &opt::Opt,
    &llama::Llama,
    &mistral::Mistral,
    &qwen2::Qwen2,
    &qwen3::Qwen3,
    &gemma::Gemma,
    &gemma2::Gemma2,
    &phi3::Phi3,
    &transformer_lens::TransformerLens,
];

/// The architecture of a `config.json` and what the model is made of.
///
/// ```
/// # use burn_lens_models::architecture_config;
/// let error = architecture_config(r#"{"architectures": ["LamaForCausalLM"]}"#).unwrap_err();
/// assert!(error.to_string().contains("did you mean LlamaForCausalLM"));
/// ```
///
/// # Errors
///
/// If the text is no configuration, its class is unknown, or a key is missing, not supported
/// or not understood.
pub fn architecture_config(text: &str) -> Result<(&'static dyn Architecture, ModelConfig), ModelError> {
    let hf = HfConfig::parse(text)?;
    let name = hf.architecture();
    let known = || ARCHITECTURES.iter().flat_map(|architecture| architecture.names()).copied();
    let architecture = ARCHITECTURES
        .iter()
        .find(|architecture| architecture.names().contains(&name))
        .ok_or_else(|| ModelError::UnknownArchitecture {
            name: name.to_owned(),
            nearest: nearest(name, known()),
            known: known().collect(),
        })?;
    let config = architecture.config(&hf)?;
    hf.check_all_read()?;
    config.check()?;
    Ok((*architecture, config))
}
