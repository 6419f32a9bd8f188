//! OpenAI's sparse_autoencoder: one `.pt` file.
//!
//! Inputs of top-k dictionaries are layer-normed, those of the others are not. How many features are
//! active is no tensor of the file: 32 in the published ones. Source: `sparse_autoencoder/model.py`.

use burn_lens_hooks::HookPoint;

use super::{SaeFiles, SaeFormat, named};
use crate::{
    Normalization, Place, SaeConfig, SaeError, SaeKind, SaeOptions, Settings,
    draft::{Draft, places},
};

pub(super) static OPENAI: SaeFormat = SaeFormat {
    name: "OpenAI",
    files: "LAYER.pt",
    recognises: |files| files.has_all(&["pre_bias", "latent_bias", "encoder.weight"]),
    draft,
};

fn draft(files: &mut SaeFiles<'_>, options: &SaeOptions) -> Result<Draft, SaeError> {
    let [d_sae, d_in] = files.sizes("encoder.weight")?;
    let mut settings =
        files.config.clone().unwrap_or_else(|| Settings::new(&*files.origin, serde_json::Map::new()));
    let said = match options.k {
        Some(k) => Some(k),
        None => settings.optional_size("k")?,
    };
    let activation = settings.text("activation")?.map(str::to_owned);
    // Versions 1 and 4 of the published files are ReLU, version 5 is top-k: the path says which.
    let of_path = files.path_parts().iter().any(|part| part.contains("_v5"));
    let k = match (said, activation.as_deref()) {
        (Some(k), None | Some("TopK")) => Some(k),
        (None, None) if of_path => Some(32),
        (None, Some("TopK")) => {
            return Err(SaeError::Untold {
                origin: files.origin.clone(),
                what: "how many features are active",
                how: "give it (`k`; `--k` of the command)",
            });
        }
        (_, None | Some("ReLU")) => None,
        (_, Some(other)) => return Err(settings.wrong("activation", &other.into(), "TopK or ReLU")),
    };
    if let Some(k) = k {
        settings.set("k", k);
    }
    let at = |name: &str| Place::Named(name.to_owned());
    let turned = |name: &str| Place::Transposed(name.to_owned());
    let decoder = if files.has("decoder.weight") { turned("decoder.weight") } else { at("encoder.weight") };
    Ok(Draft {
        kind: SaeKind::named(if k.is_some() { "topk" } else { "standard" }, &files.origin)?,
        config: SaeConfig {
            name: files.origin.clone(),
            d_in,
            d_sae,
            d_out: d_in,
            apply_b_dec_to_input: true,
            normalization: if k.is_some() { Normalization::LayerNorm } else { Normalization::None },
            hook_z: false,
            head: None,
            hook_name: hook(files),
            hook_name_out: None,
            metadata: serde_json::Map::new(),
        },
        settings,
        places: places([
            ("W_enc", turned("encoder.weight")),
            ("W_dec", decoder),
            ("b_enc", at("latent_bias")),
            ("b_dec", at("pre_bias")),
        ]),
        ignored: ["stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"]
            .map(str::to_owned)
            .into(),
        folds: Vec::new(),
    })
}

/// `…/resid_post_mlp_v5_32k/autoencoders/8.pt`
fn hook(files: &SaeFiles<'_>) -> Option<String> {
    let parts = files.path_parts();
    let layer = parts.first().and_then(|file| file.split('.').next()?.parse().ok());
    parts.iter().find_map(|part| match part {
        part if part.starts_with("mlp_post_act") => named(HookPoint::MlpPost, layer),
        part if part.starts_with("resid_delta_mlp") => named(HookPoint::MlpOut, layer),
        part if part.starts_with("resid_delta_attn") => named(HookPoint::AttnOut, layer),
        part if part.starts_with("resid_post_attn") => named(HookPoint::ResidMid, layer),
        part if part.starts_with("resid_post_mlp") => named(HookPoint::ResidPost, layer),
        _ => None,
    })
}
