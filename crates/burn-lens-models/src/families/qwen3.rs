//! Qwen 3: Llama's layout with a norm on each head's query and key.
//!
//! Source: Yang et al. (2025); `modeling_qwen3.py`, transformers.

use super::{Architecture, llama, qwen2};
use crate::{HfConfig, ModelConfig, ModelError, Param, Source};

/// What transformers assumes where the key is absent.
const DEFAULT_KV_HEADS: usize = 32;
const DEFAULT_HEAD_DIM: usize = 128;

pub(super) struct Qwen3;

impl Architecture for Qwen3 {
    fn names(&self) -> &'static [&'static str] {
        &["Qwen3ForCausalLM"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        let n_heads = hf.size("num_attention_heads")?;
        let n_kv_heads = hf.find_size("num_key_value_heads")?.unwrap_or(DEFAULT_KV_HEADS);
        let d_head = hf.find_size("head_dim")?.unwrap_or(DEFAULT_HEAD_DIM);
        let mut config = llama::base(hf, n_heads, n_kv_heads, d_head, hf.act_fn("hidden_act")?)?;
        let bias = hf.bool_or("attention_bias", false)?;
        (config.attention.qkv_bias, config.attention.out_bias) = (bias, bias);
        config.attention.qk_norm_eps = Some(config.norm.eps);
        config.attention.windows = qwen2::windows(hf, config.n_layers)?;
        config.default_prepend_bos = false;
        Ok(config)
    }

    fn source(&self, config: &ModelConfig, param: Param) -> Source {
        llama::source(config, param)
    }
}
