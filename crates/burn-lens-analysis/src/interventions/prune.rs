//! Which edges make a circuit: pruning one after the other, or by score.
//!
//! Sources: Conmy et al. (2023), `Towards automated circuit discovery` (ACDC); Hanna et al. (2024),
//! `Have faith in faithfulness` (circuits by score).

use std::ops::ControlFlow;

use burn_lens_hooks::HookedModel;

use super::{
    EdgeNodes, EdgeScores,
    circuit::{Circuit, CircuitEdge, CircuitSweep},
    edge_runs::{EdgeRuns, EdgeSet},
};
use crate::AnalysisError;

/// An edge, as places in the lists of senders and receivers, and its effect.
type Scored = (usize, usize, f64);

/// What pruning has decided so far, for the thresholds that agreed on every edge.
#[derive(Clone)]
struct Branch {
    cut: EdgeSet,
    /// The metric with these edges cut.
    value: f64,
    kept: Vec<Scored>,
    thresholds: Vec<usize>,
}

impl<M: HookedModel + ?Sized> EdgeRuns<'_, '_, M> {
    /// The circuit of these edges: every other edge is cut.
    ///
    /// # Errors
    ///
    /// If a run fails.
    pub fn circuit(&self, kept: &[(usize, usize, f64)]) -> Result<Circuit, AnalysisError> {
        let [whole, every] = self.ends()?;
        Ok(self.named(None, kept, [whole, self.alone(kept)?, every]))
    }

    /// Cuts every edge whose cut moves the metric by less than a threshold, from the logits back to the
    /// embedding (ACDC). What was cut stays cut for the edges that follow. Nothing before the edge under
    /// test has been cut yet, so each run starts at its receiver's block.
    ///
    /// Thresholds share their runs for as long as they agree. Edges that lie on no path from the
    /// embedding to the logits are left out at the end: they carry what they carry when cut, or are
    /// not read.
    ///
    /// # Errors
    ///
    /// If a threshold is not a number of at least 0, a run fails, or `on_progress`, called with the
    /// edges tested and in all, breaks.
    pub fn prune(
        &self,
        thresholds: &[f64],
        on_progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<CircuitSweep, AnalysisError> {
        check(thresholds)?;
        let mut edges = self.nodes.edges();
        edges.sort_by_key(|&(from, to)| (std::cmp::Reverse(to), std::cmp::Reverse(from)));
        let [whole, every] = self.ends()?;
        let (mut runs, mut work) = (2, 2.0);
        let all = (0..thresholds.len()).collect();
        let mut branches =
            vec![Branch { cut: EdgeSet::new(), value: whole, kept: Vec::new(), thresholds: all }];
        for (tested, &edge) in edges.iter().enumerate() {
            if on_progress(tested, edges.len()).is_break() {
                let reason = format!("interrupted behind {tested} of {} edges", edges.len());
                return Err(AnalysisError::Refused { what: "pruning", reason });
            }
            let mut decided = Vec::new();
            for branch in branches {
                let mut cut = branch.cut.clone();
                cut.insert(edge);
                let (value, share) = self.measured(&cut)?;
                runs += 1;
                work += share;
                decided.extend(branch.decide(edge, cut, value, thresholds));
            }
            branches = decided;
        }
        let mut circuits: Vec<(usize, Circuit)> = Vec::new();
        for Branch { value, kept, thresholds: of, .. } in &branches {
            let kept = on_paths(&self.nodes, kept);
            let circuit = |&at: &usize| (at, self.named(Some(thresholds[at]), &kept, [whole, *value, every]));
            circuits.extend(of.iter().map(circuit));
        }
        circuits.sort_by_key(|&(at, _)| at);
        let circuits = circuits.into_iter().map(|(_, circuit)| circuit).collect();
        Ok(CircuitSweep { circuits, runs, work })
    }

    /// The circuits of the edges whose score is, in magnitude, at least a threshold, but for those
    /// that lie on no path from the embedding to the logits: one run for each.
    ///
    /// # Errors
    ///
    /// If a threshold is not a number of at least 0, the scores are of another model, or a run fails.
    pub fn select(&self, scores: &EdgeScores, thresholds: &[f64]) -> Result<CircuitSweep, AnalysisError> {
        check(thresholds)?;
        let [senders, receivers] = [self.nodes.senders.len(), self.nodes.receivers.len()];
        if scores.scores.len() != senders * receivers {
            return Err(AnalysisError::Shape {
                what: "the scores of edges",
                expected: format!("{senders} senders and {receivers} receivers, as the model has"),
                found: vec![scores.senders.len(), scores.receivers.len()],
            });
        }
        let [whole, every] = self.ends()?;
        let edges = self.nodes.edges();
        let at = |threshold: f64| -> Result<Circuit, AnalysisError> {
            let score = |&(from, to): &(usize, usize)| (from, to, scores.scores[from * receivers + to]);
            let kept: Vec<Scored> =
                // What is no number is no reason to leave an edge out, as in pruning.
                edges.iter().map(score).filter(|(_, _, score)| score.is_nan() || score.abs() >= threshold).collect();
            let kept = on_paths(&self.nodes, &kept);
            Ok(self.named(Some(threshold), &kept, [whole, self.alone(&kept)?, every]))
        };
        let circuits = thresholds.iter().map(|&threshold| at(threshold)).collect::<Result<_, _>>()?;
        let runs = 2 + thresholds.len();
        Ok(CircuitSweep { circuits, runs, work: runs as f64 })
    }

    /// The metric with no edge cut, and with every edge cut.
    fn ends(&self) -> Result<[f64; 2], AnalysisError> {
        let every: EdgeSet = self.nodes.edges().into_iter().collect();
        Ok([self.measure(&EdgeSet::new())?, self.measure(&every)?])
    }

    /// The metric with every edge but these cut.
    fn alone(&self, kept: &[Scored]) -> Result<f64, AnalysisError> {
        let inside: EdgeSet = kept.iter().map(|&(from, to, _)| (from, to)).collect();
        self.measure(&self.nodes.edges().into_iter().filter(|edge| !inside.contains(edge)).collect())
    }

    fn named(&self, threshold: Option<f64>, kept: &[Scored], metric: [f64; 3]) -> Circuit {
        let edge = |&(from, to, effect): &Scored| CircuitEdge {
            from: self.nodes.senders[from].to_string(),
            to: self.nodes.receivers[to].to_string(),
            feeds: self.nodes.fed_by(self.nodes.receivers[to]),
            effect,
        };
        let edges = kept.iter().map(edge).collect();
        Circuit { threshold, edges, of: self.nodes.edges().len(), metric }
    }
}

impl Branch {
    /// What follows from `value`, the metric with `cut`, which is this branch's with `edge`.
    fn decide(
        mut self,
        edge: (usize, usize),
        cut: EdgeSet,
        value: f64,
        thresholds: &[f64],
    ) -> impl Iterator<Item = Self> {
        let effect = value - self.value;
        let of = std::mem::take(&mut self.thresholds);
        // What is no number has moved the metric, too.
        let (cuts, keeps): (Vec<usize>, Vec<usize>) =
            of.into_iter().partition(|&at| effect.abs() < thresholds[at]);
        let cutting = Self { cut, value, kept: self.kept.clone(), thresholds: cuts };
        self.kept.push((edge.0, edge.1, effect));
        let keeping = Self { thresholds: keeps, ..self };
        [cutting, keeping].into_iter().filter(|branch| !branch.thresholds.is_empty())
    }
}

fn check(thresholds: &[f64]) -> Result<(), AnalysisError> {
    let refuse = |reason: String| Err(AnalysisError::Refused { what: "thresholds of edges", reason });
    match thresholds.iter().find(|threshold| !threshold.is_finite() || **threshold < 0.0) {
        Some(wrong) => refuse(format!("{wrong} is not a number of at least 0")),
        None if thresholds.is_empty() => refuse("there is none".to_owned()),
        None => Ok(()),
    }
}

/// The edges that lie on a path from the embedding to the logits.
fn on_paths(nodes: &EdgeNodes, kept: &[Scored]) -> Vec<Scored> {
    let feeds = |to: usize, part: usize| nodes.feeds(nodes.receivers[to], nodes.senders[part]);
    let parts = nodes.senders.len();
    // The embedding comes first, and parts stand in the order of computation.
    let mut reached = vec![false; parts];
    for part in 0..parts {
        reached[part] = part == 0 || kept.iter().any(|&(from, to, _)| reached[from] && feeds(to, part));
    }
    let mut read = vec![false; parts];
    let is_read = |read: &[bool], to: usize| {
        to + 1 == nodes.receivers.len() || (0..parts).any(|part| read[part] && feeds(to, part))
    };
    for part in (0..parts).rev() {
        read[part] = kept.iter().any(|&(from, to, _)| from == part && is_read(&read, to));
    }
    kept.iter().copied().filter(|&(from, to, _)| reached[from] && is_read(&read, to)).collect()
}
