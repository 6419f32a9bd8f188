//! Which heads read what earlier heads write.

use burn_lens::{
    analysis::{Composition, CompositionPair, all_head_labels},
    linalg::Values,
};
use burn_lens_viz::{Column, Grid, Section};
use serde_json::json;

use super::{Job, Shown, label, tensor};
use crate::{
    error::CliError,
    report::{Align, DIM, table},
};

pub(super) fn composition(job: &Job<'_>) -> Result<Shown, CliError> {
    let kinds = match &job.args.of {
        None => Composition::ALL.to_vec(),
        Some(of) => vec![of.parse()?],
    };
    let baseline = job.circuits.composition_baseline();
    let mut shown = Shown { json: json!({ "baseline": baseline }), ..Shown::default() };
    for kind in kinds {
        let scores = job.circuits.all_composition_scores(kind)?;
        let pairs = pairs(job, kind, &scores)?;
        describe(&mut shown, kind, &pairs);
        let list = pairs.iter().map(|pair| {
            json!({ "writer": label(pair.writer), "reader": label(pair.reader), "score": pair.score, "z": pair.z })
        });
        shown.json[kind.to_string()] = list.collect();
        shown.tensors.push((format!("composition.{kind}"), tensor(&scores)));
        shown.sections.push(section(job, kind, &scores, &pairs));
    }
    let baseline = format!(
        "matrices in a random orientation to each other: {baseline:.4}; z counts standard deviations of the squared score"
    );
    shown.report.line(format_args!("\n{DIM}{baseline}{DIM:#}"));
    Ok(shown)
}

/// The strongest pairs that involve a head asked for.
fn pairs(job: &Job<'_>, kind: Composition, scores: &Values) -> Result<Vec<CompositionPair>, CliError> {
    let dims = job.circuits.dims();
    let all = (dims.n_layers * dims.n_heads).pow(2);
    let some = job.args.layer.is_some();
    let most = if some { all } else { job.args.top };
    let mut pairs = job.circuits.strongest_compositions(kind, scores, most)?;
    pairs.retain(|pair| {
        let wanted = |(layer, head): (usize, usize)| job.wanted(layer, head);
        wanted(pair.writer) || wanted(pair.reader)
    });
    pairs.truncate(job.args.top);
    Ok(pairs)
}

fn cells(pair: &CompositionPair) -> Vec<String> {
    let z = pair.z.map_or_else(|| "–".to_owned(), |z| format!("{z:.1}"));
    vec![label(pair.writer), label(pair.reader), format!("{:.4}", pair.score), z]
}

const COLUMNS: [(&str, Align); 4] =
    [("writes", Align::Left), ("reads", Align::Left), ("score", Align::Right), ("z", Align::Right)];

fn describe(shown: &mut Shown, kind: Composition, pairs: &[CompositionPair]) {
    shown.report.heading(format_args!("{kind}-composition"));
    let rows: Vec<Vec<String>> = pairs.iter().map(cells).collect();
    shown.report.text.push_str(&table(&COLUMNS, &rows));
}

fn section(job: &Job<'_>, kind: Composition, scores: &Values, pairs: &[CompositionPair]) -> Section {
    let labels = all_head_labels(&job.circuits.dims());
    let text = format!(
        "How much the {} of each head (columns) read of what each earlier head writes (rows): ‖L R‖ / (‖L‖ ‖R‖). \
         Matrices in a random orientation to each other give {:.4}.",
        match kind {
            Composition::Q => "queries",
            Composition::K => "keys",
            Composition::V => "values",
        },
        job.circuits.composition_baseline()
    );
    let columns = COLUMNS.map(|(name, align)| match align {
        Align::Left => Column::text(name),
        Align::Right => Column::number(name),
    });
    Section::new(&format!("{kind}-composition"), &text)
        .grid(Grid::heat_map(["writer", "reader"], labels.clone(), labels, scores.data()))
        .table(columns.to_vec(), pairs.iter().map(cells).collect())
}
