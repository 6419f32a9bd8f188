//! EleutherAI's sparsify: `cfg.json` and `sae.safetensors`.
//!
//! `encoder.weight` is `[latent, d_in]` and `W_dec` `[latent, d_in]`, as here. `b_dec` is subtracted
//! from the input of every autoencoder, whether or not its decoder is normalised, and of no
//! transcoder. (SAELens's loader transposes `W_dec`, ties the subtraction to `normalize_decoder`, and
//! drops `W_skip`.) Source: `sparsify/sparse_coder.py`.

use burn_lens_hooks::HookPoint;

use super::{SaeFiles, SaeFormat, named, number_behind};
use crate::{
    Normalization, Place, SaeConfig, SaeError, SaeKind, Settings,
    draft::{Draft, places},
};

pub(super) static SPARSIFY: SaeFormat = SaeFormat {
    name: "sparsify",
    files: "cfg.json, sae.safetensors",
    recognises: |files| files.says(&["d_in", "k"]) && files.has_all(&["encoder.weight", "W_dec"]),
    draft: |files, _| draft(files),
};

fn draft(files: &SaeFiles<'_>) -> Result<Draft, SaeError> {
    let settings = files.config()?.clone();
    let d_in = settings.size("d_in")?;
    let d_sae = match settings.get("num_latents").and_then(serde_json::Value::as_u64) {
        Some(latents) if latents > 0 => latents as usize,
        _ => d_in * settings.size("expansion_factor")?,
    };
    let transcode = settings.flag("transcode", false)?;
    let (hook_name, hook_name_out) = hooks(files, transcode);
    let place = |name: &str| Place::Named(name.to_owned());
    Ok(Draft {
        kind: SaeKind::named(kind(&settings, transcode)?, settings.origin())?,
        config: SaeConfig {
            name: files.origin.clone(),
            d_in,
            d_sae,
            d_out: d_in,
            apply_b_dec_to_input: !transcode,
            normalization: Normalization::None,
            hook_z: false,
            head: None,
            hook_name,
            hook_name_out,
            metadata: serde_json::Map::new(),
        },
        settings,
        places: places([
            ("W_enc", Place::Transposed("encoder.weight".to_owned())),
            ("b_enc", place("encoder.bias")),
        ]),
        ignored: Vec::new(),
        folds: Vec::new(),
    })
}

fn kind(settings: &Settings, transcode: bool) -> Result<&'static str, SaeError> {
    let skip = settings.flag("skip_connection", false)?;
    let signed = settings.flag("signed", false)?;
    let activation = settings.text("activation")?.unwrap_or("topk");
    match (activation, transcode, skip, signed) {
        ("topk", false, false, false) => Ok("topk"),
        ("topk", false, false, true) => Ok("abstopk"),
        ("topk", true, false, false) => Ok("topk_transcoder"),
        ("topk", true, true, false) => Ok("topk_skip_transcoder"),
        ("groupmax", false, false, false) => Ok("groupmax"),
        ("topk" | "groupmax", ..) => {
            let key = if skip { "skip_connection" } else { "activation" };
            let found = settings.get(key).cloned().unwrap_or_default();
            Err(settings.wrong(
                key,
                &found,
                "a combination that sparsify's own code can train as a transcoder or autoencoder with topk",
            ))
        }
        (other, ..) => Err(settings.wrong("activation", &other.into(), "topk or groupmax")),
    }
}

/// The hooks that a folder's name means: `layers.5`, `layers.5.mlp`, `h.3.attn`, `embed_tokens`.
fn hooks(files: &SaeFiles<'_>, transcode: bool) -> (Option<String>, Option<String>) {
    for part in files.path_parts() {
        if part == "embed_tokens" || part == "wte" || part == "embed_in" {
            return (Some(HookPoint::Embed.to_string()), None);
        }
        let layer = ["layers.", "layers_", "h."].iter().find_map(|mark| number_behind(&part, mark));
        if layer.is_none() {
            continue;
        }
        let is_mlp = part.ends_with("mlp");
        if transcode {
            return if is_mlp {
                (named(HookPoint::MlpInput, layer), named(HookPoint::MlpOut, layer))
            } else {
                (None, None)
            };
        }
        let is_attention = ["attn", "attention"].iter().any(|end| part.ends_with(end));
        return match (is_mlp, is_attention) {
            (true, _) => (named(HookPoint::MlpOut, layer), None),
            (_, true) => (named(HookPoint::AttnOut, layer), None),
            _ => (named(HookPoint::ResidPost, layer), None),
        };
    }
    (None, None)
}
