//! Circuits: which edges matter, how faithful they are alone, and pruning one edge after the other.
//!
//! An edge that is cut carries what it carries in another run (the corrupt one). Everything behind it
//! is computed anew.
//!
//! Source of the pruning: Conmy et al. (2023), `Towards automated circuit discovery` (ACDC).

use std::{
    collections::HashSet,
    fmt::Write as _,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use burn::tensor::{Tensor, TensorData};
use burn_lens_hooks::{
    CacheOptions, Hook, HookContext, HookPoint, HookedModel, Input, ReturnType, RunError, RunOptions,
};
use serde::Serialize;

use super::{
    Engine,
    edges::{EdgeNodes, Receiver, Sender, writes},
    sweep::mean,
};
use crate::AnalysisError;

/// Runs of a model with some of its edges cut.
///
/// The engine's own input is the run that is kept (clean); cut edges carry what they carry in another.
pub struct EdgeRuns<'e, 'm, M: ?Sized> {
    engine: &'e Engine<'m, M>,
    nodes: EdgeNodes,
    /// What senders write in the run that is kept, and in the other one.
    kept: Vec<Tensor<3>>,
    other: Vec<Tensor<3>>,
    /// The stream that enters each block, with no edge cut.
    streams: Vec<Tensor<3>>,
}

/// A set of edges, as places in the lists of senders and receivers.
pub type EdgeSet = HashSet<(usize, usize)>;

/// One edge of a circuit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CircuitEdge {
    /// What writes.
    pub from: String,
    /// What reads.
    pub to: String,
    /// By how much the metric moved when the edge was cut, or its score.
    pub effect: f64,
}

/// A circuit: the edges that were kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Circuit {
    /// Every sender of the model.
    pub senders: Vec<String>,
    /// Every receiver.
    pub receivers: Vec<String>,
    /// The edges that were kept.
    pub edges: Vec<CircuitEdge>,
    /// How many edges the model has.
    pub of: usize,
    /// The metric of the whole model, of the circuit alone, and with every edge cut.
    pub metric: [f64; 3],
    /// How many passes it took, counted in blocks: whole passes would have taken `passes`.
    pub passes: usize,
    /// The work done, in whole passes.
    pub work: f64,
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
            let (to, port) = edge.to.split_once('.').unwrap_or((&edge.to, ""));
            let share = if widest > 0.0 { edge.effect.abs() / widest } else { 0.0 };
            let color = if edge.effect < 0.0 { "blue" } else { "red" };
            let width = 0.5 + 3.5 * share;
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "  \"{}\" -> \"{to}\" [headlabel=\"{port}\", color={color}, penwidth={width:.2}, tooltip=\"{:.4}\"];",
                edge.from, edge.effect
            );
        }
        text.push_str("}\n");
        text
    }
}

impl<'e, 'm, M: HookedModel + ?Sized> EdgeRuns<'e, 'm, M> {
    /// Runs the model on the engine's input and on `other`, of as many prompts and positions.
    ///
    /// # Errors
    ///
    /// If the model's parts do not write on their own, or the inputs are of different shapes.
    pub fn new(engine: &'e Engine<'m, M>, other: &Input) -> Result<Self, AnalysisError> {
        let nodes = EdgeNodes::of(engine.model)?;
        if engine.input.batch_pos() != other.batch_pos() {
            return Err(AnalysisError::Shape {
                what: "the other prompts",
                expected: format!("{:?} prompts and positions", engine.input.batch_pos()),
                found: other.batch_pos().to_vec(),
            });
        }
        let mut points = nodes.writes();
        points.extend((1..engine.model.dims().n_layers).map(HookPoint::ResidPre));
        let options = RunOptions { return_type: ReturnType::None, ..engine.run.clone() };
        let run = |input: &Input| {
            engine.model.run_with_cache(input, &options, &CacheOptions::names(points.clone()))
        };
        let (kept, other) = (run(&engine.input)?.1, run(other)?.1);
        let streams = (0..engine.model.dims().n_layers).map(|layer| kept.tensor(HookPoint::ResidPre(layer)));
        let streams = streams.collect::<Result<_, RunError>>()?;
        let (kept, other) = (writes(&nodes, &kept)?, writes(&nodes, &other)?);
        Ok(Self { engine, nodes, kept, other, streams })
    }

    /// What writes and what reads.
    #[must_use]
    pub fn nodes(&self) -> &EdgeNodes {
        &self.nodes
    }

    /// The metric, mean over prompts, with these edges cut. Blocks before the first receiver of a cut
    /// edge are not computed.
    ///
    /// # Errors
    ///
    /// If the run fails.
    pub fn measure(&self, cut: &EdgeSet) -> Result<f64, AnalysisError> {
        Ok(self.measured(cut)?.0)
    }

    /// And the share of a whole pass that it took.
    fn measured(&self, cut: &EdgeSet) -> Result<(f64, f64), AnalysisError> {
        let n_layers = self.engine.model.dims().n_layers;
        let layer_of = |receiver: Receiver| match receiver {
            Receiver::Q(layer, _) | Receiver::K(layer, _) | Receiver::V(layer, _) | Receiver::Mlp(layer) => {
                layer
            }
            Receiver::Logits => n_layers - 1,
        };
        let first = cut.iter().map(|&(_, to)| layer_of(self.nodes.receivers[to])).min();
        let first = first.unwrap_or(n_layers - 1);
        let current = Arc::new(Mutex::new(self.kept.clone()));
        let hooks = self.hooks(cut, first, &current);
        let options = RunOptions { start_at_layer: Some(first.cast_signed()), ..self.engine.run.clone() };
        let input = Input::Resid(self.streams[first].clone());
        let output = self.engine.model.run_with_hooks(&input, &options, hooks)?;
        let value = mean(&self.engine.readout.of_logits(&output.into_logits()?)?);
        Ok((value, (n_layers - first) as f64 / n_layers as f64))
    }

    /// Hooks that note what senders write, and that change what receivers of cut edges read.
    fn hooks(&self, cut: &EdgeSet, first: usize, current: &Arc<Mutex<Vec<Tensor<3>>>>) -> Vec<Hook<'_>> {
        let mut hooks = Vec::new();
        for point in self.nodes.writes() {
            if point.layer().is_some_and(|layer| layer >= first) && point != HookPoint::ResidPre(0) {
                hooks.push(self.note(point, current));
            }
        }
        for (point, group) in self.groups() {
            let missing: Vec<(usize, usize)> = group
                .iter()
                .enumerate()
                .flat_map(|(place, &to)| {
                    cut.iter().filter(move |edge| edge.1 == to).map(move |&(from, _)| (from, place))
                })
                .collect();
            if !missing.is_empty() {
                hooks.push(self.reading(point, group.len(), missing, current));
            }
        }
        hooks
    }

    /// The receivers that read at one hook, in order.
    fn groups(&self) -> Vec<(HookPoint, Vec<usize>)> {
        let last = HookPoint::ResidPost(self.engine.model.dims().n_layers - 1);
        let mut groups: Vec<(HookPoint, Vec<usize>)> = Vec::new();
        for (to, receiver) in self.nodes.receivers.iter().enumerate() {
            let point = match *receiver {
                Receiver::Q(layer, _) => HookPoint::QInput(layer),
                Receiver::K(layer, _) => HookPoint::KInput(layer),
                Receiver::V(layer, _) => HookPoint::VInput(layer),
                Receiver::Mlp(layer) => HookPoint::MlpIn(layer),
                Receiver::Logits => last,
            };
            match groups.last_mut() {
                Some((other, group)) if *other == point => group.push(to),
                _ => groups.push((point, vec![to])),
            }
        }
        groups
    }

    fn note(&self, point: HookPoint, current: &Arc<Mutex<Vec<Tensor<3>>>>) -> Hook<'_> {
        let current = Arc::clone(current);
        let place = |sender: Sender| self.nodes.senders.iter().position(|other| *other == sender);
        if let HookPoint::AttnResult(layer) = point {
            let start = place(Sender::Head(layer, 0)).expect("every layer has heads");
            return Hook::read(point, move |x: &Tensor<4>, _: &mut HookContext<'_>| {
                let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
                for head in 0..x.dims()[2] {
                    current[start + head] = super::edges::of_head(x.clone(), head);
                }
            });
        }
        let layer = point.layer().unwrap_or(0);
        let at = place(Sender::Mlp(layer)).expect("a sender of the model");
        Hook::read(point, move |x: &Tensor<3>, _: &mut HookContext<'_>| {
            current.lock().unwrap_or_else(PoisonError::into_inner)[at] = x.clone();
        })
    }

    /// What receivers read, with what cut edges carry exchanged: `missing` are places of senders and
    /// of receivers at this hook.
    fn reading(
        &self,
        point: HookPoint,
        receivers: usize,
        missing: Vec<(usize, usize)>,
        current: &Arc<Mutex<Vec<Tensor<3>>>>,
    ) -> Hook<'_> {
        let current = Arc::clone(current);
        let mut from: Vec<usize> = missing.iter().map(|edge| edge.0).collect();
        from.sort_unstable();
        from.dedup();
        let other: Vec<Tensor<3>> = from.iter().map(|&at| self.other[at].clone()).collect();
        let change = move || -> Tensor<4> {
            let current = current.lock().unwrap_or_else(PoisonError::into_inner);
            let [batch, pos, d_model] = other[0].dims();
            let flat = |(other, &at): (&Tensor<3>, &usize)| {
                (other.clone() - current[at].clone()).reshape([1, batch * pos * d_model])
            };
            let differences: Tensor<2> = Tensor::cat(other.iter().zip(&from).map(flat).collect(), 0);
            let mut mixing = vec![0.0f64; receivers * from.len()];
            for (sender, place) in &missing {
                if let Ok(column) = from.binary_search(sender) {
                    mixing[place * from.len() + column] = 1.0;
                }
            }
            let mixing = TensorData::new(mixing, [receivers, from.len()]);
            let mixing = Tensor::<2>::from_data(mixing, (&differences.device(), differences.dtype()));
            mixing.matmul(differences).reshape([receivers, batch, pos, d_model])
        };
        if point.head_axis().is_some() {
            Hook::edit(point, move |x: Tensor<4>, _: &mut HookContext<'_>| x + change().permute([1, 2, 0, 3]))
        } else {
            Hook::edit(point, move |x: Tensor<3>, _: &mut HookContext<'_>| x + change().squeeze_dim::<3>(0))
        }
    }

    /// The circuit of these edges: every other edge is cut.
    ///
    /// # Errors
    ///
    /// If a run fails.
    pub fn circuit(&self, kept: &[(usize, usize, f64)]) -> Result<Circuit, AnalysisError> {
        let all = self.nodes.edges();
        let inside: EdgeSet = kept.iter().map(|&(from, to, _)| (from, to)).collect();
        let outside: EdgeSet = all.iter().copied().filter(|edge| !inside.contains(edge)).collect();
        let every: EdgeSet = all.iter().copied().collect();
        let metric = [self.measure(&EdgeSet::new())?, self.measure(&outside)?, self.measure(&every)?];
        let edge = |&(from, to, effect): &(usize, usize, f64)| CircuitEdge {
            from: self.nodes.senders[from].to_string(),
            to: self.nodes.receivers[to].to_string(),
            effect,
        };
        Ok(Circuit {
            senders: self.nodes.senders.iter().map(ToString::to_string).collect(),
            receivers: self.nodes.receivers.iter().map(ToString::to_string).collect(),
            edges: kept.iter().map(edge).collect(),
            of: all.len(),
            metric,
            passes: 3,
            work: 3.0,
        })
    }

    /// Cuts every edge whose cut moves the metric by less than `threshold`, from the logits back to the
    /// embedding (ACDC). What was cut stays cut for the edges that follow. Nothing before the edge under
    /// test has been cut yet, so each run starts at its receiver's block.
    ///
    /// # Errors
    ///
    /// If a run fails, or `on_progress`, called with the edges tested and in all, breaks.
    pub fn prune(
        &self,
        threshold: f64,
        on_progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Circuit, AnalysisError> {
        let mut edges = self.nodes.edges();
        edges.sort_by_key(|&(from, to)| (std::cmp::Reverse(to), std::cmp::Reverse(from)));
        let mut cut = EdgeSet::new();
        let (mut value, mut work) = (self.measure(&cut)?, 0.0);
        let mut kept = Vec::new();
        for (tested, &(from, to)) in edges.iter().enumerate() {
            if on_progress(tested, edges.len()).is_break() {
                let reason = format!("interrupted behind {tested} of {} edges", edges.len());
                return Err(AnalysisError::Refused { what: "pruning", reason });
            }
            cut.insert((from, to));
            let (without, share) = self.measured(&cut)?;
            work += share;
            if (without - value).abs() < threshold {
                value = without;
            } else {
                cut.remove(&(from, to));
                kept.push((from, to, without - value));
            }
        }
        let circuit = self.circuit(&kept)?;
        Ok(Circuit { passes: edges.len(), work, ..circuit })
    }
}
