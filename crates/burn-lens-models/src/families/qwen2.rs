//! Qwen 2 and 2.5: Llama's layout with biases on queries, keys and values.
//!
//! Source: Yang et al. (2024); `modeling_qwen2.py`, transformers.

use super::{Architecture, llama};
use crate::{HfConfig, ModelConfig, ModelError, Param, Source};

/// What transformers assumes where the key is absent.
const DEFAULT_KV_HEADS: usize = 32;
const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;

pub(super) struct Qwen2;

impl Architecture for Qwen2 {
    fn names(&self) -> &'static [&'static str] {
        &["Qwen2ForCausalLM"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        hf.only("use_mrope", false, "multimodal rotary positions are not implemented")?;
        let n_heads = hf.size("num_attention_heads")?;
        let n_kv_heads = hf.find_size("num_key_value_heads")?.unwrap_or(DEFAULT_KV_HEADS);
        let d_head = hf.size("hidden_size")? / n_heads;
        let mut config = llama::base(hf, n_heads, n_kv_heads, d_head, hf.act_fn("hidden_act")?)?;
        config.attention.qkv_bias = true;
        config.attention.windows = windows(hf, config.n_layers)?;
        config.default_prepend_bos = false;
        Ok(config)
    }

    fn source(&self, config: &ModelConfig, param: Param) -> Source {
        llama::source(config, param)
    }
}

/// Layers from `max_window_layers` on slide, where `use_sliding_window` says so at all.
pub(super) fn windows(hf: &HfConfig, n_layers: usize) -> Result<Vec<Option<usize>>, ModelError> {
    let window = hf.find_size("sliding_window")?;
    let window = if hf.bool_or("use_sliding_window", false)? { window } else { None };
    let first = hf.find_usize("max_window_layers")?.unwrap_or(DEFAULT_MAX_WINDOW_LAYERS);
    hf.windows(n_layers, window, |layer| layer >= first)
}
