//! The tokens behind singular vectors.

use burn_lens::{
    analysis::{SingularVectors, SvdInterpreter, VectorTokens, VectorType},
    burn::tensor::TensorData,
    hooks::RunError,
    tensor::AnyTensor,
};
use burn_lens_viz::{Column, Section};
use serde_json::{Value, json};

use super::{Job, Shown, label};
use crate::{
    error::CliError,
    next_tokens::{plain, shown as quoted},
    report::{Align, table},
};

/// Tokens of each end of a vector.
const TOKENS: usize = 8;

pub(super) fn svd(job: &Job<'_>) -> Result<Shown, CliError> {
    let kind: VectorType = job.args.of.as_deref().unwrap_or("OV").parse()?;
    let layer = job.args.layer.ok_or(CliError::Needs { what: "--show svd", flag: "--layer" })?;
    if kind.of_head() && job.args.head.is_none() {
        return Err(CliError::Needs { what: "the singular vectors of a head", flag: "--head" });
    }
    let interpreter = SvdInterpreter::new(&job.lens.model, job.folding)?;
    let dims = job.circuits.dims();
    let most = if kind.of_head() { dims.d_head.min(dims.d_model) } else { dims.d_mlp.min(dims.d_model) };
    let count = job.args.top.min(most.max(1));
    let found = interpreter.get_singular_vectors(kind, layer, job.args.head, count)?;
    let tokens = found.tokens(TOKENS)?;
    let name = job.args.head.map_or_else(|| format!("layer {layer}"), |head| label((layer, head)));
    let mut shown = Shown::default();
    shown.report.heading(format_args!("Singular vectors of {kind}, {name}"));
    let rows: Vec<Vec<String>> = tokens.iter().enumerate().map(|(at, tokens)| row(job, at, tokens)).collect();
    let columns = [
        ("", Align::Right),
        ("value", Align::Right),
        ("top tokens", Align::Left),
        ("bottom tokens", Align::Left),
    ];
    shown.report.text.push_str(&table(&columns, &rows));
    let list = tokens.iter().map(|tokens| {
        let end = |tokens: &[(usize, f64)]| -> Value {
            tokens
                .iter()
                .map(|&(id, value)| json!({ "id": id, "token": text(job, id), "value": value }))
                .collect()
        };
        json!({ "value": tokens.value, "top": end(&tokens.top), "bottom": end(&tokens.bottom) })
    });
    shown.json = json!({ "of": kind.to_string(), "layer": layer, "head": job.args.head, "vectors": list.collect::<Vec<_>>() });
    shown.tensors = tensors(&found)?;
    let text = "Each vector read through the unembedding; a vector and its negative say the same.";
    shown.sections.push(Section::new(&format!("{kind}, {name}"), text));
    for (at, tokens) in tokens.iter().enumerate() {
        let text = format!("Singular value {:.4}.", tokens.value);
        let columns = ["top", "readout", "bottom", "readout"];
        let columns =
            columns.map(|name| if name == "readout" { Column::number(name) } else { Column::text(name) });
        shown
            .sections
            .push(Section::new(&format!("Vector {at}"), &text).table(columns.to_vec(), lines(job, tokens)));
    }
    Ok(shown)
}

fn text(job: &Job<'_>, id: usize) -> String {
    plain(job.lens.tokenizer.as_ref(), id as i64)
}

fn row(job: &Job<'_>, at: usize, tokens: &VectorTokens) -> Vec<String> {
    let end = |tokens: &[(usize, f64)]| {
        let texts = tokens.iter().map(|&(id, _)| quoted(job.lens.tokenizer.as_ref(), id as i64));
        texts.collect::<Vec<_>>().join(" ")
    };
    vec![at.to_string(), format!("{:.4}", tokens.value), end(&tokens.top), end(&tokens.bottom)]
}

fn lines(job: &Job<'_>, tokens: &VectorTokens) -> Vec<Vec<String>> {
    let line = |(top, bottom): (&(usize, f64), &(usize, f64))| {
        let cells =
            |&(id, value): &(usize, f64)| [burn_lens_viz::visible(&text(job, id)), format!("{value:+.4}")];
        [cells(top), cells(bottom)].concat()
    };
    tokens.top.iter().zip(&tokens.bottom).map(line).collect()
}

fn tensors(found: &SingularVectors) -> Result<Vec<(String, TensorData)>, CliError> {
    let values: Vec<f32> = found.values.iter().map(|&value| value as f32).collect();
    let (count, failed) = (values.len(), |error| CliError::from(RunError::from(error)));
    Ok(vec![
        ("readout".to_owned(), AnyTensor::from(found.readout.clone()).into_data().map_err(failed)?),
        ("vectors".to_owned(), AnyTensor::from(found.vectors.clone()).into_data().map_err(failed)?),
        ("singular_values".to_owned(), TensorData::new(values, [count])),
    ])
}
