//! Gemma 2: norms on what each half reads and on what it writes, soft-caps on scores and
//! logits, a sliding window on every other layer.
//!
//! Source: Gemma Team (2024); `modeling_gemma2.py`, transformers.

use super::{Architecture, gemma, llama};
use crate::{HfConfig, ModelConfig, ModelError, NormPlacement, Param, Source};

/// What transformers assumes where the key is absent.
const DEFAULT_KV_HEADS: usize = 4;
const DEFAULT_HEAD_DIM: usize = 256;

pub(super) struct Gemma2;

impl Architecture for Gemma2 {
    fn names(&self) -> &'static [&'static str] {
        &["Gemma2ForCausalLM"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        hf.only("use_bidirectional_attention", false, "only causal attention is implemented")?;
        hf.ignore(&["hidden_act", "sliding_window_size"]); // hidden_activation is what counts
        let n_heads = hf.size("num_attention_heads")?;
        let n_kv_heads = hf.find_size("num_key_value_heads")?.unwrap_or(DEFAULT_KV_HEADS);
        let d_head = hf.find_size("head_dim")?.unwrap_or(DEFAULT_HEAD_DIM);
        let mut config = llama::base(hf, n_heads, n_kv_heads, d_head, hf.act_fn("hidden_activation")?)?;
        let bias = hf.bool_or("attention_bias", false)?;
        (config.attention.qkv_bias, config.attention.out_bias) = (bias, bias);
        config.attention.scale = hf.find_f64("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt();
        config.attention.scores_soft_cap = hf.find_f64("attn_logit_softcapping")?;
        let window = hf.find_size("sliding_window")?;
        config.attention.windows = hf.windows(config.n_layers, window, |layer| layer % 2 == 0)?;
        config.logits_soft_cap = hf.find_f64("final_logit_softcapping")?;
        config.norm.placement = NormPlacement::Both;
        config.tied = hf.bool_or("tie_word_embeddings", true)?;
        Ok(config)
    }

    fn source(&self, config: &ModelConfig, param: Param) -> Source {
        let name = match param {
            Param::Ln1PostW(l) => format!("model.layers.{l}.post_attention_layernorm.weight"),
            Param::Ln2W(l) => format!("model.layers.{l}.pre_feedforward_layernorm.weight"),
            Param::Ln2PostW(l) => format!("model.layers.{l}.post_feedforward_layernorm.weight"),
            _ => return gemma::source(config, param),
        };
        Source { name, ..gemma::source(config, param) }
    }
}
