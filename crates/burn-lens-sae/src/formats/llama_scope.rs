//! Llama Scope: `hyperparams.json` (or `config.json`) and safetensors.
//!
//! Inputs are scaled by `√d` over their mean norm, outputs by that of theirs; the threshold of the
//! JumpReLU is compared with pre-activations of scaled inputs, which are the same once the scale is
//! folded into the encoder. (SAELens multiplies the threshold by the scale as well.)
//! Source: `lm_saes/sae.py`, November 2024.

use serde_json::{Map, Value};

use super::{SaeFiles, SaeFormat};
use crate::{
    Normalization, Place, SaeConfig, SaeError, SaeKind, Settings,
    draft::{Draft, Fold, places},
};

pub(super) static LLAMA_SCOPE: SaeFormat = SaeFormat {
    name: "Llama Scope",
    files: "hyperparams.json and checkpoints/final.safetensors, or config.json and sae_weights.safetensors",
    recognises: |files| {
        files.says(&["d_model", "hook_point_in"]) && files.has_all(&["encoder.weight", "decoder.weight"])
    },
    draft: |files, _| draft(files),
};

fn draft(files: &SaeFiles<'_>) -> Result<Draft, SaeError> {
    let mut settings = files.config()?.clone();
    let d_in = settings.size("d_model")?;
    let d_sae = match settings.optional_size("d_sae")? {
        Some(d_sae) => d_sae,
        None => d_in * settings.size("expansion_factor")?,
    };
    if settings.flag("use_glu_encoder", false)? {
        return Err(settings.wrong("use_glu_encoder", &true.into(), "false"));
    }
    let at = |name: &str| Place::Named(name.to_owned());
    let turned = |name: &str| Place::Transposed(name.to_owned());
    let has_bias = settings.flag("use_decoder_bias", true)?;
    let mut places = places([
        ("W_enc", turned("encoder.weight")),
        ("W_dec", turned("decoder.weight")),
        ("b_enc", at("encoder.bias")),
        ("b_dec", if has_bias { at("decoder.bias") } else { Place::Filled(0.0) }),
    ]);
    let threshold = settings.optional_number("jump_relu_threshold")?.filter(|&threshold| threshold > 0.0);
    let kind = if files.has("log_jumprelu_threshold") {
        places.insert("threshold".to_owned(), Place::Exp("log_jumprelu_threshold".to_owned()));
        "jumprelu"
    } else if let Some(threshold) = threshold {
        places.insert("threshold".to_owned(), Place::Filled(threshold));
        "jumprelu"
    } else {
        match settings.text("act_fn")?.unwrap_or("relu") {
            "relu" => "standard",
            "topk" => {
                settings.set("k", settings.size("top_k")?);
                "topk"
            }
            other => {
                let expected = "relu, topk, or jumprelu with a threshold";
                return Err(settings.wrong("act_fn", &other.into(), expected));
            }
        }
    };
    let hook_name = settings.required_text("hook_point_in")?.to_owned();
    let out = settings.text("hook_point_out")?.unwrap_or(&hook_name).to_owned();
    if out != hook_name {
        return Err(settings.wrong("hook_point_out", &out.into(), "the same as hook_point_in"));
    }
    Ok(Draft {
        kind: SaeKind::named(kind, settings.origin())?,
        config: SaeConfig {
            name: files.origin.clone(),
            d_in,
            d_sae,
            d_out: d_in,
            apply_b_dec_to_input: has_bias && settings.flag("apply_decoder_bias_to_pre_encoder", false)?,
            normalization: Normalization::None,
            hook_z: hook_name.ends_with("hook_z"),
            head: None,
            hook_name: Some(hook_name),
            hook_name_out: None,
            metadata: Map::new(),
        },
        folds: scale(&settings, d_in)?,
        settings,
        places,
        ignored: Vec::new(),
    })
}

fn scale(settings: &Settings, d_in: usize) -> Result<Vec<Fold>, SaeError> {
    match settings.text("norm_activation")?.unwrap_or("dataset-wise") {
        "dataset-wise" => {
            let norms = settings.object("dataset_average_activation_norm")?;
            let [norm, out] = [norms.optional_number("in")?, norms.optional_number("out")?];
            if let (Some(norm), Some(out)) = (norm, out)
                && norm != out
            {
                return Err(norms.wrong("out", &Value::from(out), "the same as `in`"));
            }
            let norm = norm.filter(|&norm| norm > 0.0);
            Ok(vec![Fold::Scale(norm.map(|norm| (d_in as f64).sqrt() / norm))])
        }
        "inference" | "none" => Ok(Vec::new()),
        other => Err(settings.wrong("norm_activation", &other.into(), "dataset-wise, inference or none")),
    }
}
