//! GPT-J.
//!
//! - one layer norm shared by both halves, which run in parallel
//! - rotary positions over adjacent pairs; unembedding with a bias
//!
//! Source: Wang and Komatsuzaki (2021); `modeling_gptj.py`, transformers.

use super::Architecture;
use crate::{
    HfConfig, ModelConfig, ModelError, Param, Source,
    components::{NormKind, Pairing, Positions, Rotary, RotaryScaling},
    config::{
        AttentionConfig, BlockLayout, Interface, MlpBias, MlpConfig, MlpKind, NormConfig, NormPlacement,
    },
};

pub(super) struct GptJ;

impl Architecture for GptJ {
    fn names(&self) -> &'static [&'static str] {
        &["GPTJForCausalLM"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        hf.ignore(&["rotary", "scale_attn_weights", "tokenizer_class", "n_ctx"]);
        hf.ignore(&[
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ]);
        let (d_model, n_heads, n_layers) = (hf.size("n_embd")?, hf.size("n_head")?, hf.layers("n_layer")?);
        let d_head = d_model / n_heads;
        let d_vocab = hf.size("vocab_size")?;
        let dim = hf.find_size("rotary_dim")?.unwrap_or(d_head);
        if dim > d_head || dim % 2 == 1 {
            return Err(ModelError::BadValue {
                key: "rotary_dim".to_owned(),
                expected: format!("an even number up to {d_head}"),
                found: dim.to_string(),
            });
        }
        Ok(ModelConfig {
            architecture: hf.architecture().to_owned(),
            n_layers,
            d_model,
            n_ctx: hf.size("n_positions")?,
            d_vocab,
            d_vocab_out: d_vocab,
            attention: AttentionConfig::plain(n_heads, d_head, n_layers),
            mlp: Some(MlpConfig {
                d_mlp: hf.find_size("n_inner")?.unwrap_or(4 * d_model),
                act_fn: hf.act_fn("activation_function")?,
                kind: MlpKind::Plain,
                bias: MlpBias::Projections,
            }),
            norm: NormConfig::plain(NormKind::Layer, hf.f64("layer_norm_epsilon")?, NormPlacement::Pre),
            positions: Positions::Rotary(Rotary {
                dim,
                base: 10_000.0,
                pairing: Pairing::Adjacent,
                scaling: RotaryScaling::None,
                local_base: None,
            }),
            layout: BlockLayout::Parallel,
            logits_soft_cap: None,
            unembed_bias: true,
            tied: hf.bool_or("tie_word_embeddings", false)?,
            interface: Interface::Tokens,
            default_prepend_bos: true,
        })
    }

    fn source(&self, config: &ModelConfig, param: Param) -> Source {
        let at = |layer: usize, rest: &str| format!("transformer.h.{layer}.{rest}");
        match param {
            Param::Embed => Source::same("transformer.wte.weight"),
            Param::Ln1W(l) | Param::Ln2W(l) => Source::same(at(l, "ln_1.weight")),
            Param::Ln1B(l) | Param::Ln2B(l) => Source::same(at(l, "ln_1.bias")),
            Param::WQ(l) => Source::linear(at(l, "attn.q_proj.weight")),
            Param::WK(l) => Source::linear(at(l, "attn.k_proj.weight")),
            Param::WV(l) => Source::linear(at(l, "attn.v_proj.weight")),
            Param::WO(l) => Source::linear(at(l, "attn.out_proj.weight")),
            Param::WIn(l) => Source::linear(at(l, "mlp.fc_in.weight")),
            Param::BIn(l) => Source::same(at(l, "mlp.fc_in.bias")),
            Param::WOut(l) => Source::linear(at(l, "mlp.fc_out.weight")),
            Param::BOut(l) => Source::same(at(l, "mlp.fc_out.bias")),
            Param::LnFinalW => Source::same("transformer.ln_f.weight"),
            Param::LnFinalB => Source::same("transformer.ln_f.bias"),
            Param::WU if config.tied => Source::linear("transformer.wte.weight"),
            Param::WU => Source::linear("lm_head.weight"),
            Param::BU => Source::same("lm_head.bias"),
            other => Source::same(other.to_string()),
        }
    }
}
