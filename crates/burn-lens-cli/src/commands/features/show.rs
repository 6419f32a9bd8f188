//! `burn-lens features show`

use std::path::{Path, PathBuf};

use burn_lens::{
    io::{read_text, write_atomically},
    sae::features::{FeatureData, FeatureSet, RunInfo, SequenceData},
};
use burn_lens_viz::{feature_page, visible};
use serde_json::json;

use super::{
    args::ShowArgs,
    output::{DATA, RUN},
};
use crate::{
    error::{CliError, check_folder},
    progress::Progress,
    report::{Align, DIM, Report, bold, pairs, table},
};

/// Prints a feature, or writes its page.
pub(super) fn show(args: &ShowArgs, _: &Progress) -> Result<Report, CliError> {
    if let Some(path) = &args.html {
        check_folder(path)?;
    }
    let set = read(&args.path, args.feature)?;
    let data = chosen(&set, args)?;
    let mut report = report(&set, data);
    if let Some(path) = &args.html {
        let title = format!("Feature {} of {}", data.feature, set.run.sae);
        let page = feature_page(&title, &set.run, &set.vocabulary, data)?;
        write_atomically(path, |file| file.write_all(page.as_bytes()))?;
        report.line("");
        report.line(format_args!("wrote {}: open it in a browser; it needs no network", path.display()));
    }
    Ok(report)
}

/// The data of a feature, from a folder or a file.
fn read(path: &Path, feature: Option<usize>) -> Result<FeatureSet, CliError> {
    let (file, run): (PathBuf, PathBuf) = match feature {
        Some(feature) if path.is_dir() => (path.join(DATA).join(format!("{feature}.json")), path.join(RUN)),
        None if path.is_dir() => return Err(CliError::WhichFeature { path: path.to_owned() }),
        _ => (path.to_owned(), path.parent().and_then(Path::parent).unwrap_or(Path::new(".")).join(RUN)),
    };
    let mut set = FeatureSet::from_json(&read_text(file)?)?;
    if set.run == RunInfo::default()
        && let Ok(text) = read_text(run)
    {
        set.run = serde_json::from_str(&text).map_err(|error| CliError::Setup(error.into()))?;
    }
    Ok(set)
}

fn chosen<'a>(set: &'a FeatureSet, args: &ShowArgs) -> Result<&'a FeatureData, CliError> {
    let wanted = |data: &&FeatureData| args.feature.is_none_or(|feature| data.feature == feature);
    set.features.iter().find(wanted).ok_or_else(|| CliError::NoFeature {
        path: args.path.clone(),
        feature: args.feature,
        found: set.features.iter().map(|data| data.feature).collect(),
    })
}

fn report(set: &FeatureSet, data: &FeatureData) -> Report {
    let mut report = Report::default();
    let statistics = &data.statistics;
    report.heading(format_args!("Feature {} of {}", data.feature, set.run.sae));
    report.text.push_str(&pairs(&[
        ("kind", format!("{:?}", data.kind).to_lowercase()),
        (
            "density",
            format!(
                "{:.3}% ({} of {} tokens)",
                100.0 * statistics.density(),
                statistics.n_active,
                statistics.n_tokens
            ),
        ),
        ("max, mean", format!("{:.3}, {:.4}", statistics.max, statistics.mean)),
    ]));
    if let Some(logits) = &data.logits {
        report.heading("Logits");
        let rows = logits.top.iter().zip(&logits.bottom);
        let rows: Vec<Vec<String>> = rows
            .map(|(top, bottom)| {
                let cell = |value: f32| format!("{value:+.3}");
                let text = |token| visible(&set.text_of(token));
                vec![text(top.token), cell(top.value), text(bottom.token), cell(bottom.value)]
            })
            .collect();
        let columns = [("more", Align::Left), ("", Align::Right), ("less", Align::Left), ("", Align::Right)];
        report.text.push_str(&table(&columns, &rows));
    }
    for group in data.groups.iter().filter(|group| !group.sequences.is_empty()) {
        report.heading(group.title(statistics.n_active));
        for sequence in &group.sequences {
            report.line(line(set, sequence));
        }
    }
    report.json = json!({ "run": set.run, "vocabulary": set.vocabulary, "feature": data });
    report
}

/// A sequence: its activation, and its text with the token that it was chosen for in bold.
fn line(set: &FeatureSet, sequence: &SequenceData) -> String {
    let mut text = format!("{DIM}{:>8.3}{DIM:#}  ", sequence.target_activation());
    for (at, &token) in sequence.tokens.iter().enumerate() {
        let token = visible(&set.text_of(token)).replace('·', " ");
        text.push_str(&if at == sequence.target { bold(token) } else { token });
    }
    text
}
