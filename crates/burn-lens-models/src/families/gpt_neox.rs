//! GPT-NeoX and Pythia.
//!
//! - layer norm before each half, the halves in parallel (or in sequence)
//! - partial rotary positions; query, key and value of a head side by side in one tensor
//!
//! Source: Black et al. (2022), Biderman et al. (2023); `modeling_gpt_neox.py`, transformers.

use super::Architecture;
use crate::{
    HfConfig, Layout, ModelConfig, ModelError, Param, Source,
    components::{NormKind, Positions},
    config::{
        AttentionConfig, BlockLayout, Interface, MlpBias, MlpConfig, MlpKind, NormConfig, NormPlacement,
    },
};

pub(super) struct GptNeoX;

impl Architecture for GptNeoX {
    fn names(&self) -> &'static [&'static str] {
        &["GPTNeoXForCausalLM"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        hf.ignore(&["attention_probs_dropout_prob", "hidden_dropout_prob"]);
        let (d_model, n_heads) = (hf.size("hidden_size")?, hf.size("num_attention_heads")?);
        let (n_layers, n_ctx) = (hf.layers("num_hidden_layers")?, hf.size("max_position_embeddings")?);
        let d_head = d_model / n_heads;
        let fraction = hf.find_f64("rotary_pct")?.unwrap_or(0.25);
        let mut rotary = hf.rotary(d_head, n_ctx, fraction)?;
        if let Some(base) = hf.find_f64("rotary_emb_base")? {
            rotary.base = base;
        }
        let bias = hf.bool_or("attention_bias", true)?;
        let d_vocab = hf.size("vocab_size")?;
        let parallel = hf.bool_or("use_parallel_residual", true)?;
        Ok(ModelConfig {
            architecture: hf.architecture().to_owned(),
            n_layers,
            d_model,
            n_ctx,
            d_vocab,
            d_vocab_out: d_vocab,
            attention: AttentionConfig {
                qkv_bias: bias,
                out_bias: bias,
                ..AttentionConfig::plain(n_heads, d_head, n_layers)
            },
            mlp: Some(MlpConfig {
                d_mlp: hf.size("intermediate_size")?,
                act_fn: hf.act_fn("hidden_act")?,
                kind: MlpKind::Plain,
                bias: MlpBias::Projections,
            }),
            norm: NormConfig::plain(NormKind::Layer, hf.f64("layer_norm_eps")?, NormPlacement::Pre),
            positions: Positions::Rotary(rotary),
            layout: if parallel { BlockLayout::Parallel } else { BlockLayout::Sequential },
            logits_soft_cap: None,
            unembed_bias: false,
            tied: hf.bool_or("tie_word_embeddings", false)?,
            interface: Interface::Tokens,
            default_prepend_bos: false,
        })
    }

    fn source(&self, config: &ModelConfig, param: Param) -> Source {
        let at = |layer: usize, rest: &str| format!("gpt_neox.layers.{layer}.{rest}");
        let fused = |layer: usize, kind: &str, part: usize| {
            let layout = Layout::Interleaved { part, heads: config.attention.n_heads };
            Source::with(at(layer, &format!("attention.query_key_value.{kind}")), layout)
        };
        match param {
            Param::Embed => Source::same("gpt_neox.embed_in.weight"),
            Param::Ln1W(l) => Source::same(at(l, "input_layernorm.weight")),
            Param::Ln1B(l) => Source::same(at(l, "input_layernorm.bias")),
            Param::WQ(l) => fused(l, "weight", 0),
            Param::WK(l) => fused(l, "weight", 1),
            Param::WV(l) => fused(l, "weight", 2),
            Param::BQ(l) => fused(l, "bias", 0),
            Param::BK(l) => fused(l, "bias", 1),
            Param::BV(l) => fused(l, "bias", 2),
            Param::WO(l) => Source::linear(at(l, "attention.dense.weight")),
            Param::BO(l) => Source::same(at(l, "attention.dense.bias")),
            Param::Ln2W(l) => Source::same(at(l, "post_attention_layernorm.weight")),
            Param::Ln2B(l) => Source::same(at(l, "post_attention_layernorm.bias")),
            Param::WIn(l) => Source::linear(at(l, "mlp.dense_h_to_4h.weight")),
            Param::BIn(l) => Source::same(at(l, "mlp.dense_h_to_4h.bias")),
            Param::WOut(l) => Source::linear(at(l, "mlp.dense_4h_to_h.weight")),
            Param::BOut(l) => Source::same(at(l, "mlp.dense_4h_to_h.bias")),
            Param::LnFinalW => Source::same("gpt_neox.final_layer_norm.weight"),
            Param::LnFinalB => Source::same("gpt_neox.final_layer_norm.bias"),
            Param::WU if config.tied => Source::linear("gpt_neox.embed_in.weight"),
            Param::WU => Source::linear("embed_out.weight"),
            other => Source::same(other.to_string()),
        }
    }
}
