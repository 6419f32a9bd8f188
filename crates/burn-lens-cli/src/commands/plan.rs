//! `burn-lens run --plan`: what a run would do.

use burn_lens::{
    Pretrained, Tokens,
    hooks::{Hook, HookPoint, HookedModel as _, Hooks, RunOptions},
    models::{AttentionPath, Plan, PlannedRun},
};
use serde_json::{Value, json};

use crate::{
    args::RunArgs,
    error::CliError,
    report::{Align, Report, bytes, pairs, table},
};

/// Plans a run of `tokens` with these options, hooks and activations to keep.
pub(super) fn plan(
    args: &RunArgs,
    lens: &Pretrained,
    (tokens, options): (&Tokens, &RunOptions),
    hooks: Vec<Hook<'_>>,
    kept: &[HookPoint],
) -> Result<Report, CliError> {
    let firing = lens.model.firing_in(&tokens.input(), options);
    let hooks = Hooks::resolve(hooks, None, &firing)?;
    let all = firing.always.iter().chain(&firing.optional).copied();
    let run = PlannedRun {
        size: tokens.ids.dims(),
        options,
        kept,
        kept_pos: &args.pos.clone().unwrap_or_default(),
        hooked: &all.filter(|&point| hooks.wants(point)).collect::<Vec<_>>(),
    };
    let plan = lens.model.plan(&run)?;
    let mut report = Report::default();
    told(&mut report, &plan, run.size);
    report.json = json(&lens.name, &plan, run.size);
    Ok(report)
}

fn told(report: &mut Report, plan: &Plan, [batch, pos]: [usize; 2]) {
    let [start, stop] = plan.layers;
    let end = if plan.stopped { "the residual stream" } else { "logits" };
    let rows = [
        ("input", format!("{batch} x {pos} tokens")),
        ("blocks", format!("{start}..{stop}, then {end}")),
        ("attention", attention(&plan.attention)),
        ("matrix products", flops(plan.flops())),
        ("weights", bytes(plan.weights_bytes)),
        ("kept", format!("{} activations, {}", plan.kept.len(), bytes(plan.kept_bytes()))),
        ("peak", format!("{} of activations beside the weights", bytes(plan.peak_bytes))),
    ];
    report.text.push_str(&pairs(&rows));
    report.heading("Parts");
    let columns = [("part", Align::Left), ("shape", Align::Left), ("products", Align::Right)];
    let rows: Vec<Vec<String>> = plan
        .parts
        .iter()
        .map(|part| vec![part.name.clone(), shape(&part.shape), flops(part.flops)])
        .collect();
    report.text.push_str(&table(&columns, &rows));
    if plan.kept.is_empty() {
        return;
    }
    report.heading("Kept");
    let columns = [("activation", Align::Left), ("shape", Align::Left), ("size", Align::Right)];
    let rows: Vec<Vec<String>> = plan
        .kept
        .iter()
        .map(|kept| {
            let size = if kept.bytes == 0 { "from scores".to_owned() } else { bytes(kept.bytes) };
            vec![kept.point.to_string(), shape(&kept.shape), size]
        })
        .collect();
    report.text.push_str(&table(&columns, &rows));
}

fn attention(path: &AttentionPath) -> String {
    match path {
        AttentionPath::Fused => "block by block, scores and patterns are not stored".to_owned(),
        AttentionPath::Stored { layers } => {
            let layers: Vec<String> = layers.iter().map(ToString::to_string).collect();
            format!("scores and patterns stored in blocks {}, where they are looked at", layers.join(", "))
        }
        AttentionPath::Composed => {
            "scores and patterns stored: there is no kernel for this device and type".to_owned()
        }
    }
}

fn shape(shape: &[usize]) -> String {
    let lengths: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", lengths.join(", "))
}

fn flops(count: u64) -> String {
    match count {
        0 => "-".to_owned(),
        1..=999_999 => format!("{:.1} kFLOP", count as f64 / 1e3),
        1_000_000..=999_999_999 => format!("{:.1} MFLOP", count as f64 / 1e6),
        _ => format!("{:.1} GFLOP", count as f64 / 1e9),
    }
}

fn json(model: &str, plan: &Plan, [batch, pos]: [usize; 2]) -> Value {
    let parts = plan.parts.iter();
    let parts = parts.map(|part| json!({ "name": part.name, "shape": part.shape, "flops": part.flops }));
    let kept = plan
        .kept
        .iter()
        .map(|kept| json!({ "name": kept.point.to_string(), "shape": kept.shape, "bytes": kept.bytes }));
    let attention = match &plan.attention {
        AttentionPath::Fused => json!({ "path": "fused" }),
        AttentionPath::Stored { layers } => json!({ "path": "stored", "layers": layers }),
        AttentionPath::Composed => json!({ "path": "composed" }),
    };
    json!({
        "model": model,
        "batch": batch,
        "pos": pos,
        "blocks": plan.layers,
        "ends_with": if plan.stopped { "resid" } else { "logits" },
        "attention": attention,
        "flops": plan.flops(),
        "weights_bytes": plan.weights_bytes,
        "kept_bytes": plan.kept_bytes(),
        "peak_bytes": plan.peak_bytes,
        "parts": parts.collect::<Vec<_>>(),
        "kept": kept.collect::<Vec<_>>(),
    })
}
