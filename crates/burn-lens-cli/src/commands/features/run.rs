//! `burn-lens features run`

use burn_lens::{
    FeatureFolder, Pretrained,
    hooks::HookedModel as _,
    sae::features::{FeatureRun, Forecast, Progress as Done, collect, operations_per_second, shard},
};
use serde_json::json;

use super::{Paced, args::RunArgs, output, setup::Setup, source};
use crate::{
    error::CliError,
    load::load,
    progress::Progress,
    prompts,
    report::{Report, bytes, grouped},
};

/// The folder of activations below OUT.
pub(super) const ACTIVATIONS: &str = "activations";

/// Runs over the tokens and, unless this is one of several shards, makes the features.
pub(super) fn run(args: &RunArgs, progress: &Progress) -> Result<Report, CliError> {
    let lens = load(&args.name, &args.model, progress)?;
    let tokens = prompts::corpus(&args.corpus, &lens, progress)?;
    let special = prompts::special(&lens).into_iter().filter_map(|id| u32::try_from(id).ok());
    let options = args.what.options(special, args.model.seed);
    let setup = Setup::of(args, &options);
    let source = source::open(&setup, &lens, progress)?;
    let source_b = source::open_b(&setup, &lens, progress)?;
    let run = FeatureRun {
        model: &lens.model,
        model_name: &setup.model_name(),
        source: &*source,
        source_b: source_b.as_deref(),
        tokens: &tokens,
        options: &options,
    };
    forecast(&run, &lens, progress)?;
    let mut store = FeatureFolder::create(args.out.out.join(ACTIVATIONS))?;
    setup.save(&mut store)?;
    let prompts = match args.shard {
        None => 0..tokens.n_prompts(),
        Some(part) => shard(tokens.n_prompts(), part.index, part.count)?,
    };
    if prompts.is_empty() {
        return Err(CliError::EmptyShard { n_prompts: tokens.n_prompts() });
    }
    let mut step = Paced::new(progress, "prompts", prompts.len());
    collect(&run, prompts.clone(), &mut store, &mut |done: Done| step.at(done.done))?;
    drop(step);
    if args.shard.is_some_and(|shard| shard.count > 1) {
        return Ok(shard_report(args, &prompts));
    }
    output::features(&run, &lens, &[&store], &args.out, progress)
}

fn shard_report(args: &RunArgs, prompts: &std::ops::Range<usize>) -> Report {
    let mut report = Report::default();
    let out = args.out.out.display();
    report.line(format_args!(
        "kept the activations of prompts {} to {} in {out}",
        prompts.start,
        prompts.end - 1
    ));
    report.line("`burn-lens features merge` makes the features when all shards are there");
    report.json = json!({ "out": args.out.out, "prompts": [prompts.start, prompts.end] });
    report
}

/// Says what it will cost.
fn forecast(run: &FeatureRun<'_>, lens: &Pretrained, progress: &Progress) -> Result<(), CliError> {
    /// A run of less than this needs no announcement.
    const SHORT: f64 = 2.0;
    let forecast = Forecast::of(run);
    let rate = operations_per_second(&lens.model.device()).map_err(CliError::Setup)?;
    let seconds = forecast.seconds(rate);
    if seconds >= SHORT {
        progress.note(&format!(
            "{} tokens: about {} of products of matrices, {} on disk and up to {} of memory beside the model",
            grouped(run.tokens.n_prompts() * run.tokens.n_positions()),
            duration(seconds),
            bytes(forecast.stored_bytes),
            bytes(forecast.memory_bytes),
        ));
    }
    Ok(())
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
