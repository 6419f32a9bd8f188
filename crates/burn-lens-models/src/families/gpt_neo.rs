//! GPT-Neo (and TinyStories).
//!
//! - layer norm before each half, learned positions, tied unembedding
//! - scores are **not** scaled; layers alternate between global and windowed attention
//! - no biases on queries, keys and values
//!
//! Source: Black et al. (2021); `modeling_gpt_neo.py`, transformers.

use super::Architecture;
use crate::{
    HfConfig, ModelConfig, ModelError, Param, Source,
    components::{NormKind, Positions},
    config::{
        AttentionConfig, BlockLayout, Interface, MlpBias, MlpConfig, MlpKind, NormConfig, NormPlacement,
    },
};

pub(super) struct GptNeo;

impl Architecture for GptNeo {
    fn names(&self) -> &'static [&'static str] {
        &["GPTNeoForCausalLM"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        hf.ignore(&["attention_types", "layer_types"]); // attention_layers is the same, written out
        hf.ignore(&[
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ]);
        let (d_model, n_heads, n_layers) =
            (hf.size("hidden_size")?, hf.size("num_heads")?, hf.layers("num_layers")?);
        let d_vocab = hf.size("vocab_size")?;
        Ok(ModelConfig {
            architecture: hf.architecture().to_owned(),
            n_layers,
            d_model,
            n_ctx: hf.size("max_position_embeddings")?,
            d_vocab,
            d_vocab_out: d_vocab,
            attention: AttentionConfig {
                scale: 1.0,
                windows: windows(hf, n_layers)?,
                out_bias: true,
                ..AttentionConfig::plain(n_heads, d_model / n_heads, n_layers)
            },
            mlp: Some(MlpConfig {
                d_mlp: hf.find_size("intermediate_size")?.unwrap_or(4 * d_model),
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
        let at = |layer: usize, rest: &str| format!("transformer.h.{layer}.{rest}");
        match param {
            Param::Embed => Source::same("transformer.wte.weight"),
            Param::PosEmbed => Source::same("transformer.wpe.weight"),
            Param::Ln1W(l) => Source::same(at(l, "ln_1.weight")),
            Param::Ln1B(l) => Source::same(at(l, "ln_1.bias")),
            Param::WQ(l) => Source::linear(at(l, "attn.attention.q_proj.weight")),
            Param::WK(l) => Source::linear(at(l, "attn.attention.k_proj.weight")),
            Param::WV(l) => Source::linear(at(l, "attn.attention.v_proj.weight")),
            Param::WO(l) => Source::linear(at(l, "attn.attention.out_proj.weight")),
            Param::BO(l) => Source::same(at(l, "attn.attention.out_proj.bias")),
            Param::Ln2W(l) => Source::same(at(l, "ln_2.weight")),
            Param::Ln2B(l) => Source::same(at(l, "ln_2.bias")),
            Param::WIn(l) => Source::linear(at(l, "mlp.c_fc.weight")),
            Param::BIn(l) => Source::same(at(l, "mlp.c_fc.bias")),
            Param::WOut(l) => Source::linear(at(l, "mlp.c_proj.weight")),
            Param::BOut(l) => Source::same(at(l, "mlp.c_proj.bias")),
            Param::LnFinalW => Source::same("transformer.ln_f.weight"),
            Param::LnFinalB => Source::same("transformer.ln_f.bias"),
            Param::WU if config.tied => Source::linear("transformer.wte.weight"),
            Param::WU => Source::linear("lm_head.weight"),
            other => Source::same(other.to_string()),
        }
    }
}

fn windows(hf: &HfConfig, n_layers: usize) -> Result<Vec<Option<usize>>, ModelError> {
    let window = hf.size("window_size")?;
    let kinds = match hf.find_list("attention_layers")? {
        Some(kinds) => kinds,
        None => hf.expanded_attention_types()?,
    };
    if kinds.len() != n_layers {
        return Err(ModelError::BadValue {
            key: "attention_layers".to_owned(),
            expected: format!("a list of {n_layers}"),
            found: format!("a list of {}", kinds.len()),
        });
    }
    kinds
        .into_iter()
        .map(|kind| match kind.as_str() {
            "global" => Ok(None),
            "local" => Ok(Some(window)),
            _ => Err(ModelError::BadValue {
                key: "attention_layers".to_owned(),
                expected: "`global` or `local`".to_owned(),
                found: kind,
            }),
        })
        .collect()
}
