//! A few numbers for each head: copying, what it attends to, norms.

use burn_lens::linalg::Values;
use burn_lens_viz::Section;
use serde_json::json;

use super::{Job, Shown, label, tensor};
use crate::{
    error::CliError,
    report::{Align, table},
};

/// One column: its name here, in JSON and files, what it is, and its numbers.
struct Measure {
    name: &'static str,
    key: &'static str,
    text: &'static str,
    values: Values,
}

pub(super) fn copying(job: &Job<'_>) -> Result<Shown, CliError> {
    let mut measures = Vec::new();
    let dims = job.circuits.dims();
    // Eigenvalues need tokens to come out as they went in.
    if dims.d_vocab == dims.d_vocab_out {
        measures.push(Measure {
            name: "W_E OV W_U",
            key: "full_ov",
            text: "Σ Re λ / Σ |λ| over the eigenvalues of W_E OV W_U: near 1 where attending to a token makes it likelier.",
            values: job.circuits.copying_scores()?,
        });
    }
    measures.push(Measure {
        name: "OV",
        key: "ov",
        text: "The same of OV alone, without embedding and unembedding.",
        values: job.circuits.ov_copying_scores()?,
    });
    Ok(shown(job, "Copying", &measures))
}

pub(super) fn attention(job: &Job<'_>) -> Result<Shown, CliError> {
    let scores = job.circuits.qk_scores()?;
    let mut measures = vec![Measure {
        name: "same token",
        key: "duplicate_token",
        text: "How far a token's score with itself lies above its mean score, in standard deviations.",
        values: scores.duplicate_token,
    }];
    let positions = [
        (
            "own position",
            "self_attention",
            "The same for its own position, by learned positions alone.",
            scores.self_attention,
        ),
        (
            "position before",
            "previous_token",
            "The same for the position before, by learned positions alone.",
            scores.previous_token,
        ),
    ];
    for (name, key, text, values) in positions {
        measures.extend(values.map(|values| Measure { name, key, text, values }));
    }
    Ok(shown(job, "What heads attend to", &measures))
}

pub(super) fn norms(job: &Job<'_>) -> Result<Shown, CliError> {
    let measures = [
        Measure {
            name: "‖OV‖",
            key: "ov",
            text: "The Frobenius norm of W_V W_O.",
            values: job.circuits.ov()?.norm()?,
        },
        Measure {
            name: "‖QK‖",
            key: "qk",
            text: "The Frobenius norm of W_Q W_Kᵀ, before the scale of the scores.",
            values: job.circuits.qk()?.norm()?,
        },
    ];
    Ok(shown(job, "Norms", &measures))
}

/// The heads, the largest of the first measure first.
fn shown(job: &Job<'_>, title: &str, measures: &[Measure]) -> Shown {
    let mut heads = job.heads();
    let first = &measures[0].values;
    heads.sort_by(|a, b| first.get(&[b.0, b.1]).total_cmp(&first.get(&[a.0, a.1])));
    let row = |&(layer, head): &(usize, usize)| {
        let values = measures.iter().map(|measure| format!("{:.4}", measure.values.get(&[layer, head])));
        [vec![label((layer, head))], values.collect()].concat()
    };
    let columns = measures.iter().map(|measure| (measure.name, Align::Right));
    let columns: Vec<(&str, Align)> = [("head", Align::Left)].into_iter().chain(columns).collect();
    let mut shown = Shown::default();
    shown.report.heading(title);
    let rows: Vec<Vec<String>> = heads.iter().take(job.args.top).map(row).collect();
    shown.report.text.push_str(&table(&columns, &rows));
    let heads = heads.iter().map(|&(layer, head)| {
        let mut entry = json!({ "layer": layer, "head": head });
        for measure in measures {
            entry[measure.key] = measure.values.get(&[layer, head]).into();
        }
        entry
    });
    shown.json = heads.collect();
    for measure in measures {
        shown.tensors.push((measure.key.to_owned(), tensor(&measure.values)));
        shown.sections.push(Section::new(measure.name, measure.text).grid(job.grid(&measure.values)));
    }
    shown
}
