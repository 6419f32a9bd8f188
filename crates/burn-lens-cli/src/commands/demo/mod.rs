//! `burn-lens demo`: a complete small analysis of the bundled model.

mod induction;
mod page;
mod prompt;

use anstream::{AutoStream, ColorChoice};
use burn_lens::{
    DEMO, Pretrained,
    burn::tensor::Tensor,
    hooks::{Hook, HookContext},
    io::write_atomically,
};
use burn_lens_viz::{HeatMap, Palette};
use serde_json::{Value, json};

use crate::{
    args::DemoArgs,
    error::{CliError, check_folder},
    load::load,
    next_tokens::{next_token_table, percent},
    progress::Progress,
    report::{Align, DIM, Report, table},
};
use induction::Induction;
use prompt::Prompt;

/// A head, shown as `L1H4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) layer: usize,
    pub(super) head: usize,
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("L{}H{}", self.layer, self.head))
    }
}

impl Head {
    /// Sets what the head mixes to zero.
    pub(super) fn ablation(self) -> Hook<'static> {
        let Self { layer, head } = self;
        Hook::edit(format!("blocks.{layer}.attn.hook_z"), move |z: Tensor<4>, _: &mut HookContext<'_>| {
            let [batch, pos, _, d_head] = z.dims();
            z.slice_fill([0..batch, 0..pos, head..head + 1, 0..d_head], 0.0)
        })
    }
}

/// What the model does with one head, or none, set to zero.
struct Ablation {
    /// `None`: the model as it is.
    pub(super) head: Option<Head>,
    /// Why this head.
    pub(super) what: &'static str,
    /// Mean loss on the second copy of the repeated sequences.
    pub(super) loss: f64,
    /// Logit of the right name minus that of the wrong one.
    pub(super) logit_difference: f64,
    /// Probability of the right name.
    pub(super) probability: f64,
}

/// Everything that the demonstration found.
struct Findings {
    prompt: Prompt,
    induction: Induction,
    ablations: Vec<Ablation>,
}

/// Analyses the bundled model and writes a page about it.
pub(crate) fn demo(args: &DemoArgs, progress: &Progress) -> Result<Report, CliError> {
    check_folder(&args.out)?;
    let lens = load(DEMO, &args.model, progress)?;
    let step = progress.step("analysing");
    let findings = Findings::of(&lens, args.model.seed)?;
    let html = page::page(&lens, &findings).to_html()?;
    drop(step);
    write_atomically(&args.out, |file| file.write_all(html.as_bytes()))?;
    let mut report = report(&findings)?;
    report.line("");
    report.line(format_args!("wrote {}: open it in a browser; it needs no network", args.out.display()));
    report.json["page"] = json!(args.out);
    Ok(report)
}

impl Findings {
    fn of(lens: &Pretrained, seed: u64) -> Result<Self, CliError> {
        let prompt = Prompt::run(lens)?;
        let induction = Induction::find(lens, seed)?;
        let (best, least) = (induction.best(), induction.least());
        let mut ablations = Vec::new();
        for (head, what) in [
            (None, "nothing"),
            (Some(best), "the head with the highest induction score"),
            (Some(least), "the head with the lowest, to compare"),
        ] {
            let answer = prompt.answer(lens, head)?;
            ablations.push(Ablation {
                head,
                what,
                loss: induction.loss(lens, head)?,
                logit_difference: answer.logit_difference,
                probability: answer.probability,
            });
        }
        Ok(Self { prompt, induction, ablations })
    }
}

impl Ablation {
    /// What is set to zero, in words.
    pub(super) fn label(&self) -> String {
        self.head.map_or_else(|| self.what.to_owned(), |head| format!("{head}: {}", self.what))
    }
}

fn report(findings: &Findings) -> Result<Report, CliError> {
    let Findings { prompt, induction, ablations } = findings;
    let mut report = Report::default();
    report.heading("Next token");
    report.line(format_args!("{DIM}after{DIM:#} {}", prompt::TEXT));
    report.text.push_str(&next_token_table(&prompt.next));
    report.line(prompt.verdict());

    report.heading("Induction heads");
    report.line(induction.explanation());
    let rows: Vec<Vec<String>> =
        induction.ranked().into_iter().take(8).map(|(head, score)| score_row(head, score)).collect();
    report.text.push_str(&table(&[("head", Align::Left), ("score", Align::Right), ("", Align::Left)], &rows));

    report.heading(format!("What {} attends to", induction.best()));
    report.line(format_args!("{DIM}the first sequence; the stripe in the second copy is induction{DIM:#}"));
    let pattern = induction.pattern(induction.best());
    report.text.push_str(&HeatMap::square(&induction.tokens, pattern).to_text(palette())?);

    report.heading("Setting a head to zero");
    let columns = [
        ("head", Align::Left),
        ("loss on the second copy", Align::Right),
        ("logit difference", Align::Right),
        ("probability", Align::Right),
    ];
    let row = |ablation: &Ablation| {
        let Ablation { loss, logit_difference, probability, .. } = ablation;
        vec![ablation.label(), format!("{loss:.3}"), format!("{logit_difference:+.3}"), percent(*probability)]
    };
    report.text.push_str(&table(&columns, &ablations.iter().map(row).collect::<Vec<_>>()));
    report.line(format_args!(
        "{DIM}logit difference and probability are those of {:?} after the prompt above{DIM:#}",
        prompt.right
    ));

    report.json = json(findings);
    Ok(report)
}

fn json(Findings { prompt, induction, ablations }: &Findings) -> Value {
    json!({
        "prompt": prompt::TEXT,
        "next": prompt.next,
        "logit_difference": ablations[0].logit_difference,
        "induction": induction.ranked().into_iter().map(|(head, score)| {
            json!({ "layer": head.layer, "head": head.head, "score": score })
        }).collect::<Vec<_>>(),
        "ablations": ablations.iter().map(|ablation| json!({
            "layer": ablation.head.map(|head| head.layer),
            "head": ablation.head.map(|head| head.head),
            "why": ablation.what,
            "loss": ablation.loss,
            "logit_difference": ablation.logit_difference,
            "probability": ablation.probability,
        })).collect::<Vec<_>>(),
    })
}

fn score_row(head: Head, score: f64) -> Vec<String> {
    /// Characters for a score of 1.
    const WIDTH: f64 = 30.0;
    vec![head.to_string(), format!("{score:.3}"), "█".repeat((score * WIDTH).round() as usize)]
}

/// Colours where standard output shows them.
fn palette() -> Palette {
    match AutoStream::choice(&std::io::stdout()) {
        ColorChoice::Never => Palette::Shades,
        _ => Palette::Ansi256,
    }
}
