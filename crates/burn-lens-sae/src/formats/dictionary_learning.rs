//! dictionary_learning: `config.json` and `ae.pt`.
//!
//! `trainer.dict_class` says what is in the file; `trainer.submodule_name` what it reads. (SAELens
//! takes every one for a dictionary of the residual stream, and `AutoEncoderNew`, which subtracts no
//! bias, for one that does.) BatchTopK and Matryoshka dictionaries use their threshold.
//! Source: `dictionary_learning/dictionary.py`, `trainers/*.py`.

use std::collections::BTreeMap;

use burn_lens_hooks::HookPoint;
use serde_json::{Map, Value};

use super::{SaeFiles, SaeFormat, named};
use crate::{
    Normalization, Place, SaeConfig, SaeError, SaeKind, Settings,
    draft::{Draft, batch_threshold},
};

pub(super) static DICTIONARY_LEARNING: SaeFormat = SaeFormat {
    name: "dictionary_learning",
    files: "config.json, ae.pt",
    recognises: |files| {
        files.config.as_ref().and_then(|config| config.get("trainer")?.get("dict_class")).is_some()
    },
    draft: |files, _| draft(files),
};

/// What a class is here.
struct Class {
    kind: &'static str,
    centred: bool,
    /// Our names and its.
    places: Vec<(&'static str, Place)>,
    ignored: &'static [&'static str],
}

fn class(trainer: &Settings) -> Result<Class, SaeError> {
    let at = |name: &str| Place::Named(name.to_owned());
    let turned = |name: &str| Place::Transposed(name.to_owned());
    let linear = || vec![("W_enc", turned("encoder.weight")), ("W_dec", turned("decoder.weight"))];
    let with = |more: Vec<(&'static str, Place)>| [linear(), more].concat();
    let threshold = || ("threshold", Place::Scalar("threshold".to_owned()));
    let name = trainer.required_text("dict_class")?;
    Ok(match name {
        "AutoEncoder" => Class {
            kind: "standard",
            centred: true,
            places: with(vec![("b_enc", at("encoder.bias")), ("b_dec", at("bias"))]),
            ignored: &[],
        },
        "AutoEncoderNew" => Class {
            kind: "standard",
            centred: false,
            places: with(vec![("b_enc", at("encoder.bias")), ("b_dec", at("decoder.bias"))]),
            ignored: &[],
        },
        "GatedAutoEncoder" => Class {
            kind: "gated",
            centred: true,
            places: with(vec![
                ("b_gate", at("gate_bias")),
                ("b_mag", at("mag_bias")),
                ("b_dec", at("decoder_bias")),
            ]),
            ignored: &[],
        },
        "JumpReluAutoEncoder" => Class { kind: "jumprelu", centred: false, places: Vec::new(), ignored: &[] },
        "AutoEncoderTopK" => Class {
            kind: "topk",
            centred: true,
            places: with(vec![("b_enc", at("encoder.bias"))]),
            ignored: &["k", "threshold"],
        },
        "BatchTopKSAE" => Class {
            kind: "jumprelu",
            centred: true,
            places: with(vec![("b_enc", at("encoder.bias")), threshold()]),
            ignored: &["k"],
        },
        "MatryoshkaBatchTopKSAE" => Class {
            kind: "jumprelu",
            centred: true,
            places: vec![threshold()],
            ignored: &["k", "group_sizes"],
        },
        other => {
            let expected = "AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder, AutoEncoderTopK, \
                            BatchTopKSAE or MatryoshkaBatchTopKSAE";
            return Err(trainer.wrong("dict_class", &other.into(), expected));
        }
    })
}

fn draft(files: &mut SaeFiles<'_>) -> Result<Draft, SaeError> {
    let trainer = files.config()?.object("trainer")?;
    let class = class(&trainer)?;
    if class.places.iter().any(|(name, place)| *name == "threshold" && matches!(place, Place::Scalar(_))) {
        batch_threshold(files.weights, "threshold")?;
    }
    let d_in = trainer.size("activation_dim")?;
    let mut metadata = Map::new();
    if let Some(model) = trainer.text("lm_name")? {
        metadata.insert("model_name".to_owned(), Value::from(model));
    }
    let config = SaeConfig {
        name: files.origin.clone(),
        d_in,
        d_sae: trainer.size("dict_size")?,
        d_out: d_in,
        apply_b_dec_to_input: class.centred,
        normalization: Normalization::None,
        hook_z: false,
        head: None,
        hook_name: hook(&trainer)?,
        hook_name_out: None,
        metadata,
    };
    let places: BTreeMap<String, Place> =
        class.places.into_iter().map(|(name, place)| (name.to_owned(), place)).collect();
    Ok(Draft {
        kind: SaeKind::named(class.kind, trainer.origin())?,
        config,
        settings: trainer,
        places,
        ignored: class.ignored.iter().map(|&name| name.to_owned()).collect(),
        folds: Vec::new(),
    })
}

/// The hook that a submodule's name means; the residual stream leaving the block where none is given.
fn hook(trainer: &Settings) -> Result<Option<String>, SaeError> {
    let layer = match trainer.get("layer") {
        None => return Ok(None),
        Some(value) => value.as_u64().map(|layer| layer as usize),
    };
    let submodule = trainer.text("submodule_name")?.unwrap_or("resid_post").to_lowercase();
    Ok(if submodule.contains("resid") {
        named(HookPoint::ResidPost, layer)
    } else if submodule.contains("mlp") {
        named(HookPoint::MlpOut, layer)
    } else if submodule.contains("att") {
        named(HookPoint::AttnOut, layer)
    } else {
        None
    })
}
