//! Circuits as text, JSON, drawings and a page.

use std::path::{Path, PathBuf};

use burn_lens::{
    Pretrained,
    analysis::interventions::{Circuit, CircuitEdge},
};
use burn_lens_viz::{Column, Graph, GraphEdge, GraphRow, Line, LinePlot, Page, Section};
use serde_json::{Value, json};

use super::{EdgesArgs, Found, Method};
use crate::{
    error::CliError,
    files::{beside, write_bytes},
    measure::marked,
    report::{Align, DIM, Report, table},
};

pub(super) fn report(args: &EdgesArgs, lens: &Pretrained, found: &Found) -> Result<Report, CliError> {
    let mut report = Report::default();
    describe(args, found, &mut report);
    if let Some(path) = &args.out.save {
        // Before anything is drawn, so that nothing that was found is lost.
        let json = json(args, lens, found, std::slice::from_ref(path));
        write_bytes(path, format!("{json:#}\n").as_bytes())?;
    }
    let mut files = drawings(args, found)?;
    if let Some(path) = &args.out.html {
        write_bytes(path, page(args, lens, found)?.to_html()?.as_bytes())?;
        files.push(path.clone());
    }
    files.extend(args.out.save.clone());
    report.json = json(args, lens, found, &files);
    if !files.is_empty() {
        report.line("");
    }
    for file in &files {
        report.line(format_args!("wrote {}", file.display()));
    }
    Ok(report)
}

fn describe(args: &EdgesArgs, found: &Found, report: &mut Report) {
    report.heading(title(args));
    let [whole, _, cut] = found.sweep.circuits.first().map_or([0.0; 3], |circuit| circuit.metric);
    report.line(format_args!("{}: the model {whole:+.4}, with every edge cut {cut:+.4}", found.measure.text));
    report.line(format_args!(
        "{DIM}{} runs, the work of {:.1} whole passes{}{DIM:#}\n",
        found.sweep.runs,
        found.sweep.work,
        if found.scores.is_some() { ", besides the gradients" } else { "" }
    ));
    report.text.push_str(&table(&SIZES, &found.sweep.circuits.iter().map(sizes).collect::<Vec<_>>()));
    for circuit in &found.sweep.circuits {
        report.heading(named(circuit));
        if circuit.edges.is_empty() {
            report.line("no edge is left");
            continue;
        }
        let columns = [("from", Align::Left), ("to", Align::Left), ("effect", Align::Right)];
        let rows: Vec<Vec<String>> = largest(circuit).into_iter().take(args.top).map(row).collect();
        report.text.push_str(&table(&columns, &rows));
    }
}

const SIZES: [(&str, Align); 4] = [
    ("threshold", Align::Right),
    ("edges", Align::Right),
    ("metric", Align::Right),
    ("faithfulness", Align::Right),
];

fn sizes(circuit: &Circuit) -> Vec<String> {
    vec![
        threshold(circuit),
        format!("{} of {}", circuit.edges.len(), circuit.of),
        format!("{:+.4}", circuit.metric[1]),
        format!("{:.3}", circuit.faithfulness()),
    ]
}

fn row(edge: &CircuitEdge) -> Vec<String> {
    vec![edge.from.clone(), edge.to.clone(), format!("{:+.4}", edge.effect)]
}

fn threshold(circuit: &Circuit) -> String {
    circuit.threshold.map_or_else(String::new, |threshold| threshold.to_string())
}

fn named(circuit: &Circuit) -> String {
    format!("The circuit at {}", threshold(circuit))
}

fn title(args: &EdgesArgs) -> String {
    match args.method {
        Method::Eap => "Edges by attribution patching".to_owned(),
        Method::EapIg => format!("Edges by attribution patching, integrated over {} steps", args.steps),
        Method::Acdc => "Edges left by pruning".to_owned(),
    }
}

/// The edges, the largest effects first.
fn largest(circuit: &Circuit) -> Vec<&CircuitEdge> {
    let mut edges: Vec<&CircuitEdge> = circuit.edges.iter().collect();
    edges.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
    edges
}

/// The edges whose effect is a number.
fn drawable(circuit: &Circuit) -> impl Iterator<Item = &CircuitEdge> {
    circuit.edges.iter().filter(|edge| edge.effect.is_finite())
}

/// A circuit as a drawing; an edge to a key-value head that several heads share leads to each.
fn graph(circuit: &Circuit, found: &Found) -> Graph {
    let row =
        |(label, nodes): &(String, Vec<String>)| GraphRow { label: label.clone(), nodes: nodes.clone() };
    let edges = drawable(circuit).flat_map(|edge| {
        edge.feeds.iter().map(|part| GraphEdge {
            from: edge.from.clone(),
            to: part.clone(),
            port: edge.port().to_owned(),
            value: edge.effect,
        })
    });
    Graph {
        title: format!(
            "{}: {} of {} edges, faithfulness {:.3}",
            named(circuit),
            circuit.edges.len(),
            circuit.of,
            circuit.faithfulness()
        ),
        rows: found.rows.iter().map(row).collect(),
        edges: edges.collect(),
        signs: ["cutting it raises the metric".to_owned(), "cutting it lowers the metric".to_owned()],
    }
}

/// The drawings of circuits that have edges to draw.
fn drawings(args: &EdgesArgs, found: &Found) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    let many = found.sweep.circuits.len() > 1;
    for circuit in found.sweep.circuits.iter().filter(|circuit| drawable(circuit).next().is_some()) {
        let suffix = if many { format!("-{}", threshold(circuit)) } else { String::new() };
        let mut write = |path: &Path, text: &str| -> Result<(), CliError> {
            let path = beside(path, &suffix);
            write_bytes(&path, text.as_bytes())?;
            files.push(path);
            Ok(())
        };
        if let Some(path) = &args.out.svg {
            write(path, &graph(circuit, found).to_svg()?)?;
        }
        if let Some(path) = &args.out.dot {
            write(path, &circuit.to_dot())?;
        }
    }
    Ok(files)
}

fn page(args: &EdgesArgs, lens: &Pretrained, found: &Found) -> Result<Page, CliError> {
    let numbers = |columns: &[(&str, Align)]| -> Vec<Column> {
        let column = |&(name, align): &(&str, Align)| match align {
            Align::Left => Column::text(name),
            Align::Right => Column::number(name),
        };
        columns.iter().map(column).collect()
    };
    let circuits = &found.sweep.circuits;
    let mut overview = Section::new(
        "Circuits by threshold",
        &format!(
            "An edge is kept where its cut moves {} by at least the threshold. Faithfulness is the circuit's share \
             of the way from a model with every edge cut (0) to the whole model (1).",
            found.measure.text
        ),
    )
    .table(numbers(&SIZES), circuits.iter().map(sizes).collect());
    let plot = faithfulness(circuits);
    if plot.lines[0].points.len() > 1 {
        overview = overview.figure(plot.figure("Faithfulness by the number of edges, as in the table.")?);
    }
    let mut sections = vec![
        Section::new("Clean", "What the model runs on.").tokens(marked(lens, &found.clean, &found.corrupt)),
        Section::new("Corrupt", "What cut edges carry.").tokens(marked(lens, &found.corrupt, &found.clean)),
        overview,
    ];
    for circuit in circuits {
        let empty = circuit.edges.is_empty();
        let text = if empty { "No edge is left." } else { "What reads stands above what it reads." };
        let section = Section::new(&named(circuit), text);
        sections.push(if empty {
            section
        } else {
            let columns = [Column::text("from"), Column::text("to"), Column::number("effect")];
            let rows = largest(circuit).into_iter().take(args.top).map(row).collect();
            let alt =
                format!("The circuit as a graph: {} edges, the largest in the table.", circuit.edges.len());
            section.figure(graph(circuit, found).figure(&alt)?).table(columns.to_vec(), rows)
        });
    }
    Ok(Page {
        title: format!("{}: {}", title(args), lens.name),
        lead: "An edge that is cut carries what it carries in the corrupt run; everything behind it is computed anew."
            .to_owned(),
        sections,
        footer: format!("Written by burn-lens {}. This file needs no network.", env!("CARGO_PKG_VERSION")),
    })
}

fn faithfulness(circuits: &[Circuit]) -> LinePlot {
    let finite = circuits.iter().filter(|circuit| circuit.faithfulness().is_finite());
    let mut points: Vec<(f64, f64)> =
        finite.map(|circuit| (circuit.edges.len() as f64, circuit.faithfulness())).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    LinePlot {
        title: "How much of the model its circuits do".to_owned(),
        x_label: "edges kept".to_owned(),
        y_label: "faithfulness".to_owned(),
        log: false,
        lines: vec![Line { name: "faithfulness".to_owned(), points }],
    }
}

fn json(args: &EdgesArgs, lens: &Pretrained, found: &Found, files: &[PathBuf]) -> Value {
    let token = |answer: &crate::answers::Answer| json!({ "id": answer.id, "token": answer.text });
    let [whole, _, cut] = found.sweep.circuits.first().map_or([0.0; 3], |circuit| circuit.metric);
    let circuit = |circuit: &Circuit| {
        json!({
            "threshold": circuit.threshold,
            "edges": largest(circuit),
            "of": circuit.of,
            "metric": circuit.metric[1],
            "faithfulness": circuit.faithfulness(),
        })
    };
    let measure = &found.measure;
    json!({
        "model": lens.name,
        "method": match args.method {
            Method::Eap => "eap",
            Method::EapIg => "eap-ig",
            Method::Acdc => "acdc",
        },
        "steps": (args.method == Method::EapIg).then_some(args.steps),
        "metric": measure.name,
        "answers": measure.answers.iter().map(token).collect::<Vec<_>>(),
        "against": measure.against.iter().map(token).collect::<Vec<_>>(),
        "whole": whole,
        "cut": cut,
        "runs": found.sweep.runs,
        "work": found.sweep.work,
        "rows": found.rows,
        "circuits": found.sweep.circuits.iter().map(circuit).collect::<Vec<_>>(),
        "scores": found.scores,
        "files": files,
    })
}
