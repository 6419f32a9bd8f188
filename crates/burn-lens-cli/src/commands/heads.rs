//! `burn-lens heads`

use burn_lens::{
    Pretrained,
    analysis::{
        Circuits, Folding,
        interventions::{
            DetectOptions, ErrorMeasure, HeadPattern, HeadScores, RepeatedTokens, detect_heads,
            induction_scores,
        },
    },
    hooks::HookedModel as _,
    io::{TokenOptions, write_atomically},
};
use burn_lens_viz::{Grid, Page, Section, SignedMap};
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use serde_json::json;

use crate::{
    args::ModelArgs,
    error::{CliError, check_folder},
    load::load,
    measure::palette,
    progress::Progress,
    report::{Align, DIM, Report, table},
};

#[derive(Debug, Args)]
#[command(override_usage = "burn-lens heads <MODEL> [--prompt <TEXT>...] [OPTIONS]", after_help = HELP)]
pub(crate) struct HeadsArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    /// Score heads on these texts rather than on random tokens said twice
    #[arg(long, short, value_name = "TEXT", num_args = 1..)]
    pub(crate) prompt: Vec<String>,
    /// How patterns are compared with what is expected
    #[arg(long, default_value = "mul", value_name = "MEASURE", value_parser = measure())]
    pub(crate) measure: ErrorMeasure,
    /// Leave attention to the first position out
    #[arg(long)]
    pub(crate) exclude_bos: bool,
    /// Leave attention to the own position out
    #[arg(long)]
    pub(crate) exclude_current_token: bool,
    /// How many random tokens are said twice
    #[arg(long, default_value_t = 25, value_name = "N")]
    pub(crate) segment: usize,
    /// How many random texts
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(crate) texts: usize,
    /// How many heads to list for each score
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) top: usize,
    /// Also write a page that opens offline
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

const HELP: &str = "\
mul: the share of attention that is where the pattern expects it. abs: 1 less the mean distance from
the expected pattern. induction_score: attention, on random tokens said twice, to the token behind the
earlier occurrence. copying: the share of positive eigenvalues of W_E OV W_U.";

fn measure() -> impl clap::builder::TypedValueParser<Value = ErrorMeasure> {
    PossibleValuesParser::new(["mul", "abs"]).map(|name| match name.as_str() {
        "abs" => ErrorMeasure::Abs,
        _ => ErrorMeasure::Mul,
    })
}

/// Scores heads.
pub(crate) fn heads(args: &HeadsArgs, progress: &Progress) -> Result<Report, CliError> {
    if let Some(path) = &args.html {
        check_folder(path)?;
    }
    let lens = load(&args.name, &args.model, progress)?;
    let step = progress.step("scoring heads");
    let scores = scores(args, &lens)?;
    drop(step);
    let mut report = Report::default();
    let names = |count: usize| (0..count).map(|at| at.to_string()).collect::<Vec<_>>();
    let mut sections = Vec::new();
    for (name, scores) in &scores {
        report.heading(name);
        let (rows, columns) = (names(scores.n_layers), names(scores.n_heads));
        let map =
            SignedMap { axes: ["layer", "head"], rows: &rows, columns: &columns, values: &scores.values };
        report.text.push_str(&map.to_text(palette())?);
        let best = scores.largest(args.top);
        let row = |&((layer, head), value): &((usize, usize), f64)| {
            vec![format!("L{layer}H{head}"), format!("{value:.3}")]
        };
        let rows_of: Vec<Vec<String>> = best.iter().map(row).collect();
        report.text.push_str(&table(&[("head", Align::Left), ("score", Align::Right)], &rows_of));
        let listed: Vec<String> = rows_of.iter().map(|row| row.join(" ")).collect();
        let grid = Grid::heat_map(["layer", "head"], rows, columns, &scores.values);
        sections.push(Section::new(name, &format!("Most: {}.", listed.join(", "))).grid(grid));
    }
    if args.prompt.is_empty() {
        report.line(format_args!(
            "{DIM}{} texts of {} random tokens said twice, seed {}{DIM:#}",
            args.texts, args.segment, args.model.seed
        ));
    }
    if let Some(path) = &args.html {
        let page = Page {
            title: format!("What heads attend to: {}", lens.name),
            lead: "How much each head's attention looks like a pattern that is known from circuits."
                .to_owned(),
            sections,
            footer: format!(
                "Written by burn-lens {}. This file needs no network.",
                env!("CARGO_PKG_VERSION")
            ),
        };
        let html = page.to_html()?;
        write_atomically(path, |file| std::io::Write::write_all(file, html.as_bytes()))?;
        report.line(format_args!("\nwrote {}", path.display()));
    }
    let all: serde_json::Map<String, serde_json::Value> =
        scores.iter().map(|(name, scores)| (name.clone(), json!(scores))).collect();
    report.json = json!({ "model": lens.name, "scores": all, "html": args.html });
    Ok(report)
}

fn scores(args: &HeadsArgs, lens: &Pretrained) -> Result<Vec<(String, HeadScores)>, CliError> {
    let special = lens.tokenizer.as_ref();
    let bos = special.and_then(burn_lens::io::Tokenizer::bos);
    let left_out = [
        bos,
        special.and_then(burn_lens::io::Tokenizer::eos),
        special.and_then(burn_lens::io::Tokenizer::unk),
    ];
    let d_vocab = lens.model.dims().d_vocab as i64;
    let draw = RepeatedTokens {
        tokens: (0..d_vocab).filter(|id| !left_out.contains(&Some(*id))).collect(),
        bos,
        segment: args.segment,
        texts: args.texts,
        seed: args.model.seed,
    };
    let texts = if args.prompt.is_empty() {
        draw.texts()
    } else {
        let one = |text: &String| -> Result<Vec<i64>, CliError> {
            Ok(lens.to_tokens_with(&[text], TokenOptions::default())?.batch.ids.remove(0))
        };
        args.prompt.iter().map(one).collect::<Result<_, _>>()?
    };
    let mut scores = Vec::new();
    // Before what it detects with, which would refuse in other words.
    let induction = induction_scores(&lens.model, &draw)?;
    for pattern in HeadPattern::NAMED {
        let name = pattern.name().to_owned();
        let options = DetectOptions {
            measure: args.measure,
            exclude_bos: args.exclude_bos,
            exclude_current_token: args.exclude_current_token,
            ..DetectOptions::new(pattern)
        };
        scores.push((name, detect_heads(&lens.model, &texts, &options)?));
    }
    scores.push(("induction_score".to_owned(), induction));
    let dims = lens.model.dims();
    if dims.d_vocab == dims.d_vocab_out {
        let copying = Circuits::new(&lens.model, Folding::default())?.copying_scores()?;
        let values = copying.data().to_vec();
        scores.push((
            "copying".to_owned(),
            HeadScores { n_layers: dims.n_layers, n_heads: dims.n_heads, values },
        ));
    }
    Ok(scores)
}
