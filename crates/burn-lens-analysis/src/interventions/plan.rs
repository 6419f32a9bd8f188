//! What each cell of a sweep needs computed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use burn_lens_hooks::{
    ActivationCache, BlockLayout, CacheOptions, HookPoint, HookedModel, KeyValues, ModelDims, NormPlacement,
    Wiring,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    Cost, Engine, Intervention, Sweep, SweepState,
    apply::{Bound, Differences},
    spliced::Spliced,
};
use crate::AnalysisError;

/// From where in its first block a cell is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    /// From the stream that enters it.
    Pre,
    /// From the values that heads mixed.
    Z,
    /// From the stream between attention and MLP.
    Mid,
}

/// What is to be computed for one cell.
pub(super) struct Planned {
    pub(super) bounds: Vec<Bound>,
    pub(super) first_pos: usize,
    pub(super) first_layer: usize,
    pub(super) entry: Entry,
    /// Whether the whole model has to be run.
    pub(super) full: bool,
}

/// Cells that are computed together.
pub(super) struct Chunk {
    pub(super) cells: Vec<usize>,
    pub(super) first_pos: usize,
    pub(super) full: bool,
}

/// A sweep over a base run that has been made.
pub struct Prepared<'e, 'm, M: ?Sized> {
    pub(super) engine: &'e Engine<'m, M>,
    pub(super) sweep: &'e Sweep,
    pub(super) cache: ActivationCache,
    /// The metric of each prompt.
    pub(super) base: Vec<f64>,
    pub(super) fingerprint: u64,
    /// `None` for a cell that does not exist or changes nothing.
    pub(super) planned: Vec<Option<Planned>>,
    pub(super) dims: ModelDims,
    pub(super) shape: [usize; 2],
    pub(super) key_values: RefCell<HashMap<usize, Arc<KeyValues>>>,
    pub(super) spliced: Spliced,
    base_time: Duration,
}

impl<'e, 'm, M: HookedModel + ?Sized> Prepared<'e, 'm, M> {
    pub(super) fn new(engine: &'e Engine<'m, M>, sweep: &'e Sweep) -> Result<Self, AnalysisError> {
        let (model, dims, shape) = (engine.model, engine.model.dims(), engine.input.batch_pos());
        let (wiring, spliced) = engine.reusable().unzip();
        let spliced = spliced.unwrap_or_default();
        let points: BTreeSet<HookPoint> = sweep.cells.iter().flatten().flatten().map(|i| i.at).collect();
        let mut names: Vec<HookPoint> = points.iter().copied().collect();
        if let Some(wiring) = &wiring {
            let streams = (0..dims.n_layers).flat_map(|at| [HookPoint::ResidPre(at), spliced.entering(at)]);
            names.extend(streams);
            names.push(HookPoint::ResidPost(dims.n_layers - 1));
            for point in &points {
                let Some(layer) = point.layer() else { continue };
                match entry(*point, wiring, &dims) {
                    Entry::Pre => {}
                    Entry::Z => names.push(HookPoint::AttnZ(layer)),
                    Entry::Mid => names.push(HookPoint::ResidMid(layer)),
                }
            }
        }
        let start = Instant::now();
        let (output, cache) =
            model.run_with_cache(&engine.input, &engine.run, &CacheOptions::names(names))?;
        let base = engine.readout.of_logits(&output.into_logits()?)?;
        let base_time = start.elapsed();
        let mut differences = Differences::default();
        let plan = |cell: &Option<Vec<Intervention>>| match cell {
            None => Ok(None),
            Some(cell) => {
                plan(cell, engine, wiring.as_ref().map(|w| (w, &spliced)), &cache, &mut differences)
            }
        };
        let planned = sweep.cells.iter().map(plan).collect::<Result<Vec<_>, AnalysisError>>()?;
        let fingerprint = sweep.fingerprint(&base);
        let key_values = RefCell::default();
        let made = Self {
            engine,
            sweep,
            cache,
            base,
            fingerprint,
            planned,
            dims,
            shape,
            key_values,
            spliced,
            base_time,
        };
        Ok(made)
    }

    /// What the sweep will take.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let present = self.sweep.cells.iter().flatten().count();
        let planned: Vec<&Planned> = self.planned.iter().flatten().collect();
        let forwards: f64 = planned.iter().map(|planned| self.forwards(planned)).sum();
        let stacked = |chunk: &Chunk| chunk.cells.len() * self.bytes(chunk.first_pos);
        let empty = SweepState { fingerprint: 0, cells: vec![None; self.sweep.cells.len()] };
        Cost {
            cells: present,
            unchanged: present - planned.len(),
            full: planned.iter().filter(|planned| planned.full).count(),
            forwards,
            time: self.base_time.mul_f64(forwards),
            bytes: self.chunks(&empty).iter().map(stacked).max().unwrap_or(0),
        }
    }

    /// The metric of each prompt in the base run.
    #[must_use]
    pub fn base(&self) -> &[f64] {
        &self.base
    }

    /// One cell's work in whole passes.
    fn forwards(&self, planned: &Planned) -> f64 {
        if planned.full {
            return 1.0;
        }
        let ModelDims { n_layers, d_model, d_mlp, n_heads, d_head, d_vocab_out, .. } = self.dims;
        let attention = (4 * d_model * n_heads * d_head) as f64;
        let mlp = (2 * d_model * d_mlp) as f64;
        let block = attention + mlp;
        let unembed = (d_model * d_vocab_out) as f64;
        let first = match planned.entry {
            Entry::Pre => block,
            Entry::Z => mlp + attention / 4.0,
            Entry::Mid => mlp,
        };
        let [_, pos] = self.shape;
        let share = (pos - planned.first_pos) as f64 / pos as f64;
        let later = n_layers - 1 - planned.first_layer;
        let read = (pos - self.engine.readout.first) as f64 / pos as f64;
        let last = if self.engine.options.reuse.readout && later > 0 {
            attention / 2.0 * share + (mlp + attention / 2.0) * read
        } else {
            block * share * f64::from(u8::from(later > 0))
        };
        let work = first * share + block * share * later.saturating_sub(1) as f64 + last;
        let read = if self.engine.options.reuse.readout { 0.0 } else { unembed };
        (work + read) / (block * n_layers as f64 + unembed)
    }

    /// About the bytes that one cell's activations take.
    fn bytes(&self, first_pos: usize) -> usize {
        let ModelDims { d_model, d_mlp, n_heads, d_head, .. } = self.dims;
        let [batch, pos] = self.shape;
        let features = self.cache.keys().filter(|point| matches!(point, HookPoint::Sae(..)));
        let features = features.filter_map(|point| self.cache.get(point).ok()?.shape().last().copied());
        let features = features.max().unwrap_or(0);
        let token = 6 * d_model + 3 * d_mlp + 4 * n_heads * d_head + 3 * n_heads * pos + 3 * features;
        let size = self.cache.iter().next().map_or(4, |(_, x)| x.dtype().size());
        batch * (pos - first_pos) * token * size
    }

    /// The cells whose values need no run.
    pub(super) fn known(&self) -> Vec<(usize, Vec<f64>)> {
        let cells = self.sweep.cells.iter().zip(&self.planned).enumerate();
        let value = |(at, (cell, planned)): (usize, (&Option<Vec<Intervention>>, &Option<Planned>))| match (
            cell, planned,
        ) {
            (None, _) => Some((at, Vec::new())),
            (Some(_), None) => Some((at, self.base.clone())),
            _ => None,
        };
        cells.filter_map(value).collect()
    }

    /// The cells that are not done, in groups: of one first position, the earliest block first.
    ///
    /// Cells with heads that read streams of their own are kept apart: where such a stream is changed,
    /// every prompt of the pass norms it anew, past the hooks in the shared norm.
    pub(super) fn chunks(&self, state: &SweepState) -> Vec<Chunk> {
        let mut groups: BTreeMap<(bool, bool, usize), Vec<(usize, usize)>> = BTreeMap::new();
        for (at, planned) in self.planned.iter().enumerate() {
            if let Some(planned) = planned
                && state.cells[at].is_none()
            {
                let forks = planned.bounds.iter().any(|bound| is_fork(bound.point));
                let group = groups.entry((planned.full, forks, planned.first_pos)).or_default();
                group.push((planned.first_layer, at));
            }
        }
        let mut chunks = Vec::new();
        for ((full, _, first_pos), mut cells) in groups {
            cells.sort_unstable();
            let fits = (self.engine.options.memory / self.bytes(first_pos).max(1)).max(1);
            let size = if full || !self.engine.options.reuse.batching { 1 } else { fits };
            // Chunks of nearly equal size: none is left with a few cells.
            let size = cells.len().div_ceil(cells.len().div_ceil(size));
            for part in cells.chunks(size) {
                chunks.push(Chunk { cells: part.iter().map(|&(_, at)| at).collect(), first_pos, full });
            }
        }
        chunks
    }

    /// Computes a sample of cells in full, too.
    pub(super) fn verify(&self, cells: &[Vec<f64>]) -> Result<(), AnalysisError> {
        let options = &self.engine.options;
        let mut left: Vec<usize> = (0..cells.len()).filter(|&at| self.sweep.cells[at].is_some()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        for _ in 0..options.verify.min(left.len()) {
            let at = left.swap_remove(rng.random_range(0..left.len()));
            let Some(cell) = &self.sweep.cells[at] else { continue };
            let full = self.full(cell)?;
            let scale = full.iter().fold(1.0f64, |scale, value| scale.max(value.abs()));
            for (&reused, &full) in cells[at].iter().zip(&full) {
                let same = reused == full || reused.is_nan() && full.is_nan();
                let close = (reused - full).abs() <= options.tolerance * scale; // false where one is NaN
                if !same && !close {
                    return Err(AnalysisError::Verify { cell: at, reused, full });
                }
            }
        }
        Ok(())
    }
}

fn plan<M: HookedModel + ?Sized>(
    cell: &[Intervention],
    engine: &Engine<'_, M>,
    partial: Option<(&Wiring, &Spliced)>,
    cache: &ActivationCache,
    differences: &mut Differences,
) -> Result<Option<Planned>, AnalysisError> {
    let (reuse, dims) = (engine.options.reuse, engine.model.dims());
    let bounds = cell.iter().map(|one| Bound::new(one, cache, differences));
    let mut bounds = bounds.collect::<Result<Vec<_>, _>>()?;
    if reuse.positions {
        // What equals the base run is left alone, unless something earlier could have changed it.
        let changed = bounds.iter().filter(|bound| bound.first_pos.is_some()).count();
        if changed == 0 {
            return Ok(None);
        }
        if bounds.len() == 1 {
            bounds.retain(|bound| bound.first_pos.is_some());
        }
    }
    let causal = partial.is_some_and(|(wiring, _)| wiring.causal);
    let mut first_pos = bounds.iter().filter_map(|bound| bound.first_pos).min().unwrap_or(0);
    if !reuse.positions || !causal {
        first_pos = 0;
    } else if partial.is_some_and(|(_, spliced)| spliced.has(HookPoint::ResidPost(dims.n_layers - 1))) {
        // What is read before the first change would be the base run's stream, which is taken before
        // anything is spliced in behind it.
        first_pos = first_pos.min(engine.first_read());
    }
    let mut planned = Planned { bounds, first_pos, first_layer: 0, entry: Entry::Pre, full: true };
    let Some((wiring, _)) = partial else { return Ok(Some(Planned { first_pos: 0, ..planned })) };
    let points: Vec<HookPoint> = planned.bounds.iter().map(|bound| bound.point).collect();
    let Some(first_layer) = points.iter().map(|point| point.layer()).min().flatten() else {
        return Ok(Some(Planned { first_pos: 0, ..planned }));
    };
    planned.full = false;
    if reuse.layers {
        let here = points.iter().filter(|point| point.layer() == Some(first_layer));
        planned.entry = here.map(|&point| entry(point, wiring, &dims)).min().unwrap_or(Entry::Pre);
        planned.first_layer = first_layer;
    }
    Ok(Some(planned))
}

fn is_fork(point: HookPoint) -> bool {
    matches!(point, HookPoint::AttnIn(_) | HookPoint::QInput(_) | HookPoint::KInput(_) | HookPoint::VInput(_))
}

/// From where in its block an intervention at `point` is computed.
pub(super) fn entry(point: HookPoint, wiring: &Wiring, dims: &ModelDims) -> Entry {
    let sequential = wiring.layout == BlockLayout::Sequential && dims.d_mlp > 0;
    match point {
        HookPoint::Sae(host, _) => entry(host.point(), wiring, dims),
        HookPoint::AttnZ(_)
        | HookPoint::AttnResult(_)
        | HookPoint::Ln1PostScale(_)
        | HookPoint::Ln1PostNormalized(_)
        | HookPoint::AttnOut(_) => Entry::Z,
        HookPoint::Ln1Scale(_) | HookPoint::Ln1Normalized(_) if wiring.placement == NormPlacement::Post => {
            Entry::Z
        }
        HookPoint::ResidMid(_)
        | HookPoint::MlpIn(_)
        | HookPoint::Ln2Scale(_)
        | HookPoint::Ln2Normalized(_)
        | HookPoint::MlpPre(_)
        | HookPoint::MlpPreLinear(_)
        | HookPoint::MlpMid(_)
        | HookPoint::MlpLnScale(_)
        | HookPoint::MlpLnNormalized(_)
        | HookPoint::MlpPost(_)
        | HookPoint::Ln2PostScale(_)
        | HookPoint::Ln2PostNormalized(_)
        | HookPoint::MlpOut(_)
        | HookPoint::ResidPost(_) => {
            if sequential {
                Entry::Mid
            } else {
                Entry::Z
            }
        }
        _ => Entry::Pre,
    }
}
