//! The AutoEncoder that sae_visualizer was written for, and those like it: `NAME.pt` and
//! `NAME_cfg.json`. Weights are as here; `dict_mult` and `d_mlp` (or `act_size` and `dict_size`) are
//! the sizes. (NeelNanda/sparse_autoencoder; ckkissane/attn-saes.)

use burn_lens_hooks::HookPoint;
use serde_json::{Map, Value};

use super::{SaeFiles, SaeFormat, named};
use crate::{Normalization, SaeConfig, SaeError, SaeKind, draft::Draft};

pub(super) static ORIGINAL: SaeFormat = SaeFormat {
    name: "AutoEncoder",
    files: "NAME.pt, NAME_cfg.json",
    recognises: |files| {
        (files.says(&["dict_mult"]) || files.says(&["act_size", "dict_size"]))
            && files.has_all(&["W_enc", "W_dec", "b_enc", "b_dec"])
    },
    draft: |files, _| draft(files),
};

fn draft(files: &SaeFiles<'_>) -> Result<Draft, SaeError> {
    let settings = files.config()?.clone();
    let d_in = match settings.optional_size("act_size")? {
        Some(d_in) => d_in,
        None => settings.size("d_mlp")?,
    };
    let d_sae = match settings.optional_size("dict_size")? {
        Some(d_sae) => d_sae,
        None => d_in * settings.size("dict_mult")?,
    };
    // The layer is said only where it is not the only one.
    let layer = settings.get("layer").and_then(Value::as_u64).unwrap_or(0) as usize;
    let hook_name = settings.text("act_name")?.map(str::to_owned);
    let hook_name = hook_name.or_else(|| named(HookPoint::MlpPost, Some(layer)));
    let mut metadata = Map::new();
    if let Some(model) = settings.text("model_name")? {
        metadata.insert("model_name".to_owned(), Value::from(model));
    }
    Ok(Draft {
        kind: SaeKind::named("standard", settings.origin())?,
        config: SaeConfig {
            name: files.origin.clone(),
            d_in,
            d_sae,
            d_out: d_in,
            apply_b_dec_to_input: true,
            normalization: Normalization::None,
            hook_z: hook_name.as_ref().is_some_and(|name| name.ends_with("hook_z")),
            head: None,
            hook_name,
            hook_name_out: None,
            metadata,
        },
        settings,
        places: std::collections::BTreeMap::new(),
        ignored: Vec::new(),
        folds: Vec::new(),
    })
}
