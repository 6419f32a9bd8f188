//! Eigenvalues of each head's circuits.

use burn_lens::{
    burn::tensor::TensorData,
    linalg::{Complex, FactoredMatrix, Values},
};
use burn_lens_viz::{Point, Scatter, Section};
use serde_json::json;

use super::{Job, Shown, label};
use crate::{
    error::CliError,
    report::{Align, table},
};

pub(super) fn eigenvalues(job: &Job<'_>) -> Result<Shown, CliError> {
    let of = job.args.of.as_deref().unwrap_or("full_OV");
    let circuit = circuit(job, of)?;
    let values = circuit.eigenvalues()?;
    let copying = values.positive_share();
    let mut heads = job.heads();
    heads.sort_by(|a, b| copying.get(&[b.0, b.1]).total_cmp(&copying.get(&[a.0, a.1])));
    let mut shown = Shown::default();
    shown.report.heading(format_args!("Eigenvalues of {of}"));
    let row = |&(layer, head): &(usize, usize)| {
        let largest = values.at(&[layer, head]).iter().take(4).map(|value| format!("{value:.3}"));
        let largest = largest.collect::<Vec<_>>().join("  ");
        vec![label((layer, head)), format!("{:.4}", copying.get(&[layer, head])), largest]
    };
    let columns = [("head", Align::Left), ("Σ Re λ / Σ |λ|", Align::Right), ("the largest", Align::Left)];
    let rows: Vec<Vec<String>> = heads.iter().take(job.args.top).map(row).collect();
    shown.report.text.push_str(&table(&columns, &rows));
    let list = heads.iter().map(|&(layer, head)| {
        let pairs: Vec<[f64; 2]> = values.at(&[layer, head]).iter().map(|value| [value.re, value.im]).collect();
        json!({ "layer": layer, "head": head, "positive_share": copying.get(&[layer, head]), "eigenvalues": pairs })
    });
    shown.json = json!({ "of": of, "heads": list.collect::<Vec<_>>() });
    shown.tensors.push((format!("{of}.eigenvalues"), parts(&values)));
    let text = "Σ Re λ / Σ |λ| of each head; below, the heads with the largest.";
    shown.sections.push(Section::new(&format!("Eigenvalues of {of}"), text).grid(job.grid(&copying)));
    for &(layer, head) in heads.iter().take(job.args.top) {
        let share = copying.get(&[layer, head]);
        shown.sections.push(section((layer, head), values.at(&[layer, head]), share));
    }
    Ok(shown)
}

fn circuit(job: &Job<'_>, of: &str) -> Result<FactoredMatrix, CliError> {
    Ok(match of {
        "OV" => job.circuits.ov()?,
        "QK" => job.circuits.qk()?,
        "full_OV" => job.circuits.full_ov()?,
        "full_QK" => job.circuits.full_qk()?,
        _ => return Err(CliError::NoSuchMatrix { of: of.to_owned(), choices: "OV, QK, full_OV or full_QK" }),
    })
}

fn section(head: (usize, usize), values: &[Complex], share: f64) -> Section {
    let point = |value: &Complex| Point {
        x: value.re,
        y: value.im,
        note: format!("{value:.4}, of magnitude {:.4}", value.abs()),
    };
    let scatter = Scatter {
        x_axis: "real".to_owned(),
        y_axis: "imaginary".to_owned(),
        points: values.iter().map(point).collect(),
    };
    Section::new(&label(head), &format!("Σ Re λ / Σ |λ| = {share:.4}.")).scatter(scatter)
}

/// Real and imaginary parts: `[.., 2]`.
fn parts(values: &Values<Complex>) -> TensorData {
    let data: Vec<f32> = values.data().iter().flat_map(|value| [value.re as f32, value.im as f32]).collect();
    TensorData::new(data, [values.shape(), &[2]].concat())
}
