//! Phi 3, 3.5 and 4: Llama's layout with fused projections.
//!
//! Long-context rotary scaling (`longrope`) is refused.
//!
//! Source: Abdin et al. (2024); `modeling_phi3.py`, transformers.

use super::{Architecture, llama};
use crate::{HfConfig, Layout, ModelConfig, ModelError, Param, Source};

pub(super) struct Phi3;

impl Architecture for Phi3 {
    fn names(&self) -> &'static [&'static str] {
        &["Phi3ForCausalLM"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        hf.only("attention_bias", false, "Phi 3 has no attention biases")?;
        let n_heads = hf.size("num_attention_heads")?;
        let n_kv_heads = hf.find_size("num_key_value_heads")?.unwrap_or(n_heads);
        let d_head = hf.size("hidden_size")? / n_heads;
        let mut config = llama::base(hf, n_heads, n_kv_heads, d_head, hf.act_fn("hidden_act")?)?;
        let window = hf.find_size("sliding_window")?;
        config.attention.windows = vec![window; config.n_layers];
        Ok(config)
    }

    fn source(&self, config: &ModelConfig, param: Param) -> Source {
        let attention = &config.attention;
        let (query, key) = (attention.n_heads * attention.d_head, attention.n_kv_heads * attention.d_head);
        let d_mlp = config.dims().d_mlp;
        let qkv = |layer: usize, start: usize| {
            let layout = Layout::FusedRows { start, total: query + 2 * key };
            Source::with(format!("model.layers.{layer}.self_attn.qkv_proj.weight"), layout)
        };
        let gate_up = |layer: usize, start: usize| {
            let layout = Layout::FusedRows { start, total: 2 * d_mlp };
            Source::with(format!("model.layers.{layer}.mlp.gate_up_proj.weight"), layout)
        };
        match param {
            Param::WQ(l) => qkv(l, 0),
            Param::WK(l) => qkv(l, query),
            Param::WV(l) => qkv(l, query + key),
            Param::WGate(l) => gate_up(l, 0),
            Param::WIn(l) => gate_up(l, d_mlp),
            _ => llama::source(config, param),
        }
    }
}
