//! Runs of a model with some of its edges cut.
//!
//! An edge that is cut carries what it carries in another run (the corrupt one). Everything behind it
//! is computed anew.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use burn::tensor::{Tensor, TensorData};
use burn_lens_hooks::{
    CacheOptions, Hook, HookContext, HookPoint, HookedModel, Input, ReturnType, RunError, RunOptions,
};

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
    pub(super) engine: &'e Engine<'m, M>,
    pub(super) nodes: EdgeNodes,
    /// What senders write in the run that is kept, and in the other one.
    kept: Vec<Tensor<3>>,
    other: Vec<Tensor<3>>,
    /// The stream that enters each block, with no edge cut.
    streams: Vec<Tensor<3>>,
}

/// A set of edges, as places in the lists of senders and receivers.
pub type EdgeSet = HashSet<(usize, usize)>;

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
    pub(super) fn measured(&self, cut: &EdgeSet) -> Result<(f64, f64), AnalysisError> {
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
}
