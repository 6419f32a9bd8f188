//! Edge attribution: what each connection between two parts of a model carries, to first order.
//!
//! A sender (the embedding, a head, an MLP) adds what it writes to the stream; a receiver (a head's
//! query, key or value, an MLP, the logits) reads the sum. The score of an edge is
//! `(write_other - write_base) · ∂metric/∂read`.
//!
//! Sources: Syed et al. (2023), `Attribution patching outperforms automated circuit discovery`; Hanna
//! et al. (2024), `Have faith in faithfulness` (integrated gradients).

use std::{fmt, sync::Arc};

use burn::tensor::Tensor;
use burn_lens_hooks::{
    ActivationCache, BlockLayout, CacheOptions, Hook, HookContext, HookPoint, HookedModel, Input,
    NormPlacement, RunError,
};
use serde::Serialize;

use super::Engine;
use crate::{AnalysisError, error::to_host};

/// What writes to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sender {
    /// Token and position embedding.
    Embed,
    /// A head.
    Head(usize, usize),
    /// An MLP.
    Mlp(usize),
}

/// What reads the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Receiver {
    /// A head's queries.
    Q(usize, usize),
    /// A key-value head's keys.
    K(usize, usize),
    /// A key-value head's values.
    V(usize, usize),
    /// An MLP.
    Mlp(usize),
    /// The final norm.
    Logits,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embed => f.write_str("embed"),
            Self::Head(layer, head) => write!(f, "L{layer}H{head}"),
            Self::Mlp(layer) => write!(f, "M{layer}"),
        }
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Q(layer, head) => write!(f, "L{layer}H{head}.q"),
            Self::K(layer, head) => write!(f, "L{layer}H{head}.k"),
            Self::V(layer, head) => write!(f, "L{layer}H{head}.v"),
            Self::Mlp(layer) => write!(f, "M{layer}"),
            Self::Logits => f.write_str("logits"),
        }
    }
}

/// Everything that writes and reads, in the order of computation.
#[derive(Clone, Debug)]
pub struct EdgeNodes {
    /// What writes.
    pub senders: Vec<Sender>,
    /// What reads.
    pub receivers: Vec<Receiver>,
    parallel: bool,
    /// How many heads share a key-value head.
    group: usize,
}

impl EdgeNodes {
    /// The nodes of a model.
    ///
    /// # Errors
    ///
    /// If it does not say how it is wired, or its parts write through a norm, so that heads alone do
    /// not sum to what attention writes.
    pub fn of<M: HookedModel + ?Sized>(model: &M) -> Result<Self, AnalysisError> {
        let refuse = |reason: &str| {
            Err(AnalysisError::Refused { what: "edges between parts", reason: reason.to_owned() })
        };
        let Some(wiring) = model.wiring() else {
            return refuse("the model does not say how it is wired");
        };
        if wiring.placement != NormPlacement::Pre {
            return refuse(
                "this model norms what attention and MLPs write, so heads do not write on their own",
            );
        }
        let dims = model.dims();
        let (mut senders, mut receivers) = (vec![Sender::Embed], Vec::new());
        for layer in 0..dims.n_layers {
            senders.extend((0..dims.n_heads).map(|head| Sender::Head(layer, head)));
            receivers.extend((0..dims.n_heads).map(|head| Receiver::Q(layer, head)));
            receivers.extend((0..dims.n_kv_heads).map(|head| Receiver::K(layer, head)));
            receivers.extend((0..dims.n_kv_heads).map(|head| Receiver::V(layer, head)));
            if dims.d_mlp > 0 {
                senders.push(Sender::Mlp(layer));
                receivers.push(Receiver::Mlp(layer));
            }
        }
        receivers.push(Receiver::Logits);
        let group = dims.n_heads / dims.n_kv_heads.max(1);
        Ok(Self { senders, receivers, parallel: wiring.layout == BlockLayout::Parallel, group })
    }

    /// Whether what `sender` writes reaches `receiver` directly.
    #[must_use]
    pub fn connected(&self, sender: Sender, receiver: Receiver) -> bool {
        let mlp = usize::from(!self.parallel);
        let sent = match sender {
            Sender::Embed => 0,
            Sender::Head(layer, _) => 2 * layer + 1,
            Sender::Mlp(layer) => 2 * layer + 1 + mlp,
        };
        let read = match receiver {
            Receiver::Q(layer, _) | Receiver::K(layer, _) | Receiver::V(layer, _) => 2 * layer + 1,
            Receiver::Mlp(layer) => 2 * layer + 1 + mlp,
            Receiver::Logits => usize::MAX,
        };
        sent < read
    }

    /// Every edge, as places in `senders` and `receivers`.
    #[must_use]
    pub fn edges(&self) -> Vec<(usize, usize)> {
        let all =
            (0..self.receivers.len()).flat_map(|to| (0..self.senders.len()).map(move |from| (from, to)));
        all.filter(|&(from, to)| self.connected(self.senders[from], self.receivers[to])).collect()
    }

    /// Whether what `receiver` reads is an input of what `part` computes.
    #[must_use]
    pub fn feeds(&self, receiver: Receiver, part: Sender) -> bool {
        match (receiver, part) {
            (Receiver::Q(layer, head), Sender::Head(l, h)) => (layer, head) == (l, h),
            (Receiver::K(layer, head) | Receiver::V(layer, head), Sender::Head(l, h)) => {
                (layer, head) == (l, h / self.group)
            }
            (Receiver::Mlp(layer), Sender::Mlp(l)) => layer == l,
            _ => false,
        }
    }

    /// The names of the parts that `receiver` feeds; of the logits, their own.
    #[must_use]
    pub fn fed_by(&self, receiver: Receiver) -> Vec<String> {
        if receiver == Receiver::Logits {
            return vec![receiver.to_string()];
        }
        let fed = self.senders.iter().filter(|&&part| self.feeds(receiver, part));
        fed.map(ToString::to_string).collect()
    }

    /// The parts in rows to draw, from the embedding to the logits: what a row is, and the names in
    /// it. Parts of a row do not read each other.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, Vec<String>)> {
        let mut rows: Vec<(String, Vec<String>)> = Vec::new();
        for sender in &self.senders {
            let row = match sender {
                Sender::Embed => "embedding".to_owned(),
                Sender::Head(layer, _) | Sender::Mlp(layer) if self.parallel => format!("block {layer}"),
                Sender::Head(layer, _) => format!("attention {layer}"),
                Sender::Mlp(layer) => format!("MLP {layer}"),
            };
            match rows.last_mut() {
                Some((last, names)) if *last == row => names.push(sender.to_string()),
                _ => rows.push((row, vec![sender.to_string()])),
            }
        }
        rows.push(("output".to_owned(), vec![Receiver::Logits.to_string()]));
        rows
    }

    /// The hooks that hold what senders write.
    pub(super) fn writes(&self) -> Vec<HookPoint> {
        let mut points: Vec<HookPoint> = Vec::new();
        for sender in &self.senders {
            let point = match *sender {
                Sender::Embed => HookPoint::ResidPre(0),
                Sender::Head(layer, _) => HookPoint::AttnResult(layer),
                Sender::Mlp(layer) => HookPoint::MlpOut(layer),
            };
            if points.last() != Some(&point) {
                points.push(point);
            }
        }
        points
    }
}

/// Where the gradients of edge attribution are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeGradients {
    /// On the base run.
    Base,
    /// On the other run.
    Other,
    /// The mean over that many steps from the base run's embedding to the other's: EAP-IG.
    Integrated(usize),
}

/// A score for each edge.
#[derive(Clone, Debug, Serialize)]
pub struct EdgeScores {
    /// `L0H1`, `M0`, …
    pub senders: Vec<String>,
    /// `L1H0.q`, `M1`, `logits`, …
    pub receivers: Vec<String>,
    /// `[sender, receiver]`, row-major; zero where there is no edge.
    pub scores: Vec<f64>,
}

impl EdgeScores {
    /// The edges of largest magnitude, the largest first.
    #[must_use]
    pub fn largest(&self, count: usize) -> Vec<(&str, &str, f64)> {
        let width = self.receivers.len();
        let mut order: Vec<(usize, f64)> = self.scores.iter().copied().enumerate().collect();
        order.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
        let named = |(at, score): (usize, f64)| {
            (self.senders[at / width].as_str(), self.receivers[at % width].as_str(), score)
        };
        order.into_iter().take(count).map(named).collect()
    }
}

impl<M: HookedModel + ?Sized> Engine<'_, M> {
    /// Edge attribution: the estimate, for each edge, of how the mean of the metric over prompts
    /// changes when the edge alone carries what it carries in the run on `other`.
    ///
    /// # Errors
    ///
    /// If the model's parts do not write on their own, the runs are of different shapes, or the
    /// metric has no gradient.
    pub fn edge_attribution(&self, other: &Input, at: EdgeGradients) -> Result<EdgeScores, AnalysisError> {
        let nodes = EdgeNodes::of(self.model)?;
        let names = CacheOptions::names(nodes.writes());
        let run = |input: &Input| self.model.run_with_cache(input, &self.run, &names);
        let (base, other_cache) = (run(&self.input)?.1, run(other)?.1);
        let (before, after) = (writes(&nodes, &base)?, writes(&nodes, &other_cache)?);
        if before[0].dims() != after[0].dims() {
            return Err(AnalysisError::Shape {
                what: "the other prompts",
                expected: format!("{:?} prompts and positions, as the base run", self.input.batch_pos()),
                found: other.batch_pos().to_vec(),
            });
        }
        let steps: Vec<Option<Tensor<3>>> = match at {
            EdgeGradients::Base => vec![None],
            EdgeGradients::Other => vec![Some(after[0].clone())],
            EdgeGradients::Integrated(0) => {
                let reason = "it needs at least one step".to_owned();
                return Err(AnalysisError::Refused { what: "integrated gradients", reason });
            }
            EdgeGradients::Integrated(n) => {
                let (from, to) = (before[0].clone(), after[0].clone());
                let way = to - from.clone();
                (1..=n).map(|k| Some(from.clone() + way.clone() * (k as f64 / n as f64))).collect()
            }
        };
        let changes: Vec<Tensor<3>> =
            before.into_iter().zip(after).map(|(before, after)| after - before).collect();
        let mut scores = vec![0.0; nodes.senders.len() * nodes.receivers.len()];
        let mut values = 1;
        for start in &steps {
            values = self.add_edges(&nodes, &changes, start.as_ref(), &mut scores)?;
        }
        // Gradients are of the sum over prompts.
        let share = 1.0 / (steps.len() * values) as f64;
        for score in &mut scores {
            *score *= share;
        }
        Ok(EdgeScores {
            senders: nodes.senders.iter().map(ToString::to_string).collect(),
            receivers: nodes.receivers.iter().map(ToString::to_string).collect(),
            scores,
        })
    }

    /// Adds the scores with the gradients of a run whose stream starts at `start`; how many values the
    /// metric has.
    fn add_edges(
        &self,
        nodes: &EdgeNodes,
        changes: &[Tensor<3>],
        start: Option<&Tensor<3>>,
        scores: &mut [f64],
    ) -> Result<usize, AnalysisError> {
        let dims = self.model.dims();
        let last = HookPoint::ResidPost(dims.n_layers - 1);
        let mut points = vec![last];
        for layer in 0..dims.n_layers {
            points.extend([HookPoint::QInput(layer), HookPoint::KInput(layer), HookPoint::VInput(layer)]);
            if dims.d_mlp > 0 {
                points.push(HookPoint::MlpIn(layer));
            }
        }
        let hooks = start.map(|start| {
            let start = Arc::new(start.clone());
            Hook::edit(HookPoint::ResidPre(0), move |_: Tensor<3>, _: &mut HookContext<'_>| (*start).clone())
        });
        let (cache, values) = self.gradients(&self.input, points, hooks.into_iter().collect())?;
        let width = nodes.receivers.len();
        let flat = |x: &Tensor<3>| -> Tensor<2> {
            let count = x.dims().iter().product::<usize>();
            x.clone().reshape([1, count])
        };
        let changes = Tensor::cat(changes.iter().map(flat).collect(), 0);
        for (to, &receiver) in nodes.receivers.iter().enumerate() {
            let grad = flat(&gradient(&cache, receiver, last)?);
            let column = to_host(changes.clone().matmul(grad.transpose()))?;
            for (from, value) in column.into_iter().enumerate() {
                if nodes.connected(nodes.senders[from], receiver) {
                    scores[from * width + to] += value;
                }
            }
        }
        Ok(values.len())
    }
}

/// What each sender wrote, `[batch, pos, d_model]`.
pub(super) fn writes(nodes: &EdgeNodes, cache: &ActivationCache) -> Result<Vec<Tensor<3>>, RunError> {
    nodes
        .senders
        .iter()
        .map(|sender| match *sender {
            Sender::Embed => cache.tensor(HookPoint::ResidPre(0)),
            Sender::Head(layer, head) => {
                let result: Tensor<4> = cache.tensor(HookPoint::AttnResult(layer))?;
                Ok(of_head(result, head))
            }
            Sender::Mlp(layer) => cache.tensor(HookPoint::MlpOut(layer)),
        })
        .collect()
}

pub(super) fn of_head(x: Tensor<4>, head: usize) -> Tensor<3> {
    let [batch, pos, _, width] = x.dims();
    x.narrow(2, head, 1).reshape([batch, pos, width])
}

fn gradient(cache: &ActivationCache, receiver: Receiver, last: HookPoint) -> Result<Tensor<3>, RunError> {
    let whole = |point: HookPoint| -> Result<Tensor<3>, RunError> {
        cache.grad(point)?.try_into().map_err(|source| RunError::HookRank { point, source })
    };
    let of = |point: HookPoint, head: usize| -> Result<Tensor<3>, RunError> {
        let grad: Tensor<4> =
            cache.grad(point)?.try_into().map_err(|source| RunError::HookRank { point, source })?;
        Ok(of_head(grad, head))
    };
    match receiver {
        Receiver::Q(layer, head) => of(HookPoint::QInput(layer), head),
        Receiver::K(layer, head) => of(HookPoint::KInput(layer), head),
        Receiver::V(layer, head) => of(HookPoint::VInput(layer), head),
        Receiver::Mlp(layer) => whole(HookPoint::MlpIn(layer)),
        Receiver::Logits => whole(last),
    }
}
