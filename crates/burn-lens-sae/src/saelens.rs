//! SAELens's format: `cfg.json` of version 6 and of those before, and the names of its tensors.

use std::collections::BTreeMap;

use burn::tensor::TensorData;
use burn_lens_tensor::{AnyTensor, Weights};
use serde_json::{Map, Value, json};

use crate::{
    Normalization, Place, SaeConfig, SaeError, SaeKind, SaeOptions, Settings, SparseAutoencoder,
    draft::{Draft, Fold, batch_threshold},
};

/// The version whose format is written.
const VERSION: &str = "6.54.12";

/// Reads a dictionary in SAELens's format: the text of `cfg.json` and the weights beside it.
///
/// # Errors
///
/// If the configuration or a weight is missing or wrong, or there are weights that its kind does not
/// have.
pub fn read_sae_lens(
    config: &str,
    origin: &str,
    weights: &mut dyn Weights,
    options: &SaeOptions,
) -> Result<Box<dyn SparseAutoencoder>, SaeError> {
    let settings = Settings::parse(origin, config)?;
    draft(settings, weights)?.build(weights, options, None)
}

/// What a configuration asks for.
pub(crate) fn draft(settings: Settings, weights: &mut dyn Weights) -> Result<Draft, SaeError> {
    let mut places = BTreeMap::new();
    let mut ignored = vec!["sparsity".to_owned()];
    let mut settings = if is_before_6(&settings)? { upgraded(&settings)? } else { settings };
    if let Some(factors) = finetuning(&settings, weights)? {
        if settings.flag("finetuning_scaling_factor", false)? {
            places.insert("W_dec".to_owned(), Place::Rows("W_dec".to_owned(), factors));
        } else {
            ignored.push(factors);
        }
    }
    let mut unit_decoder = false;
    let mut architecture = settings.text("architecture")?.unwrap_or("standard").to_owned();
    // Saved in training: of a batch the largest were active, of a token those above what that came to.
    if let "batchtopk" | "matryoshka_batchtopk" = architecture.as_str() {
        "jumprelu".clone_into(&mut architecture);
        unit_decoder = settings.flag("rescale_acts_by_decoder_norm", true)?;
        let threshold = batch_threshold(weights, "topk_threshold")?;
        let place = if unit_decoder {
            Place::OverNorms(threshold, "W_dec".to_owned())
        } else {
            Place::Scalar(threshold)
        };
        places.insert("threshold".to_owned(), place);
    } else if weights.shape("log_threshold").is_some() {
        places.insert("threshold".to_owned(), Place::Exp("log_threshold".to_owned()));
    }
    let kind = SaeKind::named(&architecture, settings.origin())?;
    let metadata = settings.object("metadata")?;
    let (normalization, fold) = normalization(&settings)?;
    let d_in = settings.size("d_in")?;
    let hook_z = match settings.text("reshape_activations")?.unwrap_or("none") {
        "none" => false,
        "hook_z" => true,
        other => return Err(settings.wrong("reshape_activations", &other.into(), "none or hook_z")),
    };
    let head = head(&metadata)?;
    // One head is a vector already.
    let hook_z = hook_z && head.is_none();
    let hook = |key: &str| Ok::<_, SaeError>(metadata.text(key)?.map(str::to_owned));
    let d_out = settings.optional_size("d_out")?.unwrap_or(d_in);
    let config = SaeConfig {
        name: metadata.text("neuronpedia_id")?.unwrap_or(settings.origin()).to_owned(),
        d_in,
        d_sae: settings.size("d_sae")?,
        d_out,
        apply_b_dec_to_input: settings.flag("apply_b_dec_to_input", !kind.name.ends_with("transcoder"))?,
        normalization,
        hook_z,
        head,
        hook_name: hook("hook_name")?,
        hook_name_out: hook("hook_name_out")?,
        metadata: metadata.values().clone(),
    };
    settings.remove("metadata");
    let mut folds = Vec::from_iter(fold);
    if unit_decoder {
        // Of activations that were scaled the norms are those that the scale leaves; what was whitened
        // was whitened in training.
        let at = folds.iter().filter(|fold| matches!(fold, Fold::Scale(_))).count();
        folds.insert(at, Fold::DecoderNorms);
    }
    Ok(Draft { kind, config, settings, places, ignored, folds })
}

/// The one head that is read.
fn head(metadata: &Settings) -> Result<Option<usize>, SaeError> {
    let Some(value) = metadata.get("hook_head_index") else { return Ok(None) };
    let head = value.as_u64().and_then(|head| usize::try_from(head).ok());
    head.map(Some).ok_or_else(|| metadata.wrong("hook_head_index", value, "the number of a head, from 0"))
}

fn normalization(settings: &Settings) -> Result<(Normalization, Option<Fold>), SaeError> {
    let plain = |normalization| Ok((normalization, None));
    match settings.text("normalize_activations")?.unwrap_or("none") {
        "none" => plain(Normalization::None),
        "layer_norm" => plain(Normalization::LayerNorm),
        "constant_norm_rescale" => plain(Normalization::ConstantNormRescale),
        "constant_scalar_rescale" => {
            let factor = settings.optional_number("activation_normalization_factor")?.unwrap_or(1.0);
            plain(Normalization::ConstantScalarRescale(factor))
        }
        "expected_average_only_in" => {
            Ok((Normalization::None, Some(Fold::Scale(settings.optional_number("scaling_factor")?))))
        }
        "covariance_whitening" => Ok((Normalization::None, Some(Fold::Whitening))),
        other => {
            let expected = "none, expected_average_only_in, constant_norm_rescale, constant_scalar_rescale, \
                            layer_norm or covariance_whitening";
            Err(settings.wrong("normalize_activations", &other.into(), expected))
        }
    }
}

/// Whether the configuration was written before version 6.
fn is_before_6(settings: &Settings) -> Result<bool, SaeError> {
    let metadata = settings.object("metadata")?;
    let version = match settings.text("sae_lens_version")? {
        Some(version) => Some(version),
        None => metadata.text("sae_lens_version")?,
    };
    let major = version.and_then(|version| version.split('.').next()?.parse::<u64>().ok());
    Ok(major.is_none_or(|major| major < 6))
}

/// A configuration from before version 6, as version 6 would write it.
fn upgraded(old: &Settings) -> Result<Settings, SaeError> {
    /// What is not metadata.
    const OWN: [&str; 16] = [
        "d_in",
        "d_sae",
        "d_out",
        "dtype",
        "device",
        "apply_b_dec_to_input",
        "normalize_activations",
        "reshape_activations",
        "architecture",
        "finetuning_scaling_factor",
        "k",
        "activation_fn",
        "activation_fn_kwargs",
        "rescale_acts_by_decoder_norm",
        "metadata",
        "expansion_factor",
    ];
    let renamed = |key: &str| {
        match key {
            "hook_point" => "hook_name",
            "hook_point_head_index" => "hook_head_index",
            "activation_fn_str" => "activation_fn",
            other => other,
        }
        .to_owned()
    };
    let origin = old.origin().to_owned();
    let (own, metadata): (Map<_, _>, Map<_, _>) = old
        .values()
        .iter()
        .map(|(key, value)| (renamed(key), value.clone()))
        .partition(|(key, _)| OWN.contains(&key.as_str()));
    let mut new = Settings::new(origin.clone(), own);
    let mut all = new.object("metadata")?.values().clone();
    all.extend(metadata);
    let metadata = Settings::new(origin, all);
    if !new.has("reshape_activations") {
        let is_z = metadata.text("hook_name")?.is_some_and(|hook| hook.contains("hook_z"));
        new.set("reshape_activations", if is_z { "hook_z" } else { "none" });
    }
    if !new.has("d_sae")
        && let Some(factor) = new.optional_size("expansion_factor")?
    {
        new.set("d_sae", factor * new.size("d_in")?);
    }
    if let Some(&Value::Bool(scaled)) = new.get("normalize_activations") {
        new.set("normalize_activations", if scaled { "expected_average_only_in" } else { "none" });
    }
    let kwargs = new.object("activation_fn_kwargs")?;
    match new.text("activation_fn")?.unwrap_or("relu") {
        "relu" => {}
        "topk" => {
            new.set("architecture", "topk");
            new.set("k", kwargs.size("k")?);
        }
        other => return Err(new.wrong("activation_fn", &other.into(), "relu or topk")),
    }
    new.set("metadata", metadata.values().clone());
    Ok(new)
}

/// The tensor of factors for the decoder's rows that some versions wrote. Where the configuration
/// does not use it, it must be ones.
fn finetuning(settings: &Settings, weights: &mut dyn Weights) -> Result<Option<String>, SaeError> {
    let found = ["scaling_factor", "finetuning_scaling_factor"]
        .into_iter()
        .find_map(|name| Some((name, weights.shape(name)?)));
    let Some((name, shape)) = found else { return Ok(None) };
    if !settings.flag("finetuning_scaling_factor", false)? {
        let data = weights.get(name, &shape)?;
        if data.iter::<f64>().any(|factor| (factor - 1.0).abs() > 1e-5) {
            let expected =
                format!("true, as {} holds a tensor `{name}` that is not all ones", weights.origin());
            return Err(settings.wrong("finetuning_scaling_factor", &false.into(), &expected));
        }
    }
    Ok(Some(name.to_owned()))
}

/// The text of `cfg.json` for a dictionary.
#[must_use]
pub fn sae_lens_config(sae: &dyn SparseAutoencoder) -> String {
    let config = sae.config();
    let mut metadata = config.metadata.clone();
    for (key, hook) in [("hook_name", &config.hook_name), ("hook_name_out", &config.hook_name_out)] {
        if let Some(hook) = hook {
            metadata.insert(key.to_owned(), hook.as_str().into());
        }
    }
    if let Some(head) = config.head {
        metadata.insert("hook_head_index".to_owned(), head.into());
    }
    metadata.insert("sae_lens_version".to_owned(), VERSION.into());
    let mut json = json!({
        "architecture": sae.kind(),
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "dtype": dtype(sae),
        "device": "cpu",
        "apply_b_dec_to_input": config.apply_b_dec_to_input,
        "normalize_activations": config.normalization.name(),
        "reshape_activations": if config.hook_z { "hook_z" } else { "none" },
        "metadata": metadata,
    });
    if !sae.base().undoes_normalization {
        json["d_out"] = config.d_out.into();
    }
    if let Normalization::ConstantScalarRescale(factor) = config.normalization {
        json["activation_normalization_factor"] = factor.into();
    }
    for (key, value) in sae.settings() {
        json[key] = value;
    }
    format!("{json:#}\n")
}

fn dtype(sae: &dyn SparseAutoencoder) -> &'static str {
    use burn::tensor::DType;
    match sae.base().w_dec.dtype() {
        DType::F64 => "float64",
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        _ => "float32",
    }
}

/// The tensors of `sae_weights.safetensors` for a dictionary.
///
/// # Errors
///
/// If the device fails.
pub fn sae_lens_tensors(sae: &dyn SparseAutoencoder) -> Result<Vec<(String, TensorData)>, SaeError> {
    let base = sae.base();
    let mut tensors: Vec<(String, AnyTensor)> = vec![
        ("W_dec".to_owned(), base.w_dec.clone().into()),
        ("b_dec".to_owned(), base.b_dec.clone().into()),
    ];
    if !sae.is_tied() {
        tensors.push(("W_enc".to_owned(), base.w_enc.clone().into()));
    }
    tensors.extend(sae.own_tensors());
    tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.into_data()?))).collect()
}
