//! What commands that intervene share: pairs of prompts, a metric, heat maps.

use anstream::{AutoStream, ColorChoice};
use burn_lens::{
    Pretrained, Tokens,
    analysis::interventions::{EngineOptions, Metric, MetricKind, MetricPos, SweepAxis, SweepResult},
    burn::tensor::Tensor,
    hooks::HookedModel as _,
    io::TokenOptions,
};
use burn_lens_viz::{Grid, Palette, SignedMap, Token};
use clap::{Args, builder::PossibleValuesParser};

use crate::{
    answers::{Answer, for_each},
    error::CliError,
    next_tokens::plain,
    report::{DIM, Report},
};

/// What is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct MetricArgs {
    /// The right token: its text, or `#` and its id; once, or once for each prompt
    #[arg(long, value_name = "TOKEN", num_args = 1..)]
    pub(crate) answer: Vec<String>,
    /// A token whose logit is subtracted
    #[arg(long, value_name = "TOKEN", num_args = 1..)]
    pub(crate) against: Vec<String>,
    /// What is measured: logit_diff with --against, logit without, unless given
    #[arg(long, value_name = "METRIC", value_parser = PossibleValuesParser::new(METRICS))]
    pub(crate) metric: Option<String>,
    /// Which position's logits, negative from the end; the last token of each prompt if not given
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) pos: Option<isize>,
}

const METRICS: [&str; 7] = ["logit", "logit_diff", "probability", "log_probability", "rank", "loss", "kl"];

/// How a sweep is run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sweep")]
pub(crate) struct SweepArgs {
    /// Also compute this many cells in full, and compare
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) verify: usize,
    /// About how much memory the activations of cells that are computed together may take
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    pub(crate) memory: usize,
}

impl SweepArgs {
    pub(crate) fn options(&self, seed: u64) -> EngineOptions {
        EngineOptions { verify: self.verify, memory: self.memory << 20, seed, ..EngineOptions::default() }
    }
}

/// A metric, and how it is described.
pub(crate) struct Measure {
    pub(crate) metric: Metric,
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) answers: Vec<Answer>,
    pub(crate) against: Vec<Answer>,
}

impl MetricArgs {
    /// The metric of `prompts` prompts; `reference` are the logits that a divergence is from.
    pub(crate) fn measure(
        &self,
        lens: &Pretrained,
        prompts: usize,
        reference: impl FnOnce() -> Result<Tensor<3>, CliError>,
    ) -> Result<Measure, CliError> {
        let name = match (&self.metric, self.against.is_empty()) {
            (Some(name), _) => name.clone(),
            (None, true) => "logit".to_owned(),
            (None, false) => "logit_diff".to_owned(),
        };
        let needs = |what: &'static str, flag: &'static str| Err(CliError::Needs { what, flag });
        let answers = |flag: &'static str, texts: &[String]| match texts {
            [] => Ok(Vec::new()),
            texts => for_each(flag, texts, prompts, lens),
        };
        let (answer, against) = (answers("answer", &self.answer)?, answers("against", &self.against)?);
        let ids = |answers: &[Answer]| answers.iter().map(|answer| answer.id).collect::<Vec<_>>();
        if answer.is_empty() && !matches!(name.as_str(), "loss" | "kl") {
            return needs("this metric", "--answer");
        }
        let kind = match name.as_str() {
            "logit" => MetricKind::Logit(ids(&answer)),
            "logit_diff" if against.is_empty() => return needs("--metric logit_diff", "--against"),
            "logit_diff" => MetricKind::LogitDiff(ids(&answer), ids(&against)),
            "probability" => MetricKind::Probability(ids(&answer)),
            "log_probability" => MetricKind::LogProbability(ids(&answer)),
            "rank" => MetricKind::Rank(ids(&answer)),
            "loss" => MetricKind::Loss,
            _ => MetricKind::Kl(reference()?),
        };
        let mut metric = Metric::new(kind);
        if let (Some(pos), false) = (self.pos, name == "loss") {
            metric = metric.at(MetricPos::At(pos));
        }
        let text = describe(&name, &answer, &against);
        Ok(Measure { metric, name, text, answers: answer, against })
    }
}

fn describe(name: &str, answers: &[Answer], against: &[Answer]) -> String {
    let one = |answers: &[Answer]| match answers {
        [] => String::new(),
        [first, rest @ ..] if rest.iter().all(|other| other.id == first.id) => first.text.clone(),
        _ => "each prompt's answer".to_owned(),
    };
    match name {
        "logit" => format!("the logit of {}", one(answers)),
        "logit_diff" if answers.len() > 1 => {
            "the logit of the answer less that of the other token".to_owned()
        }
        "logit_diff" => format!("the logit of {} less that of {}", one(answers), one(against)),
        "probability" => format!("the probability of {}", one(answers)),
        "log_probability" => format!("the log-probability of {}", one(answers)),
        "rank" => format!("how many tokens are likelier than {}", one(answers)),
        "loss" => "the loss".to_owned(),
        _ => "the divergence (KL) from the first run's predictions".to_owned(),
    }
}

/// Clean and corrupt prompts, of the same lengths.
#[derive(Debug, Args)]
pub(crate) struct PairArgs {
    /// The prompts on which the model is right
    #[arg(long, value_name = "TEXT", num_args = 1.., required = true)]
    pub(crate) clean: Vec<String>,
    /// As many prompts of the same lengths, in which what matters is exchanged
    #[arg(long, value_name = "TEXT", num_args = 1.., required = true)]
    pub(crate) corrupt: Vec<String>,
    /// Whether each prompt starts with the beginning-of-sequence token; the model's rule if not given
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) prepend_bos: Option<bool>,
}

impl PairArgs {
    /// Both, tokenized alike.
    pub(crate) fn tokens(&self, lens: &Pretrained) -> Result<[Tokens; 2], CliError> {
        let options = TokenOptions { prepend_bos: self.prepend_bos, ..TokenOptions::default() };
        // Together, so that both are padded to the same length.
        let texts: Vec<&String> = self.clean.iter().chain(&self.corrupt).collect();
        let both = lens.to_tokens_with(&texts, options)?.batch;
        let lengths: Vec<usize> =
            both.attention_mask.iter().map(|mask| mask.iter().filter(|&&token| token != 0).count()).collect();
        let (clean, corrupt) = lengths.split_at(self.clean.len());
        if clean != corrupt {
            return Err(CliError::PairLengths { clean: clean.to_vec(), corrupt: corrupt.to_vec() });
        }
        let half = |start: usize, end: usize| {
            let batch = burn_lens::io::TokenBatch {
                ids: both.ids[start..end].to_vec(),
                attention_mask: both.attention_mask[start..end].to_vec(),
            };
            Tokens::new(batch, &lens.model.device())
        };
        Ok([half(0, clean.len()), half(clean.len(), lengths.len())])
    }
}

/// The first prompt's tokens for a page, those that differ from the other run's marked.
pub(crate) fn marked(lens: &Pretrained, tokens: &Tokens, other: &Tokens) -> Vec<Token> {
    let pairs = tokens.batch.ids[0].iter().zip(&other.batch.ids[0]);
    let token = |(&id, &other): (&i64, &i64)| Token {
        text: plain(lens.tokenizer.as_ref(), id),
        strength: if id == other { 0.0 } else { 0.6 },
        note: if id == other { String::new() } else { "differs between clean and corrupt".to_owned() },
    };
    pairs.map(token).collect()
}

/// Colors where standard output shows them.
pub(crate) fn palette() -> Palette {
    match AutoStream::choice(&std::io::stdout()) {
        ColorChoice::Never => Palette::Shades,
        _ => Palette::Ansi256,
    }
}

/// A matrix of values: one picture of a sweep.
pub(crate) struct Picture {
    /// What distinguishes it from the others.
    pub(crate) title: String,
    axes: [String; 2],
    rows: Vec<String>,
    columns: Vec<String>,
    values: Vec<f64>,
}

/// A sweep's values as matrices. Rows are layers (and heads), columns positions or heads; other axes
/// give a picture each. `positions` are the labels of positions.
pub(crate) fn pictures(result: &SweepResult, values: &[f64], positions: &[String]) -> Vec<Picture> {
    let labels = |axis: &SweepAxis| {
        if axis.name.ends_with("pos") && axis.labels.len() == positions.len() {
            return positions.to_vec();
        }
        axis.labels.clone()
    };
    let axes = &result.axes;
    if axes[0].name == "patch_type" {
        let rest = &axes[1..];
        let size: usize = rest.iter().map(|axis| axis.labels.len()).product();
        let parts = axes[0].labels.iter().zip(values.chunks(size));
        return parts.map(|(label, part)| matrix(label.clone(), rest, part, &labels)).collect();
    }
    if axes.len() == 4 {
        // [layer, head, destination, source]: the largest over sources of each destination.
        let sources = axes[3].labels.len();
        let largest =
            |part: &[f64]| part.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
        let part: Vec<f64> = values.chunks(sources).map(largest).collect();
        return vec![matrix("the source that matters most".to_owned(), &axes[..3], &part, &labels)];
    }
    vec![matrix(String::new(), axes, values, &labels)]
}

fn matrix(
    title: String,
    axes: &[SweepAxis],
    values: &[f64],
    labels: &dyn Fn(&SweepAxis) -> Vec<String>,
) -> Picture {
    match axes {
        [rows] => Picture {
            title,
            axes: [rows.name.clone(), String::new()],
            rows: labels(rows),
            columns: vec![String::new()],
            values: values.to_vec(),
        },
        [rows, columns] => Picture {
            title,
            axes: [rows.name.clone(), columns.name.clone()],
            rows: labels(rows),
            columns: labels(columns),
            values: values.to_vec(),
        },
        [layer, a, b, ..] => {
            // One row for each head of each layer, one column for each position.
            let head_first = a.name == "head";
            let (heads, columns) = if head_first { (a, b) } else { (b, a) };
            let (n_heads, n_columns) = (heads.labels.len(), columns.labels.len());
            let rows =
                layer.labels.iter().flat_map(|l| heads.labels.iter().map(move |h| format!("L{l}H{h}")));
            let at = |l: usize, h: usize, c: usize| {
                let inner = if head_first { h * n_columns + c } else { c * n_heads + h };
                values[l * n_heads * n_columns + inner]
            };
            let layers = layer.labels.len();
            let cells = (0..layers)
                .flat_map(|l| (0..n_heads).flat_map(move |h| (0..n_columns).map(move |c| (l, h, c))));
            Picture {
                title,
                axes: ["head".to_owned(), columns.name.clone()],
                rows: rows.collect(),
                columns: labels(columns),
                values: cells.map(|(l, h, c)| at(l, h, c)).collect(),
            }
        }
        [] => Picture {
            title,
            axes: [String::new(), String::new()],
            rows: vec![String::new()],
            columns: vec![String::new()],
            values: values.to_vec(),
        },
    }
}

impl Picture {
    /// In characters.
    pub(crate) fn draw(&self, report: &mut Report) -> Result<(), CliError> {
        if !self.title.is_empty() {
            report.line(format_args!("{DIM}{}{DIM:#}", self.title));
        }
        let [rows, columns] = &self.axes;
        let map = SignedMap {
            axes: [rows, columns],
            rows: &self.rows,
            columns: &self.columns,
            values: &self.values,
        };
        report.text.push_str(&map.to_text(palette())?);
        Ok(())
    }

    /// For a page.
    pub(crate) fn grid(&self) -> Grid {
        let [rows, columns] = &self.axes;
        Grid::heat_map([rows, columns], self.rows.clone(), self.columns.clone(), &self.values)
    }
}
