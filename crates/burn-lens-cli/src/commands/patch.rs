//! `burn-lens patch`

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

use burn_lens::{
    Pretrained, Tokens,
    analysis::interventions::{Cost, Engine, Patch, SweepOutcome, SweepResult, SweepState, patching_sweep},
    hooks::{ActivationCache, CacheOptions, HookedModel as _},
    io::{read_text, write_atomically},
};
use burn_lens_viz::{Column, Page, Section};
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use serde_json::{Value, json};

use crate::{
    args::ModelArgs,
    error::{CliError, check_folder},
    load::load,
    measure::{Measure, MetricArgs, PairArgs, SweepArgs, marked, pictures},
    next_tokens::plain,
    progress::Progress,
    report::{Align, DIM, Report, table},
};

#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = HELP)]
pub(crate) struct PatchArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) pair: PairArgs,
    #[command(flatten)]
    pub(crate) metric: MetricArgs,
    /// What is taken from the clean run, one cell at a time: resid_pre, resid_mid, resid_post,
    /// attn_out, mlp_out (by layer and position), head_out (or head_z), head_q, head_k, head_v,
    /// head_pattern (by layer and head), pattern_dest_src_pos, or everything of a kind: block_every,
    /// head_every
    #[arg(long, default_value = "resid_pre", value_name = "WHAT", verbatim_doc_comment)]
    pub(crate) what: String,
    /// Heads one position at a time
    #[arg(long)]
    pub(crate) by_pos: bool,
    /// Compute each cell, or estimate all from one backward pass
    #[arg(long, default_value = "exact", value_name = "METHOD", value_parser = method())]
    pub(crate) method: Method,
    /// How many cells to list, the largest effects first; all values with --json
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) top: usize,
    /// Keep the state of the sweep here, and go on from it if it is there
    #[arg(long, value_name = "FILE.json")]
    pub(crate) state: Option<PathBuf>,
    /// Also write a page that opens offline
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sweep: SweepArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

// MODEL first: behind `--clean TEXT…` it would be one more text.
const USAGE: &str = "burn-lens patch <MODEL> --clean <TEXT>... --corrupt <TEXT>... --answer <TOKEN>... \
                     [--against <TOKEN>...] [--what <WHAT>] [OPTIONS]";

const HELP: &str = "\
The model runs on the corrupt prompts; each cell puts one activation of the clean run in its place.
Values are shown as shares of the way from corrupt (0) to clean (1). Only what a patch can change is
computed; --verify N compares N cells with whole runs.";

/// Exact or estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Exact,
    Attribution,
}

fn method() -> impl clap::builder::TypedValueParser<Value = Method> {
    PossibleValuesParser::new(["exact", "attribution"]).map(|name| match name.as_str() {
        "attribution" => Method::Attribution,
        _ => Method::Exact,
    })
}

/// What was found.
struct Found {
    result: SweepResult,
    /// The metric of the clean run, mean over prompts.
    clean: f64,
    cost: Option<Cost>,
    patch: Patch,
}

/// Patches.
pub(crate) fn patch(args: &PatchArgs, progress: &Progress) -> Result<Report, CliError> {
    for path in args.html.iter().chain(&args.state) {
        check_folder(path)?;
    }
    let patch: Patch = args.what.parse()?;
    let patch = if args.by_pos { patch.by_pos() } else { patch };
    let lens = load(&args.name, &args.model, progress)?;
    let [clean, corrupt] = args.pair.tokens(&lens)?;
    let names = CacheOptions::names(patch.hooks(&lens.model));
    let (output, cache) = lens.model.run_with_cache(&clean.input(), &clean.options(), &names)?;
    let logits = output.into_logits()?;
    let prompts = clean.batch.ids.len();
    let measure = args.metric.measure(&lens, prompts, || Ok(logits))?;
    let found = found(args, &lens, patch, (&clean, &corrupt), (&measure, cache), progress)?;
    let positions = labels(&lens, &clean);
    let shares = found.result.normalized(found.clean);
    let mut report = Report::default();
    describe(&measure, &found, &mut report);
    for picture in pictures(&found.result, &finite(&shares), &positions) {
        picture.draw(&mut report)?;
    }
    list(args, &found, &positions, &mut report);
    if let Some(path) = &args.html {
        let html = page(args, &lens, &found, (&measure, &clean, &corrupt)).to_html()?;
        write_atomically(path, |file| std::io::Write::write_all(file, html.as_bytes()))?;
        report.line(format_args!("\nwrote {}", path.display()));
    }
    report.json = json(args, &lens, &measure, &found, &positions);
    Ok(report)
}

fn found(
    args: &PatchArgs,
    lens: &Pretrained,
    patch: Patch,
    (clean, corrupt): (&Tokens, &Tokens),
    (measure, cache): (&Measure, ActivationCache),
    progress: &Progress,
) -> Result<Found, CliError> {
    let options = args.sweep.options(args.model.seed);
    let engine =
        Engine::new(&lens.model, &corrupt.ids, &corrupt.options(), &measure.metric, options.clone())?;
    let of_clean = Engine::new(&lens.model, &clean.ids, &clean.options(), &measure.metric, options)?;
    let clean_value = of_clean.measure(&[])?;
    let clean_value = clean_value.iter().sum::<f64>() / clean_value.len() as f64;
    let sweep = patching_sweep(&lens.model, patch, &Arc::new(cache), clean.ids.dims()[1])?;
    let (result, cost) = match args.method {
        Method::Attribution => (engine.attribute(&sweep)?, None),
        Method::Exact => {
            let prepared = engine.prepare(&sweep)?;
            let cost = prepared.cost();
            if cost.time.as_secs() > 2 {
                progress.note(&format!(
                    "{} cells, the work of {:.1} passes: about {:.0?}",
                    cost.cells, cost.forwards, cost.time
                ));
            }
            let counter = progress.counter("patching", cost.cells);
            let mut failed = None;
            let outcome = prepared.run(state(args)?, &mut |at| {
                counter.at(at.done);
                if let Some(path) = &args.state
                    && let Err(error) = keep(path, at.state)
                {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            match (outcome, failed) {
                (_, Some(error)) => return Err(error),
                (SweepOutcome::Done(result), None) => (result, Some(cost)),
                (SweepOutcome::Interrupted(_), None) => unreachable!("nothing interrupts it"),
            }
        }
    };
    Ok(Found { result, clean: clean_value, cost, patch })
}

fn state(args: &PatchArgs) -> Result<Option<SweepState>, CliError> {
    let Some(path) = args.state.as_ref().filter(|path| path.exists()) else { return Ok(None) };
    let text = read_text(path)?;
    serde_json::from_str(&text).map(Some).map_err(|error| CliError::State { path: path.clone(), error })
}

fn keep(path: &std::path::Path, state: &SweepState) -> Result<(), CliError> {
    let text =
        serde_json::to_string(state).map_err(|error| CliError::State { path: path.to_owned(), error })?;
    Ok(write_atomically(path, |file| std::io::Write::write_all(file, text.as_bytes()))?)
}

/// Positions by the first clean prompt's tokens.
fn labels(lens: &Pretrained, tokens: &Tokens) -> Vec<String> {
    let first = tokens.batch.ids[0].iter().enumerate();
    first.map(|(at, &id)| format!("{at} {}", plain(lens.tokenizer.as_ref(), id).trim())).collect()
}

/// Clean and corrupt of equal value leave shares undefined: shown as nothing.
fn finite(shares: &[f64]) -> Vec<f64> {
    shares.iter().map(|share| if share.is_finite() { *share } else { 0.0 }).collect()
}

fn describe(measure: &Measure, found: &Found, report: &mut Report) {
    report.heading(format_args!("{} of the clean run, patched into the corrupt run", found.patch));
    let corrupt = found.result.base_value();
    report.line(format_args!("{}: clean {:+.4}, corrupt {corrupt:+.4}", measure.text, found.clean));
    match &found.cost {
        Some(Cost { cells, unchanged, forwards, .. }) => report.line(format_args!(
            "{DIM}{cells} cells, {unchanged} of which change nothing; the work of {forwards:.1} whole passes{DIM:#}"
        )),
        None => report.line(format_args!("{DIM}estimated from one backward pass{DIM:#}")),
    }
    report.line(format_args!("{DIM}share of the way from corrupt (0) to clean (1):{DIM:#}"));
}

fn list(args: &PatchArgs, found: &Found, positions: &[String], report: &mut Report) {
    let columns: Vec<(&str, Align)> = found
        .result
        .axes
        .iter()
        .map(|axis| (axis.name.as_str(), Align::Left))
        .chain([("metric", Align::Right), ("share", Align::Right)])
        .collect();
    let base = found.result.base_value();
    let row = |(labels, value): (Vec<&str>, f64)| -> Vec<String> {
        let named = labels.iter().zip(&found.result.axes).map(|(label, axis)| {
            let at = label.parse::<usize>().ok().filter(|_| axis.name.ends_with("pos"));
            at.and_then(|at| positions.get(at)).map_or_else(|| (*label).to_owned(), Clone::clone)
        });
        let share = (value - base) / (found.clean - base);
        named.chain([format!("{value:+.4}"), format!("{share:+.3}")]).collect()
    };
    let rows: Vec<Vec<String>> = found.result.largest(args.top).into_iter().map(row).collect();
    report.text.push('\n');
    report.text.push_str(&table(&columns, &rows));
}

fn json(
    args: &PatchArgs,
    lens: &Pretrained,
    measure: &Measure,
    found: &Found,
    positions: &[String],
) -> Value {
    let token = |answer: &crate::answers::Answer| json!({ "id": answer.id, "token": answer.text });
    json!({
        "model": lens.name,
        "what": found.patch.to_string(),
        "method": if args.method == Method::Exact { "exact" } else { "attribution" },
        "metric": measure.name,
        "answers": measure.answers.iter().map(token).collect::<Vec<_>>(),
        "against": measure.against.iter().map(token).collect::<Vec<_>>(),
        "clean": found.clean,
        "corrupt": found.result.base_value(),
        "axes": found.result.axes,
        "positions": positions,
        "values": found.result.values(),
        "standard_errors": found.result.standard_errors(),
        "normalized": found.result.normalized(found.clean),
        "cost": found.cost.map(|cost| json!({
            "cells": cost.cells, "unchanged": cost.unchanged, "full": cost.full, "forwards": cost.forwards,
            "bytes": cost.bytes,
        })),
        "html": args.html,
    })
}

fn page(
    args: &PatchArgs,
    lens: &Pretrained,
    found: &Found,
    (measure, clean, corrupt): (&Measure, &Tokens, &Tokens),
) -> Page {
    let positions = labels(lens, clean);
    let base = found.result.base_value();
    let shares = finite(&found.result.normalized(found.clean));
    let mut map = Section::new(
        &format!("Patching {}", found.patch),
        &format!(
            "{}: clean {:+.4}, corrupt {base:+.4}. Cells are shares of the way from corrupt (0) to clean (1).",
            measure.text, found.clean
        ),
    );
    for picture in pictures(&found.result, &shares, &positions) {
        map = map.grid(picture.grid());
    }
    let columns = found.result.axes.iter().map(|axis| Column::text(&axis.name));
    let columns = columns.chain([Column::number("metric"), Column::number("share")]).collect();
    let row = |(labels, value): (Vec<&str>, f64)| -> Vec<String> {
        let share = (value - base) / (found.clean - base);
        let labels = labels.into_iter().map(str::to_owned);
        labels.chain([format!("{value:+.4}"), format!("{share:+.3}")]).collect()
    };
    let rows = found.result.largest(args.top).into_iter().map(row).collect();
    Page {
        title: format!("Activation patching: {}", lens.name),
        lead:
            "The model runs on the corrupt prompts, with one activation at a time taken from the clean run."
                .to_owned(),
        sections: vec![
            Section::new("Clean", "Where the model is right.").tokens(marked(lens, clean, corrupt)),
            Section::new("Corrupt", "What it runs on.").tokens(marked(lens, corrupt, clean)),
            map,
            Section::new("Largest effects", "").table(columns, rows),
        ],
        footer: format!("Written by burn-lens {}. This file needs no network.", env!("CARGO_PKG_VERSION")),
    }
}
