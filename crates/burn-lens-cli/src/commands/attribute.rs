//! `burn-lens attribute`

use std::path::PathBuf;

use burn_lens::{
    Pretrained, Tokens,
    analysis::{
        Answers, AttributionOptions, Component, LogitAttrs, Residuals, Unit, attribution_hooks,
        direct_logit_attribution,
    },
    hooks::{CacheOptions, HookedModel as _},
    io::write_atomically,
    tensor::Slice,
};
use burn_lens_viz::{Bar, Grid, Page, Section, Token};
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use serde_json::{Value, json};

use crate::{
    answers::{Answer, for_each},
    args::{ModelArgs, PromptArgs},
    error::{CliError, check_folder},
    load::load,
    next_tokens::{plain, shown},
    progress::Progress,
    prompts::{self, each_row},
    report::{Align, DIM, Report, table},
};

#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = HELP)]
pub(crate) struct AttributeArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) input: PromptArgs,
    /// The token whose logit is attributed: its text, or `#` and its id; once, or once for each prompt
    #[arg(long, value_name = "TOKEN", required = true, num_args = 1..)]
    pub(crate) answer: Vec<String>,
    /// A token whose logit is subtracted
    #[arg(long, value_name = "TOKEN", num_args = 1..)]
    pub(crate) against: Vec<String>,
    /// What is listed one by one; everything else stays whole
    #[arg(long, default_value = "component", value_name = "UNIT", value_parser = unit())]
    pub(crate) by: Unit,
    /// Which position's logits; negative from the end of each prompt
    #[arg(long, default_value_t = -1, value_name = "N", allow_negative_numbers = true)]
    pub(crate) pos: isize,
    /// How many rows to show, the largest first; all with --json
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) top: usize,
    /// Also write a page that opens offline
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

// MODEL first: behind `--prompt TEXT…` it would be one more text.
const USAGE: &str = "burn-lens attribute <MODEL> <--prompt <TEXT>...|--tokens <FILE.safetensors>> --answer <TOKEN>... \
                     [--against <TOKEN>...] [OPTIONS]";

const HELP: &str = "\
Rows sum to the logit (or to the difference of two) before any soft-cap: every part of the model is
there, biases as rows of their own. The final norm divides by the scale that the run had.";

fn unit() -> impl clap::builder::TypedValueParser<Value = Unit> {
    PossibleValuesParser::new(["component", "head", "neuron", "source"]).try_map(|name| name.parse::<Unit>())
}

/// What was found on one prompt.
struct Found {
    ids: Vec<i64>,
    /// Its tokens as they are shown.
    tokens: Vec<String>,
    answer: Answer,
    against: Option<Answer>,
    /// Every row, in the model's order, the unembedding's bias last.
    rows: Vec<(Component, f64)>,
    /// What the model gave.
    logit: f64,
}

/// Attributes logits.
pub(crate) fn attribute(args: &AttributeArgs, progress: &Progress) -> Result<Report, CliError> {
    if let Some(path) = &args.html {
        check_folder(path)?;
    }
    let lens = load(&args.name, &args.model, progress)?;
    let tokens = each_row(&prompts::tokens(&args.input, &lens)?, &lens);
    let answers = for_each("answer", &args.answer, tokens.len(), &lens)?;
    let against = if args.against.is_empty() {
        None
    } else {
        Some(for_each("against", &args.against, tokens.len(), &lens)?)
    };
    let step = progress.step("attributing");
    let mut all = Vec::new();
    for (row, tokens) in tokens.iter().enumerate() {
        let against = against.as_ref().map(|against| against[row].clone());
        all.push(found(args, &lens, tokens, (answers[row].clone(), against))?);
    }
    drop(step);
    let mut report = Report::default();
    for found in &all {
        found.describe(args, &mut report);
    }
    if let Some(path) = &args.html {
        let html = page(args, &lens, &all).to_html()?;
        write_atomically(path, |file| std::io::Write::write_all(file, html.as_bytes()))?;
        report.line(format_args!("\nwrote {}", path.display()));
    }
    let by = format!("{:?}", args.by).to_lowercase();
    let prompts: Vec<Value> = all.iter().map(Found::json).collect();
    report.json =
        json!({ "model": lens.name, "by": by, "pos": args.pos, "prompts": prompts, "html": args.html });
    Ok(report)
}

fn found(
    args: &AttributeArgs,
    lens: &Pretrained,
    tokens: &Tokens,
    (answer, against): (Answer, Option<Answer>),
) -> Result<Found, CliError> {
    let hooks = attribution_hooks(&lens.model, args.by);
    let (output, cache) =
        lens.model.run_with_cache(&tokens.input(), &tokens.options(), &CacheOptions::names(hooks))?;
    drop(output);
    let residuals = Residuals::new(&lens.model, &cache)?;
    let options = AttributionOptions {
        answers: Answers::One(answer.id),
        against: against.as_ref().map(|against| Answers::One(against.id)),
        by: args.by,
        pos_slice: Slice::Index(args.pos),
    };
    let attrs = direct_logit_attribution(&residuals, &options)?;
    let logit = prompts::values(attrs.total())?[0];
    Ok(Found {
        ids: tokens.batch.ids[0].clone(),
        tokens: tokens.batch.ids[0].iter().map(|&id| shown(lens.tokenizer.as_ref(), id)).collect(),
        answer,
        against,
        rows: rows(&attrs)?,
        logit,
    })
}

fn rows(attrs: &LogitAttrs) -> Result<Vec<(Component, f64)>, CliError> {
    let values = prompts::values(attrs.values())?;
    let mut rows: Vec<_> = attrs.components().iter().copied().zip(values).collect();
    rows.push((Component::UnembedBias, prompts::values(attrs.unembed_bias())?[0]));
    Ok(rows)
}

impl Found {
    fn what(&self) -> String {
        match &self.against {
            None => format!("the logit of {}", self.answer.text),
            Some(against) => format!("the logit of {} less that of {}", self.answer.text, against.text),
        }
    }

    /// The rows of largest magnitude, the largest first.
    fn largest(&self, most: usize) -> Vec<(Component, f64)> {
        let mut rows = self.rows.clone();
        rows.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        rows.truncate(most);
        rows
    }

    /// The token that a source row reads.
    fn source(&self, component: Component) -> &str {
        match component {
            Component::Source(_, _, pos) => self.tokens.get(pos).map_or("", String::as_str),
            _ => "",
        }
    }

    fn describe(&self, args: &AttributeArgs, report: &mut Report) {
        report.heading(format_args!("{}: {:+.4}", self.what(), self.logit));
        report.line(format_args!("{DIM}{} tokens: {}{DIM:#}", self.tokens.len(), self.tokens.join(" ")));
        let shown = self.largest(args.top);
        let rest: f64 = self.logit - shown.iter().map(|(_, value)| value).sum::<f64>();
        let mut rows: Vec<Vec<String>> = shown
            .iter()
            .map(|&(component, value)| {
                vec![component.to_string(), format!("{value:+.4}"), self.source(component).to_owned()]
            })
            .collect();
        if self.rows.len() > shown.len() {
            let others = format!("{} others", self.rows.len() - shown.len());
            rows.push(vec![others, format!("{rest:+.4}"), String::new()]);
        }
        let mut columns = vec![("part", Align::Left), ("adds", Align::Right)];
        if args.by == Unit::Source {
            columns.push(("from", Align::Left));
        }
        for row in &mut rows {
            row.truncate(columns.len());
        }
        report.text.push_str(&table(&columns, &rows));
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(component, value)| json!({ "part": component.to_string(), "adds": value }))
            .collect();
        json!({
            "tokens": self.tokens,
            "answer": { "id": self.answer.id, "token": self.answer.text },
            "against": self.against.as_ref().map(|against| json!({ "id": against.id, "token": against.text })),
            "total": self.logit,
            "rows": rows,
        })
    }
}

fn page(args: &AttributeArgs, lens: &Pretrained, all: &[Found]) -> Page {
    Page {
        title: format!("What writes the answer: {}", lens.name),
        lead: "Direct logit attribution: what each part of the model adds to a logit, through the final norm with \
               the scale that the run had. All parts together give the logit."
            .to_owned(),
        sections: all.iter().map(|found| section(args, lens, found)).collect(),
        footer: format!("Written by burn-lens {}. This file needs no network.", env!("CARGO_PKG_VERSION")),
    }
}

fn section(args: &AttributeArgs, lens: &Pretrained, found: &Found) -> Section {
    let text = format!("{}: {:+.4}.", found.what(), found.logit);
    let token = |&id: &i64| Token { text: plain(lens.tokenizer.as_ref(), id), ..Token::default() };
    let tokens = found.ids.iter().map(token).collect();
    let bar = |&(component, value): &(Component, f64)| {
        let source = found.source(component);
        Bar {
            label: if source.is_empty() { component.to_string() } else { format!("{component} {source}") },
            value,
            text: format!("{value:+.4}"),
            strong: false,
        }
    };
    let largest = found.largest(args.top);
    let mut section = Section::new(&plain(lens.tokenizer.as_ref(), found.answer.id as i64), &text)
        .tokens(tokens)
        .bars(largest.iter().map(bar).collect());
    if matches!(args.by, Unit::Head | Unit::Source) {
        section = section.grid(heads(lens, found));
    }
    section
}

/// Layer by head.
fn heads(lens: &Pretrained, found: &Found) -> Grid {
    let dims = lens.model.dims();
    let mut values = vec![0.0; dims.n_layers * dims.n_heads];
    for &(component, value) in &found.rows {
        if let Component::Head(layer, head) | Component::Source(layer, head, _) = component {
            values[layer * dims.n_heads + head] += value;
        }
    }
    let names = |count: usize| (0..count).map(|at| at.to_string()).collect();
    Grid::heat_map(["layer", "head"], names(dims.n_layers), names(dims.n_heads), &values)
}
