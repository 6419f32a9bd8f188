//! Gemma Scope: `params.npz`, or `params.safetensors` with a `config.json`.
//!
//! JumpReLU; `b_dec` is not subtracted from the input. The folder's name says which hook
//! (`…-pt-res/layer_20/width_16k/average_l0_71`), or `hf_hook_point_in` of the configuration.
//! Dictionaries of embeddings were trained on those of Hugging Face, which are smaller by `√d` than
//! `hook_embed`; the decoder's bias grows with the decoder (in SAELens it does not). Transcoders read
//! what the MLP reads, behind its norm: `mlp.hook_in` (SAELens says `hook_mlp_in`, which is before it).

use burn_lens_hooks::HookPoint;
use serde_json::Map;

use super::{SaeFiles, SaeFormat, named, number_behind};
use crate::{
    Normalization, Place, SaeConfig, SaeError, SaeKind, Settings,
    draft::{Draft, places},
};

pub(super) static GEMMA_SCOPE: SaeFormat = SaeFormat {
    name: "Gemma Scope",
    files: "params.npz, or params.safetensors and config.json",
    recognises: |files| {
        ["w_enc", "W_enc"].iter().any(|name| files.has(name))
            && files.has("threshold")
            && !files.says(&["d_in", "d_sae"])
            && !files.says(&["d_in", "architecture"])
    },
    draft: |files, _| draft(files),
};

fn draft(files: &SaeFiles<'_>) -> Result<Draft, SaeError> {
    // Both spellings were published.
    let name = |lower: &str, upper: &str| if files.has(lower) { lower } else { upper }.to_owned();
    let (w_enc, w_dec) = (name("w_enc", "W_enc"), name("w_dec", "W_dec"));
    let [d_in, d_sae] = files.sizes(&w_enc)?;
    let [_, d_out] = files.sizes(&w_dec)?;
    let settings = files.config.clone().unwrap_or_else(|| Settings::new(&*files.origin, Map::new()));
    if let Some(found) = settings.text("architecture")?.filter(|&found| found != "jump_relu") {
        return Err(settings.wrong("architecture", &found.into(), "jump_relu"));
    }
    let skip = files.has("affine_skip_connection");
    let (hook_name, hook_name_out) = hooks(files, &settings)?;
    let kind = match (skip, hook_name_out.is_some()) {
        (true, _) => "jumprelu_skip_transcoder",
        (false, true) => "jumprelu_transcoder",
        (false, false) => "jumprelu",
    };
    let is_embedding = hook_name.as_deref() == Some(HookPoint::Embed.kind_name());
    let scale = if is_embedding { (d_in as f64).sqrt() } else { 1.0 };
    let mut places = places([
        ("W_enc", Place::Named(w_enc).times(1.0 / scale)),
        ("W_dec", Place::Named(w_dec).times(scale)),
        ("b_dec", Place::Named("b_dec".to_owned()).times(scale)),
    ]);
    if skip {
        places.insert("W_skip".to_owned(), Place::Transposed("affine_skip_connection".to_owned()));
    }
    Ok(Draft {
        kind: SaeKind::named(kind, &files.origin)?,
        config: SaeConfig {
            name: files.origin.clone(),
            d_in,
            d_sae,
            d_out,
            apply_b_dec_to_input: false,
            normalization: Normalization::None,
            hook_z: hook_name.as_ref().is_some_and(|name| name.ends_with("hook_z")),
            head: None,
            hook_name,
            hook_name_out,
            metadata: Map::new(),
        },
        settings,
        places,
        ignored: Vec::new(),
        folds: Vec::new(),
    })
}

/// What a module of Hugging Face's Gemma is called here.
fn of_module(module: &str) -> Option<String> {
    let layer = number_behind(module, "layers.");
    let name = module.split_once("layers.")?.1.split_once('.')?.1;
    match name {
        "output" => named(HookPoint::ResidPost, layer),
        "self_attn.o_proj.input" => named(HookPoint::AttnZ, layer),
        "post_feedforward_layernorm.output" => named(HookPoint::MlpOut, layer),
        "pre_feedforward_layernorm.output" => named(HookPoint::MlpInput, layer),
        _ => None,
    }
}

fn hooks(files: &SaeFiles<'_>, settings: &Settings) -> Result<(Option<String>, Option<String>), SaeError> {
    if let Some(module) = settings.text("hf_hook_point_in")? {
        return Ok((of_module(module), settings.text("hf_hook_point_out")?.and_then(of_module)));
    }
    let parts = files.path_parts();
    let layer = files.layer_in_path(&["layer_"]);
    let is = |words: &[&str]| parts.iter().any(|part| words.iter().any(|word| part.contains(word)));
    Ok(if is(&["embedding"]) {
        (Some(HookPoint::Embed.to_string()), None)
    } else if is(&["transcoder"]) {
        (named(HookPoint::MlpInput, layer), named(HookPoint::MlpOut, layer))
    } else if is(&["-res", "resid_post"]) {
        (named(HookPoint::ResidPost, layer), None)
    } else if is(&["-mlp", "mlp_out"]) {
        (named(HookPoint::MlpOut, layer), None)
    } else if is(&["-att", "attn_out"]) {
        (named(HookPoint::AttnZ, layer), None)
    } else {
        (None, None)
    })
}
