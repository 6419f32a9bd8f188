//! `burn-lens ablate`

use std::sync::Arc;

use burn_lens::{
    Pretrained,
    analysis::interventions::{Ablation, AblationUnit, Engine, Reference, SweepResult, ablation_sweep},
    hooks::{CacheOptions, HookedModel as _, ReturnType, RunOptions},
    io::write_atomically,
};
use burn_lens_viz::{Column, Page, Section};
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use serde_json::json;

use crate::{
    args::{ModelArgs, PromptArgs},
    error::{CliError, check_folder},
    load::load,
    measure::{MetricArgs, SweepArgs, pictures},
    progress::Progress,
    prompts,
    report::{Align, DIM, Report, table},
};

#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = HELP)]
pub(crate) struct AblateArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) input: PromptArgs,
    #[command(flatten)]
    pub(crate) metric: MetricArgs,
    /// What is ablated, one at a time: head, attention or mlp (of a block), or neuron
    #[arg(long, default_value = "head", value_name = "UNIT", value_parser = unit())]
    pub(crate) what: AblationUnit,
    /// What an ablated activation becomes: zero, its mean over --reference, or that of one of its
    /// positions, drawn by --seed
    #[arg(long, default_value = "zero", value_name = "METHOD", value_parser = PossibleValuesParser::new(["zero", "mean", "resample"]))]
    pub(crate) method: String,
    /// Texts that means and samples are taken from; the prompts themselves if not given
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    pub(crate) reference: Vec<String>,
    /// How many cells to list, the largest effects first; all values with --json
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) top: usize,
    /// Also write a page that opens offline
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub(crate) sweep: SweepArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

const USAGE: &str = "burn-lens ablate <MODEL> <--prompt <TEXT>...|--tokens <FILE.safetensors>> [--answer <TOKEN>...] \
                     [--against <TOKEN>...] [OPTIONS]";

const HELP: &str = "\
Values are what the metric loses or gains: the run with the ablation less the run without. Without
--answer the metric is kl, the divergence from the model's own predictions.";

fn unit() -> impl clap::builder::TypedValueParser<Value = AblationUnit> {
    PossibleValuesParser::new(["head", "attention", "mlp", "neuron"])
        .try_map(|name| name.parse::<AblationUnit>())
}

/// Ablates.
pub(crate) fn ablate(args: &AblateArgs, progress: &Progress) -> Result<Report, CliError> {
    if let Some(path) = &args.html {
        check_folder(path)?;
    }
    let lens = load(&args.name, &args.model, progress)?;
    let tokens = prompts::tokens(&args.input, &lens)?;
    let mut metric: MetricArgs = args.metric.clone();
    if metric.answer.is_empty() && metric.metric.is_none() {
        metric.metric = Some("kl".to_owned());
    }
    let logits = || -> Result<_, CliError> {
        Ok(lens.model.run_with_hooks(&tokens.input(), &tokens.options(), Vec::new())?.into_logits()?)
    };
    let measure = metric.measure(&lens, tokens.batch.ids.len(), logits)?;
    let ablation = ablation(args, &lens)?;
    let shape = tokens.ids.dims();
    let sweep = ablation_sweep(&lens.model, args.what, &ablation, shape)?;
    let options = args.sweep.options(args.model.seed);
    let engine = Engine::new(&lens.model, &tokens.ids, &tokens.options(), &measure.metric, options)?;
    let step = progress.step(&format!("ablating {} {:?}s", sweep.cells.len(), args.what).to_lowercase());
    let result = engine.sweep(&sweep)?;
    drop(step);
    let base = result.base_value();
    let effects: Vec<f64> = result.values().iter().map(|value| value - base).collect();
    let mut report = Report::default();
    report.heading(format_args!("{} ablation: {}, without: {base:+.4}", args.method, measure.text));
    report.line(format_args!("{DIM}what the ablation adds to it:{DIM:#}"));
    let drawn = pictures(&result, &effects, &[]);
    for picture in &drawn {
        picture.draw(&mut report)?;
    }
    let rows = rows(&result, args.top);
    let columns: Vec<(&str, Align)> =
        result.axes.iter().map(|axis| (axis.name.as_str(), Align::Left)).collect();
    let columns = [columns, vec![("metric", Align::Right), ("effect", Align::Right)]].concat();
    report.text.push('\n');
    report.text.push_str(&table(&columns, &rows));
    if let Some(path) = &args.html {
        let mut section = Section::new("Effects", &format!("{}, without: {base:+.4}.", measure.text));
        for picture in &drawn {
            section = section.grid(picture.grid());
        }
        let head = result.axes.iter().map(|axis| Column::text(&axis.name));
        let head = head.chain([Column::number("metric"), Column::number("effect")]).collect();
        let page = Page {
            title: format!("Ablation: {}", lens.name),
            lead: "What the metric gains where a part of the model is taken away.".to_owned(),
            sections: vec![section.table(head, rows)],
            footer: format!(
                "Written by burn-lens {}. This file needs no network.",
                env!("CARGO_PKG_VERSION")
            ),
        };
        let html = page.to_html()?;
        write_atomically(path, |file| std::io::Write::write_all(file, html.as_bytes()))?;
        report.line(format_args!("\nwrote {}", path.display()));
    }
    report.json = json!({
        "model": lens.name, "method": args.method, "metric": measure.name, "base": base,
        "axes": result.axes, "values": result.values(), "effects": effects,
        "standard_errors": result.standard_errors(), "html": args.html,
    });
    Ok(report)
}

fn rows(result: &SweepResult, top: usize) -> Vec<Vec<String>> {
    let base = result.base_value();
    let row = |(labels, value): (Vec<&str>, f64)| -> Vec<String> {
        let labels = labels.into_iter().map(str::to_owned);
        labels.chain([format!("{value:+.4}"), format!("{:+.4}", value - base)]).collect()
    };
    result.largest(top).into_iter().map(row).collect()
}

fn ablation(args: &AblateArgs, lens: &Pretrained) -> Result<Ablation, CliError> {
    if args.method == "zero" {
        return Ok(Ablation::Zero);
    }
    let tokens = if args.reference.is_empty() {
        prompts::tokens(&args.input, lens)?
    } else {
        lens.to_tokens(&args.reference)?
    };
    let points: Vec<_> = (0..lens.model.dims().n_layers).map(|layer| args.what.hook(layer)).collect();
    let options = RunOptions { return_type: ReturnType::None, ..tokens.options() };
    let cache = lens.model.run_with_cache(&tokens.input(), &options, &CacheOptions::names(points))?.1;
    let reference = Reference { cache: Arc::new(cache), attention_mask: tokens.attention_mask };
    Ok(match args.method.as_str() {
        "mean" => Ablation::Mean(reference),
        _ => Ablation::Resample(reference, args.model.seed),
    })
}
