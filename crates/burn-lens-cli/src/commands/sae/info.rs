//! `burn-lens sae info`

use burn_lens::{
    sae::{SAE_KINDS, SparseAutoencoder, sae_lens_tensors},
    tensor::{DeviceSpec, FloatType},
};
use serde_json::json;

use super::args::InfoArgs;
use crate::{
    error::CliError,
    progress::Progress,
    prompts,
    report::{Report, grouped, pairs},
};

/// Says what a dictionary is.
pub(super) fn info(args: &InfoArgs, progress: &Progress) -> Result<Report, CliError> {
    let device = DeviceSpec::cpu().open().map_err(burn_lens::Error::from)?;
    let sae = args.files.open(&args.path, &device, FloatType::F32, progress)?;
    let config = sae.config();
    let formula = SAE_KINDS.iter().find(|kind| kind.name == sae.kind()).map_or("", |kind| kind.formula);
    let tensors = sae_lens_tensors(&*sae)?;
    let parameters: usize = tensors.iter().map(|(_, data)| data.num_elements()).sum();
    let norms = norms(&*sae)?;
    let text = |key: &str| config.metadata.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let hook = |name: &Option<String>| name.clone().unwrap_or_else(|| "not said".to_owned());
    let head = config.head.map_or_else(String::new, |head| format!(", head {head}"));
    let reads = hook(&config.hook_name) + &head;
    let mut rows = vec![
        ("kind", sae.kind().to_owned()),
        ("codes", formula.to_owned()),
        ("format", text("format").unwrap_or_default()),
        ("model", text("model_name").unwrap_or_else(|| "not said".to_owned())),
        ("reads", reads),
    ];
    if !sae.base().undoes_normalization || config.is_transcoder() {
        rows.push(("writes", hook(&config.hook_name_out)));
    }
    let settings = sae.settings();
    let settings: Vec<String> = settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    rows.extend([
        ("sizes", format!("{} -> {} features -> {}", config.d_in, grouped(config.d_sae), config.d_out)),
        ("parameters", grouped(parameters)),
        ("inputs", inputs(&*sae)),
        ("decoder norms", format!("{:.4} to {:.4}, mean {:.4}", norms.least, norms.most, norms.mean)),
    ]);
    if !settings.is_empty() {
        rows.push(("settings", settings.join(", ")));
    }
    let mut report = Report::default();
    report.heading(args.path.display());
    report.text.push_str(&pairs(&rows));
    report.json = json!({
        "path": args.path, "kind": sae.kind(), "formula": formula, "format": text("format"),
        "model": text("model_name"), "hook_name": config.hook_name, "hook_name_out": config.hook_name_out,
        "d_in": config.d_in, "d_sae": config.d_sae, "d_out": config.d_out, "parameters": parameters,
        "apply_b_dec_to_input": config.apply_b_dec_to_input,
        "normalize_activations": config.normalization.name(), "hook_z": config.hook_z, "head": config.head,
        "decoder_norms": { "min": norms.least, "max": norms.most, "mean": norms.mean },
        "settings": sae.settings(), "metadata": config.metadata,
    });
    Ok(report)
}

/// What is done to inputs, in words.
fn inputs(sae: &dyn SparseAutoencoder) -> String {
    let config = sae.config();
    let mut steps = Vec::new();
    if config.hook_z {
        steps.push("heads side by side");
    }
    if config.normalization.name() != "none" {
        steps.push(config.normalization.name());
    }
    if config.apply_b_dec_to_input {
        steps.push("b_dec subtracted");
    }
    if steps.is_empty() { "as they are".to_owned() } else { steps.join(", ") }
}

struct Norms {
    least: f64,
    most: f64,
    mean: f64,
}

fn norms(sae: &dyn SparseAutoencoder) -> Result<Norms, CliError> {
    let norms = prompts::values(sae.base().w_dec.clone().square().sum_dim(1).sqrt())?;
    let fold = |f: fn(f64, f64) -> f64| norms.iter().copied().reduce(f).unwrap_or_default();
    let mean = norms.iter().sum::<f64>() / norms.len() as f64;
    Ok(Norms { least: fold(f64::min), most: fold(f64::max), mean })
}
