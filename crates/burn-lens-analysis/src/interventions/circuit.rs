//! Circuits: the edges that do a task, how faithful they are alone, and their drawing as text.

use std::fmt::Write as _;

use serde::Serialize;

/// One edge of a circuit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CircuitEdge {
    /// What writes.
    pub from: String,
    /// What reads.
    pub to: String,
    /// The parts of which that is an input: those of a key-value head may be several heads.
    pub feeds: Vec<String>,
    /// By how much the metric moved when the edge was cut, or its score.
    pub effect: f64,
}

/// A circuit: the edges that were kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Circuit {
    /// The threshold that left it, if one did.
    pub threshold: Option<f64>,
    /// The edges that were kept.
    pub edges: Vec<CircuitEdge>,
    /// How many edges the model has.
    pub of: usize,
    /// The metric of the whole model, of the circuit alone, and with every edge cut.
    pub metric: [f64; 3],
}

/// Circuits of one model and task, by threshold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CircuitSweep {
    /// In the order of the thresholds.
    pub circuits: Vec<Circuit>,
    /// How many runs it took, for all thresholds together, besides the two of
    /// [`EdgeRuns::new`](super::EdgeRuns::new).
    pub runs: usize,
    /// The work done, in whole passes: a run starts at the block that it changes.
    pub work: f64,
}

impl CircuitEdge {
    /// Which input of a head it is (`q`, `k` or `v`); nothing for MLPs and logits.
    #[must_use]
    pub fn port(&self) -> &str {
        self.to.split_once('.').map_or("", |(_, port)| port)
    }
}

impl Circuit {
    /// The circuit's share of the way from a model with every edge cut to the whole model.
    #[must_use]
    pub fn faithfulness(&self) -> f64 {
        let [whole, circuit, cut] = self.metric;
        (circuit - cut) / (whole - cut)
    }

    /// As a graph in Graphviz's language: `dot -Tsvg` draws it. Heads are one node each, whatever of
    /// them reads; an edge is the wider the more its cut moved the metric.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let widest = self.edges.iter().fold(0.0f64, |widest, edge| widest.max(edge.effect.abs()));
        let mut text =
            String::from("digraph circuit {\n  rankdir=BT;\n  node [shape=box, fontname=monospace];\n");
        for edge in &self.edges {
            let share = if widest > 0.0 { edge.effect.abs() / widest } else { 0.0 };
            let color = if edge.effect < 0.0 { "blue" } else { "red" };
            let width = 0.5 + 3.5 * share;
            for part in &edge.feeds {
                // Writing to a string does not fail.
                let _ = writeln!(
                    text,
                    "  \"{}\" -> \"{part}\" [headlabel=\"{}\", color={color}, penwidth={width:.2}, tooltip=\"{:.4}\"];",
                    edge.from,
                    edge.port(),
                    edge.effect
                );
            }
        }
        text.push_str("}\n");
        text
    }
}
