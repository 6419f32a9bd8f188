//! GPT-2.
//!
//! - layer norm before each half, learned positions, biases everywhere, tanh GELU
//! - fused `c_attn`, Conv1D weights that are `[in, out]` already, tied unembedding
//!
//! Source: Radford et al. (2019); `modeling_gpt2.py`, transformers.

use super::Architecture;
use crate::{
    HfConfig, Layout, ModelConfig, ModelError, Param, Source,
    components::{NormKind, Positions},
    config::{
        AttentionConfig, BlockLayout, Interface, MlpBias, MlpConfig, MlpKind, NormConfig, NormPlacement,
    },
};

pub(super) struct Gpt2;

impl Architecture for Gpt2 {
    fn names(&self) -> &'static [&'static str] {
        &["GPT2LMHeadModel"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        hf.only("add_cross_attention", false, "cross-attention is not implemented")?;
        hf.ignore(&["reorder_and_upcast_attn", "n_ctx", "n_special", "predict_special_tokens"]);
        hf.ignore(&[
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ]);
        let (d_model, n_heads, n_layers) = (hf.size("n_embd")?, hf.size("n_head")?, hf.layers("n_layer")?);
        let d_head = d_model / n_heads;
        let scaled = hf.bool_or("scale_attn_weights", true)?;
        let d_vocab = hf.size("vocab_size")?;
        Ok(ModelConfig {
            architecture: hf.architecture().to_owned(),
            n_layers,
            d_model,
            n_ctx: hf.size("n_positions")?,
            d_vocab,
            d_vocab_out: d_vocab,
            attention: AttentionConfig {
                scale: if scaled { (d_head as f64).sqrt() } else { 1.0 },
                scale_by_inverse_layer: hf.bool_or("scale_attn_by_inverse_layer_idx", false)?,
                qkv_bias: true,
                out_bias: true,
                ..AttentionConfig::plain(n_heads, d_head, n_layers)
            },
            mlp: Some(MlpConfig {
                d_mlp: hf.find_size("n_inner")?.unwrap_or(4 * d_model),
                act_fn: hf.act_fn("activation_function")?,
                kind: MlpKind::Plain,
                bias: MlpBias::Projections,
            }),
            norm: NormConfig::plain(NormKind::Layer, hf.f64("layer_norm_epsilon")?, NormPlacement::Pre),
            positions: Positions::Learned,
            layout: BlockLayout::Sequential,
            logits_soft_cap: None,
            unembed_bias: false,
            tied: hf.bool_or("tie_word_embeddings", true)?,
            interface: Interface::Tokens,
            default_prepend_bos: true,
        })
    }

    fn source(&self, config: &ModelConfig, param: Param) -> Source {
        let d_model = config.d_model;
        let at = |layer: usize, rest: &str| format!("transformer.h.{layer}.{rest}");
        let fused = |layer: usize, kind: &str, part: usize| {
            let layout = Layout::FusedColumns { start: part * d_model, total: 3 * d_model };
            Source::with(at(layer, &format!("attn.c_attn.{kind}")), layout)
        };
        match param {
            Param::Embed => Source::same("transformer.wte.weight"),
            Param::PosEmbed => Source::same("transformer.wpe.weight"),
            Param::Ln1W(l) => Source::same(at(l, "ln_1.weight")),
            Param::Ln1B(l) => Source::same(at(l, "ln_1.bias")),
            Param::WQ(l) => fused(l, "weight", 0),
            Param::WK(l) => fused(l, "weight", 1),
            Param::WV(l) => fused(l, "weight", 2),
            Param::BQ(l) => fused(l, "bias", 0),
            Param::BK(l) => fused(l, "bias", 1),
            Param::BV(l) => fused(l, "bias", 2),
            Param::WO(l) => Source::same(at(l, "attn.c_proj.weight")),
            Param::BO(l) => Source::same(at(l, "attn.c_proj.bias")),
            Param::Ln2W(l) => Source::same(at(l, "ln_2.weight")),
            Param::Ln2B(l) => Source::same(at(l, "ln_2.bias")),
            Param::WIn(l) => Source::same(at(l, "mlp.c_fc.weight")),
            Param::BIn(l) => Source::same(at(l, "mlp.c_fc.bias")),
            Param::WOut(l) => Source::same(at(l, "mlp.c_proj.weight")),
            Param::BOut(l) => Source::same(at(l, "mlp.c_proj.bias")),
            Param::LnFinalW => Source::same("transformer.ln_f.weight"),
            Param::LnFinalB => Source::same("transformer.ln_f.bias"),
            Param::WU if config.tied => Source::linear("transformer.wte.weight"),
            Param::WU => Source::linear("lm_head.weight"),
            other => Source::same(other.to_string()),
        }
    }
}
