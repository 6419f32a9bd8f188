//! `burn-lens lens`

use std::path::PathBuf;

use burn_lens::{
    Pretrained, Tokens,
    analysis::{LensCell, LensOptions, LensToken, LogitLens, Residuals, TunedLens, logit_lens},
    hooks::{CacheOptions, HookedModel as _},
    io::{Checkpoint, write_atomically},
    tensor::Slice,
};
use burn_lens_viz::{Cell, Grid, Page, Section, Token};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    answers::{Answer, token},
    args::{ModelArgs, PromptArgs},
    error::{CliError, check_folder},
    load::load,
    next_tokens::{percent, plain, shown},
    progress::Progress,
    prompts::{self, each_row},
    report::{Align, Report, table},
};

#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = HELP)]
pub(crate) struct LensArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) input: PromptArgs,
    /// Which positions: -1, 2:7 or 0,4; all if not given
    #[arg(long, value_name = "SLICE", allow_hyphen_values = true)]
    pub(crate) pos: Option<Slice>,
    /// Also between attention and MLP of each block
    #[arg(long)]
    pub(crate) incl_mid: bool,
    /// How many tokens to list at each place (on the page and with --json)
    #[arg(long, default_value_t = 5, value_name = "K")]
    pub(crate) top: usize,
    /// Tokens whose rank and probability are wanted: text, or `#` and an id
    #[arg(long, value_name = "TOKEN", num_args = 1..)]
    pub(crate) token: Vec<String>,
    /// A tuned lens: `{layer}.weight` [d_model, d_model] and `{layer}.bias` of each block
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) tuned: Option<PathBuf>,
    /// Also write a page that opens offline
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

// MODEL first: behind `--prompt TEXT…` it would be one more text.
const USAGE: &str = "burn-lens lens <MODEL> <--prompt <TEXT>...|--tokens <FILE.safetensors>> [OPTIONS]";

const HELP: &str = "\
Each stream goes through the final norm (with its own statistics), the unembedding and the soft-cap;
the last row is the model's own output.";

/// What was found on one prompt.
struct Found {
    ids: Vec<i64>,
    tokens: Vec<String>,
    /// Which of them were looked at.
    kept: Vec<usize>,
    lens: LogitLens,
}

/// Reads every stream.
pub(crate) fn lens(args: &LensArgs, progress: &Progress) -> Result<Report, CliError> {
    if let Some(path) = &args.html {
        check_folder(path)?;
    }
    let lens = load(&args.name, &args.model, progress)?;
    let targets = args.token.iter().map(|text| token("token", text, &lens)).collect::<Result<Vec<_>, _>>()?;
    let tuned = match &args.tuned {
        None => None,
        Some(path) => Some(TunedLens::load(&lens.model, &mut Checkpoint::open(path)?)?),
    };
    let step = progress.step("reading the streams");
    let mut all = Vec::new();
    for tokens in each_row(&prompts::tokens(&args.input, &lens)?, &lens) {
        all.push(found(args, &lens, &tokens, (&targets, tuned.as_ref()))?);
    }
    drop(step);
    let mut report = Report::default();
    for found in &all {
        found.describe(&lens, &targets, &mut report);
    }
    if let Some(path) = &args.html {
        let html = page(&lens, &targets, &all).to_html()?;
        write_atomically(path, |file| std::io::Write::write_all(file, html.as_bytes()))?;
        report.line(format_args!("\nwrote {}", path.display()));
    }
    let prompts: Vec<Value> = all.iter().map(|found| found.json(&lens)).collect();
    report.json = json!({ "model": lens.name, "prompts": prompts, "html": args.html });
    Ok(report)
}

fn found(
    args: &LensArgs,
    lens: &Pretrained,
    tokens: &Tokens,
    (targets, tuned): (&[Answer], Option<&TunedLens>),
) -> Result<Found, CliError> {
    let mut names = vec!["blocks.*.hook_resid_pre", "blocks.*.hook_resid_post"];
    if args.incl_mid {
        names.push("blocks.*.hook_resid_mid");
    }
    let cache = CacheOptions::names(names);
    let (_, cache) = lens.model.run_with_cache(&tokens.input(), &tokens.options(), &cache)?;
    let pos_slice = args.pos.clone().unwrap_or_default();
    let ids = &tokens.batch.ids[0];
    let options = LensOptions {
        pos_slice: pos_slice.clone(),
        incl_mid: args.incl_mid,
        top_k: args.top.max(1),
        targets: targets.iter().map(|target| target.id).collect(),
    };
    let found = logit_lens(&Residuals::new(&lens.model, &cache)?, &options, tuned)?;
    Ok(Found {
        ids: ids.clone(),
        tokens: ids.iter().map(|&id| shown(lens.tokenizer.as_ref(), id)).collect(),
        kept: pos_slice.resolve(ids.len()).map(|kept| kept.to_vec()).unwrap_or_default(),
        lens: found,
    })
}

impl Found {
    /// The cells of one stream, one for each position kept.
    fn row(&self, component: usize) -> &[LensCell] {
        &self.lens.cells[component][0]
    }

    /// One table for each position: a row for each stream.
    fn describe(&self, lens: &Pretrained, targets: &[Answer], report: &mut Report) {
        let text = |token: &LensToken| shown(lens.tokenizer.as_ref(), token.token as i64);
        for (at, &pos) in self.kept.iter().enumerate() {
            report.heading(format_args!("after {} (position {pos})", self.tokens[pos]));
            let mut columns =
                vec![("stream", Align::Left), ("top token", Align::Left), ("probability", Align::Right)];
            for target in targets {
                columns.extend([(target.text.as_str(), Align::Right), ("rank", Align::Right)]);
            }
            let rows: Vec<Vec<String>> = (0..self.lens.components.len())
                .map(|component| {
                    let cell = &self.row(component)[at];
                    let mut row = vec![
                        self.lens.components[component].to_string(),
                        text(&cell.top[0]),
                        percent(cell.top[0].probability),
                    ];
                    for target in &cell.targets {
                        row.extend([percent(target.probability), target.rank.to_string()]);
                    }
                    row
                })
                .collect();
            report.text.push_str(&table(&columns, &rows));
        }
    }

    fn json(&self, lens: &Pretrained) -> Value {
        let token = |token: &LensToken| {
            json!({
                "id": token.token,
                "token": shown(lens.tokenizer.as_ref(), token.token as i64),
                "logit": token.logit,
                "probability": token.probability,
                "rank": token.rank,
            })
        };
        let tokens = |tokens: &[LensToken]| tokens.iter().map(token).collect::<Vec<_>>();
        let cell = |(cell, pos): (&LensCell, &usize)| json!({ "pos": pos, "top": tokens(&cell.top), "tokens": tokens(&cell.targets) });
        let streams: Vec<Value> = self
            .lens
            .components
            .iter()
            .enumerate()
            .map(|(row, component)| {
                let cells: Vec<Value> = self.row(row).iter().zip(&self.kept).map(cell).collect();
                json!({ "stream": component.to_string(), "positions": cells })
            })
            .collect();
        json!({ "tokens": self.tokens, "streams": streams })
    }

    /// Streams by positions, the last stream on top, as the field draws it.
    fn grid(&self, lens: &Pretrained, targets: &[Answer]) -> Grid {
        let text = |token: &LensToken| plain(lens.tokenizer.as_ref(), token.token as i64);
        let line = |token: &LensToken| {
            format!("{} {} (rank {})", text(token), percent(token.probability), token.rank)
        };
        let cell = |cell: &LensCell| {
            let mut lines: Vec<String> = cell.top.iter().map(line).collect();
            lines.extend(cell.targets.iter().zip(targets).map(|(token, _)| line(token)));
            Cell { text: text(&cell.top[0]), value: cell.top[0].probability, note: lines.join("\n") }
        };
        let rows = (0..self.lens.components.len()).rev();
        Grid {
            row_axis: "stream".to_owned(),
            column_axis: "token".to_owned(),
            rows: rows.clone().map(|row| self.lens.components[row].to_string()).collect(),
            columns: self.kept.iter().map(|&pos| plain(lens.tokenizer.as_ref(), self.ids[pos])).collect(),
            cells: rows.map(|row| self.row(row).iter().map(cell).collect()).collect(),
        }
    }
}

fn page(lens: &Pretrained, targets: &[Answer], all: &[Found]) -> Page {
    let section = |found: &Found| {
        let tokens =
            found.tokens.iter().map(|text| Token { text: text.clone(), ..Token::default() }).collect();
        let text = "A row is a stream, a column a position of the prompt. A cell shows the likeliest next token, \
                    colored by its probability; its note lists the likeliest ones.";
        Section::new("Logit lens", text).tokens(tokens).grid(found.grid(lens, targets))
    };
    Page {
        title: format!("What it would say so far: {}", lens.name),
        lead: "Each stream goes through the final norm and the unembedding; the top row is the model's own output."
            .to_owned(),
        sections: all.iter().map(section).collect(),
        footer: format!("Written by burn-lens {}. This file needs no network.", env!("CARGO_PKG_VERSION")),
    }
}
