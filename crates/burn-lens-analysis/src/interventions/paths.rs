//! Path patching, knock-outs, causal tracing and interchange interventions, as cells of sweeps.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use burn_lens_hooks::{
    ActivationCache, CacheOptions, Hook, HookContext, HookPoint, HookedModel, Input, RunError, RunOptions,
};
use burn_lens_tensor::{AnyTensor, Slice};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::{
    EdgeNodes, Edit, HeadPart, Intervention, Receiver, Sender, Sweep, SweepAxis, Values, edges::of_head,
};
use crate::AnalysisError;

/// What a later head reads the sender's write with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathInput {
    /// Its queries.
    Q,
    /// Its keys.
    K,
    /// Its values.
    V,
}

/// Direct path patching: a sender's write in the other run, in place of its write in the base run, is
/// read by one later head alone. `[layer, head]`; heads that the sender does not reach are zero.
///
/// `runs` are the base run and the other one, with what the sender writes
/// (`hook_result` of a head, `hook_mlp_out`, `hook_resid_pre` of the first block).
///
/// # Errors
///
/// If the model's parts do not write on their own, or a cache lacks the write.
pub fn direct_path_sweep<M: HookedModel + ?Sized>(
    model: &M,
    sender: Sender,
    input: PathInput,
    [base, other]: [&ActivationCache; 2],
) -> Result<Sweep, AnalysisError> {
    let (nodes, dims) = (EdgeNodes::of(model)?, model.dims());
    let heads = if input == PathInput::Q { dims.n_heads } else { dims.n_kv_heads };
    let change: Tensor<4> = (written(other, sender)? - written(base, sender)?).unsqueeze_dim(2);
    let cell = |layer: usize, head: usize| {
        let (receiver, point) = match input {
            PathInput::Q => (Receiver::Q(layer, head), HookPoint::QInput(layer)),
            PathInput::K => (Receiver::K(layer, head), HookPoint::KInput(layer)),
            PathInput::V => (Receiver::V(layer, head), HookPoint::VInput(layer)),
        };
        let edit = Edit::Add(Values::Tensor(AnyTensor::from(change.clone())), 1.0);
        let one = Intervention::new(point, edit).heads(Slice::Index(head.cast_signed()));
        nodes.connected(sender, receiver).then(|| vec![one])
    };
    let cells = (0..dims.n_layers * heads).map(|at| cell(at / heads, at % heads)).collect();
    let axes = vec![SweepAxis::counted("layer", dims.n_layers), SweepAxis::counted("head", heads)];
    Ok(Sweep { axes, cells })
}

fn written(cache: &ActivationCache, sender: Sender) -> Result<Tensor<3>, RunError> {
    match sender {
        Sender::Embed => cache.tensor(HookPoint::ResidPre(0)),
        Sender::Head(layer, head) => Ok(of_head(cache.tensor(HookPoint::AttnResult(layer))?, head)),
        Sender::Mlp(layer) => cache.tensor(HookPoint::MlpOut(layer)),
    }
}

/// Path patching from one sending head to receiving heads: which activations of the receivers the
/// sender changes when every other head is held at its base run, and the cell that puts these into the
/// base run. MLPs pass the change on unless they are held, too.
///
/// Source: Wang et al. (2022), `Interpretability in the wild`, whose MLPs are not held.
///
/// # Errors
///
/// If a head does not exist, or the runs do not fit.
pub fn path_patch<M: HookedModel + ?Sized>(
    model: &M,
    (input, run): (&Input, &RunOptions),
    from: &Arc<ActivationCache>,
    path: &HeadPath,
) -> Result<Vec<Intervention>, AnalysisError> {
    let dims = model.dims();
    let (layer, head) = path.sender;
    if head >= dims.n_heads {
        return Err(AnalysisError::Head { head, n_heads: dims.n_heads });
    }
    let mut held: Vec<HookPoint> = (0..dims.n_layers).map(HookPoint::AttnZ).collect();
    if path.hold_mlps {
        held.extend((0..dims.n_layers).map(HookPoint::MlpOut));
    }
    let base = model.run_with_cache(input, run, &CacheOptions::names(held.clone()))?.1;
    let sent: Tensor<4> = from.tensor(HookPoint::AttnZ(layer))?;
    let mut hooks = Vec::new();
    for point in held {
        let mut value = base.get(point)?.clone();
        if point == HookPoint::AttnZ(layer) {
            let z: Tensor<4> = base.tensor(point)?;
            let [batch, pos, _, width] = z.dims();
            let place = [0..batch, 0..pos, head..head + 1, 0..width];
            value = z.slice_assign(place.clone(), sent.clone().slice(place)).into();
        }
        hooks.push(Hook::edit(point, move |_: AnyTensor, _: &mut HookContext<'_>| value.clone()));
    }
    let reads: Vec<HookPoint> =
        path.receivers.iter().map(|(part, layer, _)| point_of(*part, *layer)).collect();
    let seen = Arc::new(model.run(input, run, hooks, &CacheOptions::names(reads))?.1);
    let receivers = path.receivers.iter().map(|&(part, layer, head)| {
        Intervention::patch(point_of(part, layer), &seen).heads(Slice::Index(head.cast_signed()))
    });
    Ok(receivers.collect())
}

/// A path from one head to others.
#[derive(Clone, Debug)]
pub struct HeadPath {
    /// `(layer, head)`
    pub sender: (usize, usize),
    /// What of which `(layer, head)` receives; key-value heads for keys and values.
    pub receivers: Vec<(HeadPart, usize, usize)>,
    /// Whether MLPs are held at the base run, so that only direct paths count.
    pub hold_mlps: bool,
}

fn point_of(part: HeadPart, layer: usize) -> HookPoint {
    match part {
        HeadPart::Out => HookPoint::AttnZ(layer),
        HeadPart::Q => HookPoint::AttnQ(layer),
        HeadPart::K => HookPoint::AttnK(layer),
        HeadPart::V => HookPoint::AttnV(layer),
        HeadPart::Pattern => HookPoint::AttnPattern(layer),
    }
}

/// Attention from `query` to `key` positions knocked out in these layers: their scores become `-inf`,
/// and the rest of the pattern takes over.
///
/// Source: Geva et al. (2023), `Dissecting recall of factual associations`.
#[must_use]
pub fn knock_out(layers: &[usize], heads: &Slice, query: &Slice, key: &Slice) -> Vec<Intervention> {
    let one = |&layer: &usize| {
        Intervention::new(HookPoint::AttnScores(layer), Edit::Replace(Values::Fill(f64::NEG_INFINITY)))
            .heads(heads.clone())
            .pos(query.clone())
            .sources(key.clone())
    };
    layers.iter().map(one).collect()
}

/// An interchange intervention: an activation's part in the span of orthonormal columns `[d, k]` (all of
/// it if `None`) becomes that of another run.
///
/// Source: Geiger et al. (2023), `Finding alignments between interpretable causal variables and
/// distributed neural representations`.
#[must_use]
pub fn interchange(at: HookPoint, from: &Arc<ActivationCache>, basis: Option<Tensor<2>>) -> Intervention {
    match basis {
        None => Intervention::patch(at, from),
        Some(basis) => Intervention::new(at, Edit::Subspace(Values::Run(Arc::clone(from)), basis)),
    }
}

/// Causal tracing: embeddings with noise at some positions, as the input of a base run, and the clean
/// run's activations to restore, one position and a window of layers at a time.
///
/// Source: Meng et al. (2022), `Locating and editing factual associations in GPT`.
#[derive(Clone, Debug)]
pub struct CausalTrace {
    /// Token embeddings with noise, `[samples, pos, d_model]`: the input of the engine.
    pub noised: Input,
    clean: Arc<ActivationCache>,
    /// Layers, positions.
    shape: [usize; 2],
}

/// How embeddings are corrupted.
#[derive(Clone, Debug)]
pub struct Noise {
    /// Where.
    pub pos: Slice,
    /// The standard deviation, in those of the embedding's entries over the prompt (3 in the source).
    pub scale: f64,
    /// How many samples are drawn.
    pub samples: usize,
    /// The seed.
    pub seed: u64,
}

impl CausalTrace {
    /// Draws the noise for one prompt, and keeps what can be restored.
    ///
    /// # Errors
    ///
    /// If there is more than one prompt, no sample, or the positions do not fit.
    pub fn new<M: HookedModel + ?Sized>(
        model: &M,
        prompt: &Input,
        noise: &Noise,
    ) -> Result<Self, AnalysisError> {
        let [batch, pos] = prompt.batch_pos();
        if batch != 1 || noise.samples == 0 {
            return Err(AnalysisError::Shape {
                what: "the prompt of a causal trace",
                expected: "[1, pos], and at least one sample of noise".to_owned(),
                found: vec![batch, pos],
            });
        }
        let points =
            |layer: usize| [HookPoint::ResidPost(layer), HookPoint::AttnOut(layer), HookPoint::MlpOut(layer)];
        let firing = model.firing();
        let all = (0..model.dims().n_layers).flat_map(points).filter(|point| firing.always.contains(point));
        let names: Vec<HookPoint> = all.chain([HookPoint::Embed]).collect();
        let cache =
            model.run_with_cache(prompt, &RunOptions::default(), &CacheOptions::names(names.clone()))?.1;
        let embed: Tensor<3> = cache.tensor(HookPoint::Embed)?;
        let width = embed.dims()[2];
        let positions = noise.pos.resolve(pos);
        let positions =
            positions.map_err(|source| AnalysisError::Slice { axis: "positions", source })?.to_vec();
        let values = crate::error::to_host(embed.clone())?;
        let mean = super::sweep::mean(&values);
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        let drawn = gaussian(noise.seed, noise.samples * pos * width);
        let scaled: Vec<f64> = drawn
            .into_iter()
            .enumerate()
            .map(|(at, x)| {
                if positions.contains(&(at / width % pos)) { x * noise.scale * variance.sqrt() } else { 0.0 }
            })
            .collect();
        let scaled = TensorData::new(scaled, [noise.samples, pos, width]);
        let noised = embed.clone().repeat_dim(0, noise.samples)
            + Tensor::<3>::from_data(scaled, (&embed.device(), embed.dtype()));
        let mut clean = ActivationCache::default();
        for point in names {
            let x: Tensor<3> = cache.tensor(point)?;
            clean.insert(point, x.repeat_dim(0, noise.samples).into());
        }
        Ok(Self {
            noised: Input::Embeds(noised),
            clean: Arc::new(clean),
            shape: [model.dims().n_layers, pos],
        })
    }

    /// The cells that restore `kind` (such as `HookPoint::MlpOut`) at each position in a window of
    /// layers around each layer: `[layer, pos]`.
    #[must_use]
    pub fn restore(&self, kind: fn(usize) -> HookPoint, window: usize) -> Sweep {
        let [n_layers, pos] = self.shape;
        let cell = |at: usize| {
            let (layer, place) = (at / pos, at % pos);
            let first = layer.saturating_sub(window.saturating_sub(1) / 2);
            let last = (layer + window.max(1) / 2).min(n_layers - 1);
            let layers = first..=last.max(layer);
            let one = |layer: usize| {
                Intervention::patch(kind(layer), &self.clean).pos(Slice::Index(place.cast_signed()))
            };
            Some(layers.map(one).collect())
        };
        Sweep {
            axes: vec![SweepAxis::counted("layer", n_layers), SweepAxis::counted("pos", pos)],
            cells: (0..n_layers * pos).map(cell).collect(),
        }
    }
}

/// Standard normal numbers of a seed, by Box and Muller.
fn gaussian(seed: u64, count: usize) -> Vec<f64> {
    use rand::RngExt as _;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut one = || {
        let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    (0..count).map(|_| one()).collect()
}
