//! A model in TransformerLens's own format: state dict and configuration.

use burn_lens_tensor::{AnyTensor, burn::tensor::Tensor};
use serde_json::{Value, json};

use super::{Architecture, transformer_lens::TransformerLens};
use crate::{
    HookedTransformer, Layout, ModelConfig, ModelError, NormPlacement, Param,
    components::{NormKind, Pairing, Positions, RotaryScaling},
    config::{BlockLayout, Interface, MlpBias, MlpConfig, MlpKind},
};

/// The model's weights under TransformerLens's state-dict names and shapes.
///
/// Biases that TransformerLens always has and this model has not are zeros.
///
/// # Errors
///
/// If the format has no place for a weight: biases on the branches of a gated MLP.
pub fn export(model: &HookedTransformer) -> Result<Vec<(String, AnyTensor)>, ModelError> {
    let (config, params) = (model.config(), model.parameters());
    check_expressible(config)?;
    let target = exported_config(config);
    let mut tensors = Vec::new();
    for param in target.params() {
        let source = TransformerLens.source(&target, param);
        let shape = param.shape(&target.dims());
        let stored = source.layout.stored_shape(&shape);
        let tensor = match (&shape[..], &stored[..]) {
            (&[len], stored) => {
                let zeros = || Tensor::<1>::zeros([len], (&model.device, model.dtype));
                let x = params.find::<1>(param).unwrap_or_else(zeros);
                match *stored {
                    [heads, d_head] => AnyTensor::from(x.reshape([heads, d_head])),
                    _ => AnyTensor::from(x),
                }
            }
            (&[rows, cols], stored) => {
                let x = params.get::<2>(param)?;
                match (source.layout, stored) {
                    (Layout::Heads { heads }, _) => {
                        AnyTensor::from(x.reshape([rows, heads, cols / heads]).permute([1, 0, 2]))
                    }
                    (_, &[heads, d_head, d_model]) => AnyTensor::from(x.reshape([heads, d_head, d_model])),
                    _ => AnyTensor::from(x),
                }
            }
            _ => continue,
        };
        tensors.push((source.name, tensor));
    }
    let exported = |param: Param| target.params().contains(&param);
    if let Some((param, _)) = params.iter().find(|&(param, _)| !exported(param)) {
        return Err(ModelError::NotExpressible(format!("`{param}` of this model")));
    }
    Ok(tensors)
}

/// The configuration as TransformerLens has it: with every bias.
fn exported_config(config: &ModelConfig) -> ModelConfig {
    let mut config = config.clone();
    "HookedTransformer".clone_into(&mut config.architecture);
    (config.attention.qkv_bias, config.attention.out_bias) = (true, true);
    config.mlp = config.mlp.map(|mlp| MlpConfig { bias: MlpBias::BehindProduct, ..mlp });
    (config.unembed_bias, config.tied) = (config.interface == Interface::Tokens, false);
    config
}

/// Refuses what TransformerLens's configuration has no words for.
fn check_expressible(config: &ModelConfig) -> Result<(), ModelError> {
    let attention = &config.attention;
    let mut windows: Vec<usize> = attention.windows.iter().flatten().copied().collect();
    windows.dedup();
    let linear = matches!(
        &config.positions,
        Positions::Rotary(rotary)
            if matches!(rotary.scaling, RotaryScaling::Linear { .. }) && rotary.local_base.is_none()
    );
    let lost = [
        (config.norm.placement == NormPlacement::Post, "norms on what the halves write alone"),
        (windows.len() > 1, "windows of several lengths"),
        (linear && !windows.is_empty(), "linear rotary scaling in layers with a window"),
        (
            attention.qk_norm_eps.is_some_and(|eps| eps != config.norm.eps),
            "a query norm with its own epsilon",
        ),
        (
            config.norm.kind != config.norm.final_kind
                && (config.norm.kind, config.norm.final_kind) != (NormKind::Layer, NormKind::Rms),
            "a final norm of this kind",
        ),
    ];
    match lost.into_iter().find(|(is_lost, _)| *is_lost) {
        None => Ok(()),
        Some((_, what)) => Err(ModelError::NotExpressible(what.to_owned())),
    }
}

/// The configuration as the text of TransformerLens's `config.json`.
///
/// # Errors
///
/// If the format has no words for a part of it.
pub fn to_config_json(config: &ModelConfig) -> Result<String, ModelError> {
    check_expressible(config)?;
    let dims = config.dims();
    let attention = &config.attention;
    let suffix = if config.norm.weights { "" } else { "Pre" };
    let norm = match config.norm.kind {
        NormKind::None => Value::Null,
        NormKind::Layer => json!(format!("LN{suffix}")),
        NormKind::Rms => json!(format!("RMS{suffix}")),
    };
    let window = attention.windows.iter().flatten().next();
    let types: Vec<&str> =
        attention.windows.iter().map(|window| if window.is_some() { "local" } else { "global" }).collect();
    let mut json = json!({
        "architecture": "HookedTransformer",
        "original_architecture": config.architecture,
        "n_layers": dims.n_layers,
        "d_model": dims.d_model,
        "n_ctx": dims.n_ctx,
        "d_head": dims.d_head,
        "n_heads": dims.n_heads,
        "n_key_value_heads": (dims.n_kv_heads != dims.n_heads).then_some(dims.n_kv_heads),
        "d_vocab": dims.d_vocab,
        "d_vocab_out": dims.d_vocab_out,
        "attn_only": config.mlp.is_none(),
        "d_mlp": config.mlp.as_ref().map(|mlp| mlp.d_mlp),
        "act_fn": config.mlp.as_ref().map(|mlp| mlp.act_fn.to_string()),
        "gated_mlp": config.mlp.as_ref().is_some_and(|mlp| mlp.kind == MlpKind::Gated),
        "normalization_type": norm,
        "final_rms": config.norm.final_kind == NormKind::Rms && config.norm.kind == NormKind::Layer,
        "use_normalization_before_and_after": config.norm.placement == NormPlacement::Both,
        "post_embedding_ln": config.norm.after_embedding,
        "eps": config.norm.eps,
        "use_attn_scale": true,
        "attn_scale": attention.scale,
        "scale_attn_by_inverse_layer_idx": attention.scale_by_inverse_layer,
        "attn_scores_soft_cap": attention.scores_soft_cap.unwrap_or(-1.0),
        "output_logits_soft_cap": config.logits_soft_cap.unwrap_or(-1.0),
        "attention_dir": if attention.bidirectional { "bidirectional" } else { "causal" },
        "use_local_attn": window.is_some(),
        "window_size": window,
        "attn_types": window.is_some().then_some(types),
        "use_qk_norm": attention.qk_norm_eps.is_some(),
        "use_attention_sinks": attention.sinks,
        "clip_qkv": attention.clip_qkv,
        "parallel_attn_mlp": config.layout == BlockLayout::Parallel,
        "default_prepend_bos": config.default_prepend_bos,
    });
    if let Value::Object(map) = &mut json {
        map.extend(positions_json(&config.positions));
        map.extend(interface_json(&config.interface));
    }
    Ok(format!("{json:#}\n"))
}

/// What is ours in that format: a model without a vocabulary.
fn interface_json(interface: &Interface) -> serde_json::Map<String, Value> {
    let json = match interface {
        Interface::Tokens => Value::Null,
        Interface::Vectors(readers) => json!({
            "d_vocab": Value::Null,
            "d_vocab_out": Value::Null,
            "default_prepend_bos": false,
            "d_in": readers.d_in,
            "d_out": readers.d_out,
            "read_in_bias": readers.in_bias,
            "read_out_bias": readers.out_bias,
        }),
    };
    match json {
        Value::Object(map) => map,
        _ => serde_json::Map::new(),
    }
}

fn positions_json(positions: &Positions) -> serde_json::Map<String, Value> {
    let json = match positions {
        Positions::None => json!({"positional_embedding_type": "none"}),
        Positions::Learned => json!({"positional_embedding_type": "standard"}),
        Positions::Alibi => json!({"positional_embedding_type": "alibi"}),
        Positions::Rotary(rotary) => {
            let mut json = json!({
                "positional_embedding_type": "rotary",
                "rotary_dim": rotary.dim,
                "rotary_base": rotary.base,
                "rotary_base_local": rotary.local_base,
                "rotary_adjacent_pairs": rotary.pairing == Pairing::Adjacent,
                "yarn_global_attn_only": rotary.local_base.is_some(),
            });
            if let Value::Object(map) = &mut json {
                map.extend(scaling_json(&rotary.scaling));
            }
            json
        }
    };
    match json {
        Value::Object(map) => map,
        _ => serde_json::Map::new(),
    }
}

fn scaling_json(scaling: &RotaryScaling) -> serde_json::Map<String, Value> {
    let json = match *scaling {
        RotaryScaling::None => json!({}),
        RotaryScaling::Linear { factor } => json!({"rotary_scaling_factor": factor}),
        RotaryScaling::NtkByParts { factor, low_freq_factor, high_freq_factor, original_context } => json!({
            "use_NTK_by_parts_rope": true,
            "NTK_by_parts_factor": factor,
            "NTK_by_parts_low_freq_factor": low_freq_factor,
            "NTK_by_parts_high_freq_factor": high_freq_factor,
            "NTK_original_ctx_len": original_context,
        }),
        RotaryScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_context,
            attention_factor,
            truncate,
        } => {
            json!({
                "use_yarn_rope": true,
                "yarn_factor": factor,
                "yarn_beta_fast": beta_fast,
                "yarn_beta_slow": beta_slow,
                "yarn_original_max_position_embeddings": original_context,
                "yarn_attention_factor": attention_factor,
                "yarn_truncate": truncate,
            })
        }
    };
    match json {
        Value::Object(map) => map,
        _ => serde_json::Map::new(),
    }
}
