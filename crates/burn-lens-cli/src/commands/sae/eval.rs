//! `burn-lens sae eval`

use burn_lens::{
    hooks::HookedModel as _,
    sae::{SaeEvaluation, SaeMetrics, SplicedSae},
};
use serde_json::{Value, json};

use super::args::EvalArgs;
use crate::{
    error::CliError,
    load::load,
    progress::Progress,
    prompts,
    report::{Report, grouped, pairs},
};

/// Runs the model with and without the dictionary.
pub(super) fn eval(args: &EvalArgs, progress: &Progress) -> Result<Report, CliError> {
    let lens = load(&args.name, &args.model, progress)?;
    let device = lens.model.device();
    let sae = args.files.open(&args.sae, &device, args.model.dtype, progress)?;
    let table = prompts::corpus(&args.corpus, &lens, progress)?;
    let mut spliced = SplicedSae::new(sae);
    if args.exclude_special {
        spliced = spliced.excluding(prompts::special(&lens));
    }
    let mut evaluation = SaeEvaluation::new(&spliced)?;
    let n = table.n_prompts();
    let step = progress.counter("prompts", n);
    for start in (0..n).step_by(args.batch.max(1)) {
        let end = (start + args.batch.max(1)).min(n);
        let (tokens, mask) = table.input(start..end, &device);
        evaluation.add(&lens.model, &tokens, mask.as_ref())?;
        step.at(end);
    }
    drop(step);
    let metrics = evaluation.metrics()?;
    Ok(report(args, &metrics))
}

fn report(args: &EvalArgs, metrics: &SaeMetrics) -> Report {
    let number = |value: f64| format!("{value:.4}");
    let score = |value: Option<f64>| value.map_or_else(|| "undefined: zeros lose nothing".to_owned(), number);
    let mut report = Report::default();
    report.heading(format_args!("{} in {}", args.sae.display(), args.name));
    let d_sae = metrics.densities.len();
    report.text.push_str(&pairs(&[
        ("loss recovered", score(metrics.ce_score)),
        (
            "loss",
            format!(
                "{:.4} as it is, {:.4} with the reconstruction, {:.4} with zeros",
                metrics.ce_clean, metrics.ce_sae, metrics.ce_zero
            ),
        ),
        ("KL recovered", score(metrics.kl_score)),
        ("KL", format!("{:.4} with the reconstruction, {:.4} with zeros", metrics.kl_sae, metrics.kl_zero)),
        ("L0", format!("{:.2} of {} features", metrics.l0, grouped(d_sae))),
        ("L1", number(metrics.l1)),
        ("explained variance", number(metrics.explained_variance)),
        ("squared error", number(metrics.mse)),
        ("cosine", number(metrics.cosine)),
        (
            "norms",
            format!("{:.4} in, {:.4} out, ratio {:.4}", metrics.l2_in, metrics.l2_out, metrics.l2_ratio),
        ),
        ("bias", number(metrics.relative_reconstruction_bias)),
        ("never active", format!("{} of {} features", grouped(metrics.n_dead), grouped(d_sae))),
        (
            "over",
            format!(
                "{} tokens, {} predictions",
                grouped(metrics.n_tokens as usize),
                grouped(metrics.n_predictions as usize)
            ),
        ),
    ]));
    let mut json = serde_json::to_value(metrics).unwrap_or(Value::Null);
    json["model"] = json!(args.name);
    json["sae"] = json!(args.sae);
    report.json = json;
    report
}
