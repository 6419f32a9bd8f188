//! Gemma 1: Llama's layout with a scaled embedding, norms stored less 1, and gated tanh GELU.
//!
//! Source: Gemma Team (2024); `modeling_gemma.py`, transformers.

use super::{Architecture, llama};
use crate::{HfConfig, Layout, ModelConfig, ModelError, Param, Source, components::ActFn};

/// What transformers assumes where the key is absent.
const DEFAULT_KV_HEADS: usize = 16;
const DEFAULT_HEAD_DIM: usize = 256;

pub(super) struct Gemma;

impl Architecture for Gemma {
    fn names(&self) -> &'static [&'static str] {
        &["GemmaForCausalLM"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        hf.only("use_bidirectional_attention", false, "only causal attention is implemented")?;
        let n_heads = hf.size("num_attention_heads")?;
        let n_kv_heads = hf.find_size("num_key_value_heads")?.unwrap_or(DEFAULT_KV_HEADS);
        let d_head = hf.find_size("head_dim")?.unwrap_or(DEFAULT_HEAD_DIM);
        // The first release wrote `"hidden_act": "gelu"` and computed the tanh form; so does
        // transformers to this day.
        let act_fn = if hf.find_str("hidden_activation")?.is_some() {
            hf.act_fn("hidden_activation")?
        } else {
            ActFn::GeluTanh
        };
        hf.ignore(&["hidden_act"]);
        let mut config = llama::base(hf, n_heads, n_kv_heads, d_head, act_fn)?;
        let bias = hf.bool_or("attention_bias", false)?;
        (config.attention.qkv_bias, config.attention.out_bias) = (bias, bias);
        config.tied = hf.bool_or("tie_word_embeddings", true)?;
        Ok(config)
    }

    fn source(&self, config: &ModelConfig, param: Param) -> Source {
        source(config, param)
    }
}

/// Llama's names, with the embedding scaled by `sqrt(d_model)` and norms stored less 1.
pub(super) fn source(config: &ModelConfig, param: Param) -> Source {
    let source = llama::source(config, param);
    let layout = match param {
        Param::Embed => Layout::Scaled((config.d_model as f64).sqrt()),
        Param::Ln1W(_) | Param::Ln2W(_) | Param::Ln1PostW(_) | Param::Ln2PostW(_) | Param::LnFinalW => {
            Layout::MinusOne
        }
        _ => source.layout,
    };
    Source { layout, ..source }
}
