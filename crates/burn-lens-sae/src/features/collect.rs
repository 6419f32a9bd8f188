//! The one run over the tokens: model, dictionary, sparse activations into the store.

use std::{
    collections::HashMap,
    ops::Range,
    time::{Duration, Instant},
};

use burn_lens_hooks::{ActivationCache, CacheOptions, HookPoint, HookedModel, Input, ReturnType, RunOptions};
use burn_lens_tensor::{
    AnyTensor,
    burn::tensor::{Tensor, TensorData},
};

use super::{
    Correlate, FeatureError, FeatureOptions, FeatureSource, Manifest, Progress, RunKey, SparseRows, Stage,
    TensorStore, TokenTable,
    neurons::NeuronSums,
    parts::{MANIFEST, codes_name, in_store, resid_name},
    readout::{FULL_ROWS, Readout, failed, host},
    segment::{Role, Segment},
    tokens::hash,
};

/// What features are extracted from.
#[derive(Clone, Copy)]
pub struct FeatureRun<'a> {
    /// The model.
    pub model: &'a dyn HookedModel,
    /// What the model is called, in results and to tell runs apart.
    pub model_name: &'a str,
    /// The features.
    pub source: &'a dyn FeatureSource,
    /// Features of a second dictionary, to correlate the first ones with.
    pub source_b: Option<&'a dyn FeatureSource>,
    /// The tokens.
    pub tokens: &'a TokenTable,
    /// What to compute.
    pub options: &'a FeatureOptions,
}

impl FeatureRun<'_> {
    /// What decides the result.
    pub(super) fn key(&self) -> RunKey {
        let wants_effects = self.options.sequences.n_hover > 0;
        let readout = Readout::of(self.model, self.source.hook_out());
        let has_way = wants_effects && readout.is_ok() && self.final_resid().is_some();
        RunKey {
            model: self.model_name.to_owned(),
            sae: self.source.name().to_owned(),
            weights: fingerprint([Some(self.source), self.source_b].into_iter().flatten()),
            sae_b: self.source_b.map(|source| source.name().to_owned()),
            hook_in: self.source.hook_in().to_string(),
            hook_out: self.source.hook_out().to_string(),
            n_features: self.source.n_features(),
            n_features_b: self.source_b.map_or(0, FeatureSource::n_features),
            d_in: self.source.d_in(),
            n_prompts: self.tokens.n_prompts(),
            n_positions: self.tokens.n_positions(),
            tokens: self.tokens.fingerprint(),
            d_resid: if has_way { self.model.dims().d_model } else { 0 },
            options: self.options.clone(),
        }
    }

    /// The features that are kept, where others are not.
    fn chosen(&self, features: &[usize]) -> Option<Chosen> {
        if self.options.correlate == Correlate::All || features.len() == self.source.n_features() {
            return None;
        }
        let mut sorted = features.to_vec();
        sorted.sort_unstable();
        let features = sorted.iter().map(|&feature| feature as u32).collect();
        Some(Chosen { features, source: self.source.part(&sorted) })
    }

    /// How many features are computed.
    pub(super) fn n_computed(&self, features: &[usize]) -> usize {
        let alone = self.chosen(features).and_then(|chosen| chosen.source);
        alone.map_or_else(|| self.source.n_features(), |alone| alone.n_features())
    }

    /// The residual stream that the final norm reads.
    pub(super) fn final_resid(&self) -> Option<HookPoint> {
        let last = HookPoint::ResidPost(self.model.dims().n_layers.checked_sub(1)?);
        self.model.firing().always.contains(&last).then_some(last)
    }
}

/// A number that changes with what some features of dictionaries read and write.
fn fingerprint<'a>(sources: impl Iterator<Item = &'a dyn FeatureSource>) -> u64 {
    let words = sources.filter(|source| source.n_features() > 0).flat_map(|source| {
        let last = source.n_features() - 1;
        let features = [0, last / 2, last];
        // What fails here fails again where it is needed, and is reported there.
        let found = [source.directions(&features).ok(), source.readers(&features).ok().flatten()];
        found.into_iter().flatten().filter_map(|rows| host(rows).ok()).flatten()
    });
    hash(words.map(|word| u64::from(word.to_bits())))
}

/// The prompts of shard `index` (from 1) of `count`.
///
/// # Errors
///
/// If there is no such shard.
pub fn shard(n_prompts: usize, index: usize, count: usize) -> Result<Range<usize>, FeatureError> {
    if index == 0 || index > count {
        return Err(FeatureError::NoShard { index, count });
    }
    Ok(n_prompts * (index - 1) / count..n_prompts * index / count)
}

/// Runs the model and the dictionaries once over some prompts and keeps what is needed of them.
/// A store that holds the beginning of the same run is continued.
///
/// # Errors
///
/// If the model, a dictionary or the store fails, they do not fit together, or the store holds
/// another run.
pub fn collect(
    run: &FeatureRun<'_>,
    prompts: Range<usize>,
    store: &mut dyn TensorStore,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), FeatureError> {
    let key = run.key();
    let mut collector = Collector::open(run, key, prompts, store)?;
    let Range { start, end } = collector.manifest.prompts.clone();
    let mut saved = Saved { at: Instant::now(), took: Duration::ZERO };
    while collector.manifest.done < end {
        let first = collector.manifest.done;
        let batch = first..(first + run.options.batch_prompts.max(1)).min(end);
        collector.batch(batch.clone())?;
        progress(Progress { stage: Stage::Run, done: batch.end - start, total: end - start });
        if saved.is_due() && batch.end < end {
            saved = collector.save()?;
        }
    }
    collector.save()?;
    Ok(())
}

/// When the sums were last written.
struct Saved {
    at: Instant,
    took: Duration,
}

impl Saved {
    /// Sums are written after every batch, unless that would take more than a twentieth of the
    /// time; so no more than that, or one batch, is lost if the process dies.
    fn is_due(&self) -> bool {
        self.at.elapsed() >= self.took * 20
    }
}

struct Collector<'a> {
    run: &'a FeatureRun<'a>,
    store: &'a mut dyn TensorStore,
    manifest: Manifest,
    sums: NeuronSums,
    slots: HashMap<u32, usize>,
    chosen: Option<Chosen>,
}

/// The features that are kept, where others of the dictionary are not.
struct Chosen {
    /// Ascending.
    features: Vec<u32>,
    /// These alone, if they can be computed without the others.
    source: Option<Box<dyn FeatureSource>>,
}

impl Chosen {
    /// The activations of the chosen features, of those that `source` or the whole gives.
    fn of(&self, codes: &SparseRows) -> SparseRows {
        let mut kept = SparseRows::default();
        for row in 0..codes.n_rows() {
            let (indices, values) = codes.row(row);
            let pairs = indices.iter().zip(values).filter_map(|(&index, &value)| {
                let feature = match &self.source {
                    Some(_) => self.features.get(index as usize).copied(),
                    None => self.features.binary_search(&index).is_ok().then_some(index),
                };
                feature.map(|feature| (feature, value))
            });
            kept.push_row(pairs);
        }
        kept
    }
}

impl<'a> Collector<'a> {
    fn open(
        run: &'a FeatureRun<'a>,
        key: RunKey,
        prompts: Range<usize>,
        store: &'a mut dyn TensorStore,
    ) -> Result<Self, FeatureError> {
        let features = key.features()?;
        let manifest = match Manifest::read(store)? {
            None => Manifest::new(key, prompts),
            Some(begun) => {
                begun.run.check(&key)?;
                if begun.prompts != prompts {
                    let text = |range: &Range<usize>| format!("{} to {}", range.start, range.end);
                    let (left, right) = (text(&begun.prompts), text(&prompts));
                    return Err(FeatureError::Mismatch { what: "the range of prompts", left, right });
                }
                begun
            }
        };
        let sums = manifest.read_sums(store)?;
        let slots = features.iter().enumerate().map(|(slot, &feature)| (feature as u32, slot)).collect();
        let chosen = run.chosen(&features);
        Ok(Self { run, store, manifest, sums, slots, chosen })
    }

    /// Runs some prompts and keeps their activations.
    fn batch(&mut self, prompts: Range<usize>) -> Result<(), FeatureError> {
        let first = prompts.start;
        let cache = self.forward(prompts.clone())?;
        let source = self.chosen.as_ref().and_then(|chosen| chosen.source.as_deref());
        let (x, codes) = encode(source.unwrap_or(self.run.source), &cache)?;
        let mut codes = match &self.chosen {
            None => codes,
            Some(chosen) => chosen.of(&codes),
        };
        let mut roles = self.roles(prompts.clone());
        let d_in = self.run.source.d_in();
        for (row, role) in roles.iter_mut().enumerate() {
            let finite = x[row * d_in..(row + 1) * d_in].iter().all(|x| x.is_finite());
            if !finite && *role == Role::Counted {
                *role = Role::Ignored;
                self.sums.n_bad_inputs += 1;
            }
        }
        codes = self.cleaned(&codes, &roles, true);
        let codes_b = match self.run.source_b {
            Some(source) => Some(self.cleaned(&encode(source, &cache)?.1, &roles, false)),
            None => None,
        };
        let tokens = self.run.tokens.tokens(prompts.clone()).to_vec();
        let n_positions = self.run.tokens.n_positions();
        let segment = Segment { first, n_positions, tokens, roles, codes, codes_b };
        let counted: Vec<usize> = segment.counted().collect();
        self.sums.add(&counted, &x, &segment.codes, (&self.slots, self.run.options.n_threads()));
        self.keep(&codes_name(first), segment.to_tensors())?;
        if let Some(point) = self.final_resid() {
            let resid = rows_of(&cache.get(point)?, point)?;
            let (n_rows, d) = (segment.tokens.len(), resid.dims()[2]);
            let mut values = host(resid).map_err(failed("the residual stream"))?;
            values.truncate(n_rows * d); // what filled the batch up is behind
            self.keep(&resid_name(first), vec![("resid".to_owned(), TensorData::new(values, [n_rows, d]))])?;
        }
        self.manifest.batches.push((first, prompts.len()));
        self.manifest.done = prompts.end;
        Ok(())
    }

    fn final_resid(&self) -> Option<HookPoint> {
        self.run.final_resid().filter(|_| self.manifest.run.d_resid > 0)
    }

    fn forward(&self, prompts: Range<usize>) -> Result<ActivationCache, FeatureError> {
        let model = self.run.model;
        let filled = self.run.tokens.filled(prompts, FULL_ROWS);
        let (tokens, attention_mask) = filled.input(0..filled.n_prompts(), &model.device());
        let mut points = vec![self.run.source.hook_in()];
        points.extend(self.run.source_b.map(FeatureSource::hook_in));
        points.extend(self.final_resid());
        points.dedup();
        // Nothing behind the last activation that is wanted is run.
        let stop = points.iter().map(|point| point.layer()).collect::<Option<Vec<_>>>();
        let stop = stop.and_then(|layers| layers.into_iter().max()).map(|layer| (layer + 1) as isize);
        let options = RunOptions {
            return_type: ReturnType::None,
            attention_mask,
            stop_at_layer: stop.filter(|&stop| stop < model.dims().n_layers as isize),
            ..RunOptions::default()
        };
        let cache = CacheOptions::names(points);
        Ok(model.run_with_cache(&Input::Tokens(tokens), &options, &cache)?.1)
    }

    fn roles(&self, prompts: Range<usize>) -> Vec<Role> {
        let (table, options) = (self.run.tokens, self.run.options);
        let n = table.n_positions();
        let tokens = table.tokens(prompts.clone()).iter().enumerate();
        let role = |(at, token): (usize, &u32)| {
            if !table.is_real(prompts.start * n + at) {
                Role::Padding
            } else if options.ignore_tokens.contains(token) || options.ignore_positions.contains(&(at % n)) {
                Role::Ignored
            } else {
                Role::Counted
            }
        };
        tokens.map(role).collect()
    }

    /// Activations without those at padding, and without those that are NaN or infinite, which
    /// are counted for the first dictionary.
    fn cleaned(&mut self, codes: &SparseRows, roles: &[Role], count: bool) -> SparseRows {
        let mut clean = SparseRows::default();
        for (row, role) in roles.iter().enumerate() {
            let (indices, values) = codes.row(row);
            let kept = if *role == Role::Padding { 0 } else { indices.len() };
            for (&feature, value) in indices[..kept].iter().zip(values) {
                if !value.is_finite() && count && *role == Role::Counted {
                    *self.sums.n_not_finite.entry(feature).or_default() += 1;
                }
            }
            let pairs = indices[..kept].iter().copied().zip(values.iter().copied());
            clean.push_row(pairs.filter(|&(_, value)| value.is_finite() && value != 0.0));
        }
        clean
    }

    fn keep(&mut self, name: &str, tensors: Vec<(String, TensorData)>) -> Result<(), FeatureError> {
        self.store.put(name, tensors).map_err(in_store(name))
    }

    /// Makes what was done so far durable: first the sums, then the manifest that names them.
    fn save(&mut self) -> Result<Saved, FeatureError> {
        let begun = Instant::now();
        let old = std::mem::replace(&mut self.manifest.sums, format!("sums-{:08}", self.manifest.done));
        let name = self.manifest.sums.clone();
        self.keep(&name, self.sums.to_tensors())?;
        let text = serde_json::to_string_pretty(&self.manifest)
            .map_err(|error| FeatureError::Store { name: MANIFEST.to_owned(), source: error.into() })?;
        self.store.put_text(MANIFEST, &text).map_err(in_store(MANIFEST))?;
        if !old.is_empty() && old != name {
            self.store.remove(&old).map_err(in_store(&old))?;
        }
        Ok(Saved { at: Instant::now(), took: begun.elapsed() })
    }
}

/// What a dictionary reads, and what it makes of it.
pub(super) fn encode(
    source: &dyn FeatureSource,
    cache: &ActivationCache,
) -> Result<(Vec<f32>, SparseRows), FeatureError> {
    let point = source.hook_in();
    let x = rows_of(&cache.get(point)?, point)?;
    let [batch, pos, found] = x.dims();
    let expected = source.d_in();
    if found != expected {
        return Err(FeatureError::Width { point, name: source.name().to_owned(), expected, found });
    }
    let codes = source.encode(x.clone()).map_err(failed(source.name()))?;
    if codes.n_rows() != batch * pos {
        let what = format!("it gave {} rows for {} tokens", codes.n_rows(), batch * pos);
        return Err(failed(source.name())(what.into()));
    }
    Ok((host(x).map_err(failed(source.name()))?, codes))
}

/// An activation as `[batch, pos, width]`, heads side by side.
pub(super) fn rows_of(x: &AnyTensor, point: HookPoint) -> Result<Tensor<3>, FeatureError> {
    let by_token = point.pos_axis() == Some(1) && point.batch_axis() == Some(0);
    match x.clone() {
        AnyTensor::Float3(x) if by_token => Ok(x),
        AnyTensor::Float4(x) if by_token => {
            let [batch, pos, head, width] = x.dims();
            Ok(x.reshape([batch, pos, head * width]))
        }
        _ => Err(FeatureError::Tokens(format!(
            "`{point}` has the axes {:?}, and features are read from an activation with one vector for each token",
            point.axes()
        ))),
    }
}
