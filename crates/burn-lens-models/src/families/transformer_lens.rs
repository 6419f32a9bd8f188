//! TransformerLens's own format: `HookedTransformer`'s configuration and state-dict names.
//!
//! What it can say and we compute differently: ALiBi slopes for head counts that are not a
//! power of two follow the original paper. What we refuse: mixtures of experts, shortformer
//! and relative positions, log-n attention and dynamic NTK.

use super::Architecture;
use crate::{
    HfConfig, Layout, ModelConfig, ModelError, Param, Source,
    components::{ActFn, NormKind, Pairing, Positions, Rotary, RotaryScaling},
    config::{
        AttentionConfig, BlockLayout, Interface, MlpBias, MlpConfig, MlpKind, NormConfig, NormPlacement,
        Readers,
    },
};

pub(super) struct TransformerLens;

/// Keys that do not change what the model computes: provenance, initialisation, and flags of
/// hooks that here fire because they are asked for.
const IGNORED: &[&str] = &[
    "checkpoint_index",
    "checkpoint_label_type",
    "checkpoint_value",
    "decoder_start_token_id",
    "device",
    "experts_per_token",
    "from_checkpoint",
    "init_mode",
    "init_weights",
    "layer_norm_folding",
    "model_name",
    "n_devices",
    "n_params",
    "norm_topk_prob",
    "note",
    "original_architecture",
    "quantization_method",
    "relative_attention_max_distance",
    "relative_attention_num_buckets",
    "seed",
    "tie_word_embeddings",
    "tokenizer_name",
    "tokenizer_prepends_bos",
    "train_seq_length",
    "trust_remote_code",
    "ungroup_grouped_query_attention",
    "use_attn_in",
    "use_attn_result",
    "use_hook_mlp_in",
    "use_hook_tokens",
    "use_split_qkv_input",
    "uses_rms_norm",
];

impl Architecture for TransformerLens {
    fn names(&self) -> &'static [&'static str] {
        &["HookedTransformer"]
    }

    fn config(&self, hf: &HfConfig) -> Result<ModelConfig, ModelError> {
        hf.ignore(IGNORED);
        refuse(hf)?;
        let d_model = hf.size("d_model")?;
        let d_head = hf.size("d_head")?;
        let interface = interface(hf)?;
        let d_vocab =
            if interface == Interface::Tokens { hf.size("d_vocab")? } else { vocabulary_of_none(hf)? };
        let n_ctx = hf.size("n_ctx")?;
        let (norm, pre) = norm(hf)?;
        Ok(ModelConfig {
            architecture: hf.architecture().to_owned(),
            n_layers: hf.layers("n_layers")?,
            d_model,
            n_ctx,
            d_vocab,
            d_vocab_out: if d_vocab == 0 { 0 } else { sized_or(hf, "d_vocab_out", d_vocab)? },
            attention: attention(hf, d_model, d_head, norm.eps)?,
            mlp: mlp(hf, d_model)?,
            norm: NormConfig { weights: !pre, ..norm },
            positions: positions(hf, d_head)?,
            layout: if hf.bool_or("parallel_attn_mlp", false)? {
                BlockLayout::Parallel
            } else {
                BlockLayout::Sequential
            },
            logits_soft_cap: positive(hf, "output_logits_soft_cap")?,
            unembed_bias: interface == Interface::Tokens,
            interface,
            tied: false,
            default_prepend_bos: hf.bool_or("default_prepend_bos", true)?,
        })
    }

    fn source(&self, config: &ModelConfig, param: Param) -> Source {
        let (heads, kv_heads) = (config.attention.n_heads, config.attention.n_kv_heads);
        let name = state_dict_name(config, param);
        match param {
            Param::WQ(_) | Param::BQ(_) => Source::with(name, Layout::Heads { heads }),
            Param::WK(_) | Param::WV(_) | Param::BK(_) | Param::BV(_) => {
                Source::with(name, Layout::Heads { heads: kv_heads })
            }
            Param::WO(_) => Source::with(name, Layout::HeadsOut { heads }),
            _ => Source::same(name),
        }
    }

    fn stored_name(&self, name: &str, _: &[String]) -> String {
        name.to_owned()
    }

    fn ignores(&self, config: &ModelConfig, name: &str) -> bool {
        // Allocated whatever the positions are.
        let unused = name == "pos_embed.W_pos" && config.positions != Positions::Learned;
        unused
            || [".mask", ".IGNORE", ".rotary_sin", ".rotary_cos", ".alibi"]
                .iter()
                .any(|end| name.ends_with(end))
    }
}

fn state_dict_name(config: &ModelConfig, param: Param) -> String {
    let grouped = config.attention.n_kv_heads != config.attention.n_heads;
    match param {
        Param::WK(l) if grouped => format!("blocks.{l}.attn._W_K"),
        Param::WV(l) if grouped => format!("blocks.{l}.attn._W_V"),
        Param::BK(l) if grouped => format!("blocks.{l}.attn._b_K"),
        Param::BV(l) if grouped => format!("blocks.{l}.attn._b_V"),
        Param::BPost(l) => format!("blocks.{l}.mlp.b_in"),
        other => other.to_string(),
    }
}

/// Our own keys: TransformerLens has no word for a read-in and a read-out.
fn interface(hf: &HfConfig) -> Result<Interface, ModelError> {
    let bias = [hf.bool_or("read_in_bias", true)?, hf.bool_or("read_out_bias", true)?];
    let Some(d_in) = hf.find_size("d_in")? else { return Ok(Interface::Tokens) };
    let [in_bias, out_bias] = bias;
    Ok(Interface::Vectors(Readers { d_in, d_out: hf.size("d_out")?, in_bias, out_bias }))
}

/// A model with a read-in has no vocabulary; the keys may stand there as 0 or null.
fn vocabulary_of_none(hf: &HfConfig) -> Result<usize, ModelError> {
    for key in ["d_vocab", "d_vocab_out"] {
        if let Some(found) = hf.find_f64(key)?.filter(|&size| size > 0.0) {
            let expected = "absent, beside `d_in`".to_owned();
            return Err(ModelError::BadValue { key: key.to_owned(), expected, found: found.to_string() });
        }
    }
    Ok(0)
}

fn refuse(hf: &HfConfig) -> Result<(), ModelError> {
    hf.only("use_logn_attn", false, "log-n attention is not implemented")?;
    hf.only("use_dynamic_ntk_rope", false, "dynamic NTK is not implemented")?;
    hf.only("load_in_4bit", false, "quantised weights are not implemented")?;
    if let Some(experts) = hf.find_usize("num_experts")? {
        return Err(ModelError::Unsupported {
            key: "num_experts".to_owned(),
            value: experts.to_string(),
            reason: "mixtures of experts are not implemented".to_owned(),
        });
    }
    Ok(())
}

/// A size, where TransformerLens writes -1 (or nothing) for `default`.
fn sized_or(hf: &HfConfig, key: &str, default: usize) -> Result<usize, ModelError> {
    match hf.find_f64(key)? {
        None => Ok(default),
        Some(value) if value < 0.0 => Ok(default),
        Some(_) => hf.size(key),
    }
}

/// A number that counts only where it is positive.
fn positive(hf: &HfConfig, key: &str) -> Result<Option<f64>, ModelError> {
    Ok(hf.find_f64(key)?.filter(|&value| value > 0.0))
}

/// The norms, and whether their weights were folded away ("LNPre", "RMSPre").
fn norm(hf: &HfConfig) -> Result<(NormConfig, bool), ModelError> {
    let name = hf.find_str("normalization_type")?;
    let (kind, pre) = match name {
        None => (NormKind::None, false),
        Some("LN") => (NormKind::Layer, false),
        Some("LNPre") => (NormKind::Layer, true),
        Some("RMS") => (NormKind::Rms, false),
        Some("RMSPre") => (NormKind::Rms, true),
        Some(other) => {
            return Err(ModelError::BadValue {
                key: "normalization_type".to_owned(),
                expected: "null, LN, LNPre, RMS or RMSPre".to_owned(),
                found: other.to_owned(),
            });
        }
    };
    let both = hf.bool_or("use_normalization_before_and_after", false)?;
    let placement = if both { NormPlacement::Both } else { NormPlacement::Pre };
    let eps = hf.find_f64("eps")?.unwrap_or(1e-5);
    let mut norm = NormConfig::plain(kind, eps, placement);
    if hf.bool_or("final_rms", false)? && kind != NormKind::None {
        norm.final_kind = NormKind::Rms;
    }
    norm.after_embedding = hf.bool_or("post_embedding_ln", false)?;
    Ok((norm, pre))
}

fn attention(hf: &HfConfig, d_model: usize, d_head: usize, eps: f64) -> Result<AttentionConfig, ModelError> {
    let n_layers = hf.layers("n_layers")?;
    let n_heads = sized_or(hf, "n_heads", d_model / d_head)?;
    let scale = match (hf.bool_or("use_attn_scale", true)?, positive(hf, "attn_scale")?) {
        (false, _) => 1.0,
        (true, Some(scale)) => scale,
        (true, None) => (d_head as f64).sqrt(),
    };
    let windows = windows(hf, n_layers)?;
    let bidirectional = match hf.find_str("attention_dir")? {
        None | Some("causal") => false,
        Some("bidirectional") => true,
        Some(other) => {
            return Err(ModelError::BadValue {
                key: "attention_dir".to_owned(),
                expected: "causal or bidirectional".to_owned(),
                found: other.to_owned(),
            });
        }
    };
    Ok(AttentionConfig {
        n_kv_heads: hf.find_size("n_key_value_heads")?.unwrap_or(n_heads),
        scale,
        scale_by_inverse_layer: hf.bool_or("scale_attn_by_inverse_layer_idx", false)?,
        scores_soft_cap: positive(hf, "attn_scores_soft_cap")?,
        bidirectional,
        // TransformerLens masks nothing in bidirectional models, windows included.
        windows: if bidirectional { vec![None; n_layers] } else { windows },
        qk_norm_eps: hf.bool_or("use_qk_norm", false)?.then_some(eps),
        sinks: hf.bool_or("use_attention_sinks", false)?,
        clip_qkv: hf.find_f64("clip_qkv")?,
        qkv_bias: true,
        out_bias: true,
        ..AttentionConfig::plain(n_heads, d_head, n_layers)
    })
}

fn windows(hf: &HfConfig, n_layers: usize) -> Result<Vec<Option<usize>>, ModelError> {
    let window = hf.find_size("window_size")?;
    let types = hf.find_list("attn_types")?;
    if !hf.bool_or("use_local_attn", false)? {
        return Ok(vec![None; n_layers]);
    }
    let types = types.unwrap_or_default();
    if types.len() != n_layers || window.is_none() {
        return Err(ModelError::BadValue {
            key: "attn_types".to_owned(),
            expected: format!("a list of {n_layers}, and a window_size"),
            found: format!("a list of {} and window_size {window:?}", types.len()),
        });
    }
    Ok(types.iter().map(|kind| if kind == "local" { window } else { None }).collect())
}

fn mlp(hf: &HfConfig, d_model: usize) -> Result<Option<MlpConfig>, ModelError> {
    let d_mlp = hf.find_size("d_mlp")?.unwrap_or(4 * d_model);
    let gated = hf.bool_or("gated_mlp", false)?;
    if hf.bool_or("attn_only", false)? {
        hf.ignore(&["act_fn"]);
        return Ok(None);
    }
    let act_fn: ActFn = hf.act_fn("act_fn")?;
    let kind = if gated { MlpKind::Gated } else { MlpKind::Plain };
    Ok(Some(MlpConfig { d_mlp, act_fn, kind, bias: MlpBias::BehindProduct }))
}

fn positions(hf: &HfConfig, d_head: usize) -> Result<Positions, ModelError> {
    let rotary = rotary(hf, d_head)?;
    match hf.find_str("positional_embedding_type")?.unwrap_or("standard") {
        "standard" => Ok(Positions::Learned),
        "rotary" => Ok(Positions::Rotary(rotary)),
        "alibi" => Ok(Positions::Alibi),
        "none" => Ok(Positions::None),
        other => Err(ModelError::Unsupported {
            key: "positional_embedding_type".to_owned(),
            value: other.to_owned(),
            reason: "standard, rotary and alibi are implemented".to_owned(),
        }),
    }
}

fn rotary(hf: &HfConfig, d_head: usize) -> Result<Rotary, ModelError> {
    let number = |key: &str, default: f64| Ok::<f64, ModelError>(hf.find_f64(key)?.unwrap_or(default));
    let linear = number("rotary_scaling_factor", 1.0)?;
    let by_parts = RotaryScaling::NtkByParts {
        factor: number("NTK_by_parts_factor", 8.0)?,
        low_freq_factor: number("NTK_by_parts_low_freq_factor", 1.0)?,
        high_freq_factor: number("NTK_by_parts_high_freq_factor", 4.0)?,
        original_context: number("NTK_original_ctx_len", 8192.0)?,
    };
    let yarn = RotaryScaling::Yarn {
        factor: number("yarn_factor", 1.0)?,
        beta_fast: number("yarn_beta_fast", 32.0)?,
        beta_slow: number("yarn_beta_slow", 1.0)?,
        original_context: number("yarn_original_max_position_embeddings", 4096.0)?,
        attention_factor: number("yarn_attention_factor", 1.0)?,
        truncate: hf.bool_or("yarn_truncate", true)?,
    };
    let by_parts_asked = hf.bool_or("use_NTK_by_parts_rope", false)?;
    let scaling = if hf.bool_or("use_yarn_rope", false)? {
        yarn
    } else if by_parts_asked {
        by_parts
    } else if (linear - 1.0).abs() > 0.0 {
        RotaryScaling::Linear { factor: linear }
    } else {
        RotaryScaling::None
    };
    let adjacent = hf.bool_or("rotary_adjacent_pairs", false)?;
    let dim = hf.find_size("rotary_dim")?.unwrap_or(d_head);
    if dim > d_head || dim % 2 == 1 {
        return Err(ModelError::BadValue {
            key: "rotary_dim".to_owned(),
            expected: format!("an even number up to {d_head}"),
            found: dim.to_string(),
        });
    }
    let base = number("rotary_base", 10_000.0)?;
    // Layers with a window rotate by frequencies of their own: with the local base where there
    // is one, and without linear scaling or (where asked) YARN.
    let yarn_only_global = hf.bool_or("yarn_global_attn_only", false)?;
    let only_global = match scaling {
        RotaryScaling::Linear { .. } => true,
        RotaryScaling::Yarn { .. } => yarn_only_global,
        _ => false,
    };
    let local_base = hf.find_f64("rotary_base_local")?.or(only_global.then_some(base));
    Ok(Rotary {
        dim,
        base,
        pairing: if adjacent { Pairing::Adjacent } else { Pairing::Halves },
        scaling,
        local_base,
    })
}
