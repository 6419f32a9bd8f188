//! What a run leaves behind, and what it says.

use burn_lens_train::{History, TrainError, in_context::Curves};
use burn_lens_viz::{Column, Line, LinePlot, Page, Section};
use serde_json::json;

use super::folder::{RunFolder, write_text};
use crate::{
    error::CliError,
    report::{Align, Report, table},
};

/// The file of the error curves.
const CURVES: &str = "curves.json";

/// The file of the pictures.
const PAGE: &str = "training.html";

/// Writes the curves and the page, and says how it went.
pub(super) fn write(folder: &RunFolder, history: &History, curves: &Curves) -> Result<Report, CliError> {
    let loss = loss_plot(history);
    let out = folder.path();
    let json = serde_json::to_string_pretty(curves).map_err(TrainError::from)?;
    write_text(&out.join(CURVES), &format!("{json}\n"))?;
    write_text(&out.join(PAGE), &page(folder, &loss, curves)?.to_html()?)?;
    let mut report = Report::default();
    report.text.push_str(&loss.to_text(72, 12)?);
    report.heading(format_args!(
        "{} on {} unseen sequences, by the number of examples before the question",
        curves.measure, curves.episodes
    ));
    let (columns, rows) = cells(curves);
    let aligned: Vec<(&str, Align)> = columns.iter().map(|name| (name.as_str(), Align::Right)).collect();
    report.text.push_str(&table(&aligned, &rows));
    let (best, ratio) = compared(curves);
    report.line(format_args!("\nwith all examples: {ratio:.3} times the error of {best}"));
    report.line(format_args!("wrote {}: the model, {CURVES}, {PAGE}", out.display()));
    report.json = json!({
        "out": out, "training": folder.setup(), "loss": history.as_slice().last().map(|last| last.loss),
        "curves": curves, "best_baseline": best, "times_best_baseline": ratio,
    });
    Ok(report)
}

/// The loss, averaged over a fiftieth of the steps.
fn loss_plot(history: &History) -> LinePlot {
    /// As many points as a plot can show.
    const POINTS: usize = 400;
    let steps = history.as_slice().len();
    let smoothed = history.smoothed((steps / 50).max(1));
    let every = steps.div_ceil(POINTS).max(1);
    let kept = smoothed.iter().enumerate().filter(|(at, _)| at % every == 0 || at + 1 == steps);
    let points: Vec<(f64, f64)> = kept.map(|(_, &point)| point).collect();
    LinePlot {
        title: "Loss".to_owned(),
        x_label: "step".to_owned(),
        y_label: "loss".to_owned(),
        log: points.iter().all(|(_, loss)| *loss > 0.0),
        lines: vec![Line { name: "training".to_owned(), points }],
    }
}

/// Errors by the number of examples, the model and every baseline.
fn error_plot(curves: &Curves) -> LinePlot {
    let line = |name: &str, errors: &[f64]| Line {
        name: name.to_owned(),
        points: curves.examples.iter().zip(errors).map(|(&n, &error)| (n as f64, error)).collect(),
    };
    let lines: Vec<Line> = curves.curves.iter().map(|curve| line(&curve.name, &curve.errors)).collect();
    // Where nothing is known yet, least squares can be off by very much.
    let positive = lines.iter().flat_map(|line| &line.points).all(|(_, error)| *error > 0.0);
    LinePlot {
        title: "Unseen sequences".to_owned(),
        x_label: "examples before the question".to_owned(),
        y_label: curves.measure.clone(),
        log: positive,
        lines,
    }
}

/// The best baseline with all examples, and how many times its error the model's is.
fn compared(curves: &Curves) -> (String, f64) {
    let last = |name: &str| curves.last(name).unwrap_or(f64::NAN);
    let baselines = curves.curves.iter().skip(1).map(|curve| curve.name.clone());
    let best = baselines.min_by(|a, b| last(a).total_cmp(&last(b))).unwrap_or_default();
    let (model, ratio) = (last("model"), last(&best));
    let ratio = if model == ratio { 1.0 } else { model / ratio };
    (best, ratio)
}

/// The curves as a table: a row for each number of examples, at most about a dozen.
fn cells(curves: &Curves) -> (Vec<String>, Vec<Vec<String>>) {
    /// Rows at most, but for the last.
    const ROWS: usize = 12;
    let names = curves.curves.iter().map(|curve| curve.name.clone());
    let columns = ["examples".to_owned()].into_iter().chain(names).collect();
    let count = curves.examples.len();
    let every = count.div_ceil(ROWS).max(1);
    let shown = (0..count).filter(|at| at % every == 0 || at + 1 == count);
    let row = |at: usize| {
        let errors = curves.curves.iter().map(|curve| format!("{:.4}", curve.errors[at]));
        [curves.examples[at].to_string()].into_iter().chain(errors).collect()
    };
    (columns, shown.map(row).collect())
}

fn page(folder: &RunFolder, loss: &LinePlot, curves: &Curves) -> Result<Page, CliError> {
    let settings = serde_json::to_value(folder.setup()).map_err(TrainError::from)?;
    let mut rows = Vec::new();
    flat("", &settings, &mut rows);
    let (columns, errors) = cells(curves);
    let mut compared = Section::new(
        "What it learnt",
        "Mean error on sequences that training never saw, by the number of examples before the question, beside \
         ways to answer that are not learnt.",
    );
    if curves.examples.len() > 1 {
        compared = compared.figure(error_plot(curves).figure("Error by the number of examples")?);
    }
    compared = compared.table(columns.iter().map(|name| Column::number(name)).collect(), errors);
    Ok(Page {
        title: "A model trained in context".to_owned(),
        lead: format!("{}: what was learnt, and how.", folder.path().display()),
        sections: vec![
            compared,
            Section::new(
                "Loss",
                "Of each step's batch before the step, averaged over a fiftieth of all steps.",
            )
            .figure(loss.figure("Loss by step")?),
            Section::new("Settings", "").table(vec![Column::text("setting"), Column::text("value")], rows),
        ],
        footer: format!("Written by burn-lens {}. This file needs no network.", env!("CARGO_PKG_VERSION")),
    })
}

/// Settings by dotted names.
fn flat(name: &str, value: &serde_json::Value, rows: &mut Vec<Vec<String>>) {
    match value.as_object() {
        None => rows.push(vec![name.to_owned(), value.to_string()]),
        Some(map) => {
            for (key, value) in map {
                flat(&if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, value, rows);
            }
        }
    }
}
