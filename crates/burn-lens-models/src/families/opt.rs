//! OPT.
//!
//! - layer norm before each half, ReLU, tied unembedding
//! - learned positions whose first two rows are never used
//!
//! Source: Zhang et al. (2022); `modeling_opt.py`, transformers.

use super::Architecture;
use crate::{
    HfConfig, Layout, ModelConfig, ModelError, Param, Source,
    components::{NormKind, Positions},
    config::{
        AttentionConfig, BlockLayout, Interface, MlpBias, MlpConfig, MlpKind, NormConfig, NormPlacement,
    },
};

/// Rows of the position embedding in front of position 0.
const OFFSET: usize = 2;

pub(super) struct Opt;

impl Architecture for Opt {
    fn names(&self) -> &'static [&'static str] {
        &["OPTForCausalLM"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        hf.only("do_layer_norm_before", true, "post-norm OPT (350m) is not implemented")?;
        hf.only("_remove_final_layer_norm", false, "the final norm is always applied")?;
        hf.ignore(&["activation_dropout", "output_projection"]);
        let (d_model, n_heads, n_layers) =
            (hf.size("hidden_size")?, hf.size("num_attention_heads")?, hf.layers("num_hidden_layers")?);
        if let Some(width) = hf.find_size("word_embed_proj_dim")?.filter(|&width| width != d_model) {
            return Err(ModelError::Unsupported {
                key: "word_embed_proj_dim".to_owned(),
                value: width.to_string(),
                reason: format!("only embeddings as wide as the stream ({d_model}) are implemented"),
            });
        }
        let bias = hf.bool_or("enable_bias", true)?;
        let d_vocab = hf.size("vocab_size")?;
        let norm = NormConfig::plain(NormKind::Layer, 1e-5, NormPlacement::Pre);
        Ok(ModelConfig {
            architecture: hf.architecture().to_owned(),
            n_layers,
            d_model,
            n_ctx: hf.size("max_position_embeddings")?,
            d_vocab,
            d_vocab_out: d_vocab,
            attention: AttentionConfig {
                qkv_bias: bias,
                out_bias: bias,
                ..AttentionConfig::plain(n_heads, d_model / n_heads, n_layers)
            },
            mlp: Some(MlpConfig {
                d_mlp: hf.size("ffn_dim")?,
                act_fn: hf.act_fn("activation_function")?,
                kind: MlpKind::Plain,
                bias: MlpBias::projections(bias),
            }),
            norm: NormConfig { weights: hf.bool_or("layer_norm_elementwise_affine", true)?, ..norm },
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
        let at = |layer: usize, rest: &str| format!("model.decoder.layers.{layer}.{rest}");
        match param {
            Param::Embed => Source::same("model.decoder.embed_tokens.weight"),
            Param::PosEmbed => {
                Source::with("model.decoder.embed_positions.weight", Layout::SkipRows { skip: OFFSET })
            }
            Param::Ln1W(l) => Source::same(at(l, "self_attn_layer_norm.weight")),
            Param::Ln1B(l) => Source::same(at(l, "self_attn_layer_norm.bias")),
            Param::WQ(l) => Source::linear(at(l, "self_attn.q_proj.weight")),
            Param::WK(l) => Source::linear(at(l, "self_attn.k_proj.weight")),
            Param::WV(l) => Source::linear(at(l, "self_attn.v_proj.weight")),
            Param::BQ(l) => Source::same(at(l, "self_attn.q_proj.bias")),
            Param::BK(l) => Source::same(at(l, "self_attn.k_proj.bias")),
            Param::BV(l) => Source::same(at(l, "self_attn.v_proj.bias")),
            Param::WO(l) => Source::linear(at(l, "self_attn.out_proj.weight")),
            Param::BO(l) => Source::same(at(l, "self_attn.out_proj.bias")),
            Param::Ln2W(l) => Source::same(at(l, "final_layer_norm.weight")),
            Param::Ln2B(l) => Source::same(at(l, "final_layer_norm.bias")),
            Param::WIn(l) => Source::linear(at(l, "fc1.weight")),
            Param::BIn(l) => Source::same(at(l, "fc1.bias")),
            Param::WOut(l) => Source::linear(at(l, "fc2.weight")),
            Param::BOut(l) => Source::same(at(l, "fc2.bias")),
            Param::LnFinalW => Source::same("model.decoder.final_layer_norm.weight"),
            Param::LnFinalB => Source::same("model.decoder.final_layer_norm.bias"),
            Param::WU if config.tied => Source::linear("model.decoder.embed_tokens.weight"),
            Param::WU => Source::linear("lm_head.weight"),
            other => Source::same(other.to_string()),
        }
    }
}
