//! Llama 1 to 3.x, and the checkpoints that share its layout.
//!
//! - root-mean-square norm before each half, gated SiLU, rotary positions, no biases
//! - grouped-query attention where `num_key_value_heads < num_attention_heads`
//!
//! Source: Touvron et al. (2023); `modeling_llama.py`, transformers.

use super::Architecture;
use crate::{
    HfConfig, ModelConfig, ModelError, Param, Source,
    components::{ActFn, NormKind, Positions},
    config::{
        AttentionConfig, BlockLayout, Interface, MlpBias, MlpConfig, MlpKind, NormConfig, NormPlacement,
    },
};

pub(super) struct Llama;

impl Architecture for Llama {
    fn names(&self) -> &'static [&'static str] {
        &["LlamaForCausalLM"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        hf.only("rope_interleaved", false, "adjacent rotary pairs are not implemented for Llama")?;
        hf.ignore(&["is_llama_config"]);
        let n_heads = hf.size("num_attention_heads")?;
        let n_kv_heads = hf.find_size("num_key_value_heads")?.unwrap_or(n_heads);
        let d_head = hf.find_size("head_dim")?.unwrap_or(hf.size("hidden_size")? / n_heads);
        let mut config = base(hf, n_heads, n_kv_heads, d_head, hf.act_fn("hidden_act")?)?;
        let bias = hf.bool_or("attention_bias", false)?;
        (config.attention.qkv_bias, config.attention.out_bias) = (bias, bias);
        let mlp_bias = hf.bool_or("mlp_bias", false)?;
        config.mlp = config.mlp.map(|mlp| MlpConfig { bias: MlpBias::projections(mlp_bias), ..mlp });
        Ok(config)
    }

    fn source(&self, config: &ModelConfig, param: Param) -> Source {
        source(config, param)
    }
}

/// What every family of this layout shares: no biases, no windows, untied.
pub(super) fn base(
    hf: &HfConfig,
    n_heads: usize,
    n_kv_heads: usize,
    d_head: usize,
    act_fn: ActFn,
) -> Result<ModelConfig, ModelError> {
    let (n_layers, n_ctx) = (hf.layers("num_hidden_layers")?, hf.size("max_position_embeddings")?);
    let d_vocab = hf.size("vocab_size")?;
    Ok(ModelConfig {
        architecture: hf.architecture().to_owned(),
        n_layers,
        d_model: hf.size("hidden_size")?,
        n_ctx,
        d_vocab,
        d_vocab_out: d_vocab,
        attention: AttentionConfig { n_kv_heads, ..AttentionConfig::plain(n_heads, d_head, n_layers) },
        mlp: Some(MlpConfig {
            d_mlp: hf.size("intermediate_size")?,
            act_fn,
            kind: MlpKind::Gated,
            bias: MlpBias::None,
        }),
        norm: NormConfig::plain(NormKind::Rms, hf.f64("rms_norm_eps")?, NormPlacement::Pre),
        positions: Positions::Rotary(hf.rotary(d_head, n_ctx, 1.0)?),
        layout: BlockLayout::Sequential,
        logits_soft_cap: None,
        unembed_bias: false,
        tied: hf.bool_or("tie_word_embeddings", false)?,
        interface: Interface::Tokens,
        default_prepend_bos: true,
    })
}

/// The names of this layout.
pub(super) fn source(config: &ModelConfig, param: Param) -> Source {
    let at = |layer: usize, rest: &str| format!("model.layers.{layer}.{rest}");
    match param {
        Param::Embed => Source::same("model.embed_tokens.weight"),
        Param::Ln1W(l) => Source::same(at(l, "input_layernorm.weight")),
        Param::WQ(l) => Source::linear(at(l, "self_attn.q_proj.weight")),
        Param::WK(l) => Source::linear(at(l, "self_attn.k_proj.weight")),
        Param::WV(l) => Source::linear(at(l, "self_attn.v_proj.weight")),
        Param::BQ(l) => Source::same(at(l, "self_attn.q_proj.bias")),
        Param::BK(l) => Source::same(at(l, "self_attn.k_proj.bias")),
        Param::BV(l) => Source::same(at(l, "self_attn.v_proj.bias")),
        Param::QNorm(l) => Source::same(at(l, "self_attn.q_norm.weight")),
        Param::KNorm(l) => Source::same(at(l, "self_attn.k_norm.weight")),
        Param::WO(l) => Source::linear(at(l, "self_attn.o_proj.weight")),
        Param::BO(l) => Source::same(at(l, "self_attn.o_proj.bias")),
        Param::Ln2W(l) => Source::same(at(l, "post_attention_layernorm.weight")),
        Param::WGate(l) => Source::linear(at(l, "mlp.gate_proj.weight")),
        Param::BGate(l) => Source::same(at(l, "mlp.gate_proj.bias")),
        Param::WIn(l) => Source::linear(at(l, "mlp.up_proj.weight")),
        Param::BIn(l) => Source::same(at(l, "mlp.up_proj.bias")),
        Param::WOut(l) => Source::linear(at(l, "mlp.down_proj.weight")),
        Param::BOut(l) => Source::same(at(l, "mlp.down_proj.bias")),
        Param::LnFinalW => Source::same("model.norm.weight"),
        Param::WU if config.tied => Source::linear("model.embed_tokens.weight"),
        Param::WU => Source::linear("lm_head.weight"),
        other => Source::same(other.to_string()),
    }
}
