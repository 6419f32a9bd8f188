//! Mistral: Llama's layout, with a sliding window on every layer in v0.1.
//!
//! Source: Jiang et al. (2023); `modeling_mistral.py`, transformers.

use super::{Architecture, llama};
use crate::{HfConfig, ModelConfig, ModelError, Param, Source};

/// What transformers assumes where the key is absent (null means no window).
const DEFAULT_WINDOW: usize = 4096;
const DEFAULT_KV_HEADS: usize = 8;

pub(super) struct Mistral;

impl Architecture for Mistral {
    fn names(&self) -> &'static [&'static str] {
        &["MistralForCausalLM"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        let n_heads = hf.size("num_attention_heads")?;
        let n_kv_heads = hf.find_size("num_key_value_heads")?.unwrap_or(DEFAULT_KV_HEADS);
        let d_head = hf.find_size("head_dim")?.unwrap_or(hf.size("hidden_size")? / n_heads);
        let mut config = llama::base(hf, n_heads, n_kv_heads, d_head, hf.act_fn("hidden_act")?)?;
        let window = if hf.contains("sliding_window") {
            hf.find_size("sliding_window")?
        } else {
            Some(DEFAULT_WINDOW)
        };
        config.attention.windows = vec![window; config.n_layers];
        Ok(config)
    }

    fn source(&self, config: &ModelConfig, param: Param) -> Source {
        llama::source(config, param)
    }
}
