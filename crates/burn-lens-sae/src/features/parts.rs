//! What one run over the tokens leaves behind, in one piece or in shards.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{
    FeatureError, FeatureOptions, StoreError, TensorStore, TokenTable,
    neurons::NeuronSums,
    segment::{Role, Segment, take},
    select::Prompts,
};

/// The version of what is stored: others are refused.
const VERSION: u32 = 1;

/// The name of the text that says what else is in a store.
pub(super) const MANIFEST: &str = "manifest";

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// What the run was given; equal in all shards.
    pub run: RunKey,
    /// The prompts of this shard.
    pub prompts: Range<usize>,
    /// Up to which of them it has come.
    pub done: usize,
    /// The first prompt of each batch, and how many there are.
    pub(super) batches: Vec<(usize, usize)>,
    /// The name of the sums.
    pub(super) sums: String,
}

/// What decides the result of a run; shards belong together if it is equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunKey {
    /// How the model was called.
    pub model: String,
    /// How the dictionary was called.
    pub sae: String,
    /// A number that changes with the dictionaries' weights: names can be those of others.
    pub weights: u64,
    /// How the second dictionary was called.
    pub sae_b: Option<String>,
    /// What the dictionary reads.
    pub hook_in: String,
    /// What it writes.
    pub hook_out: String,
    /// How many features it has.
    pub n_features: usize,
    /// How many features the second has.
    pub n_features_b: usize,
    /// The length of the vectors that it reads.
    pub d_in: usize,
    /// How many prompts there are in all shards.
    pub n_prompts: usize,
    /// How long they are.
    pub n_positions: usize,
    /// The tokens' fingerprint.
    pub tokens: u64,
    /// The length of the final residual vectors that are kept; 0 where none are.
    pub d_resid: usize,
    /// Which features, and what is not counted.
    pub options: FeatureOptions,
}

impl RunKey {
    /// The first thing in which two runs differ, if any.
    pub(super) fn check(&self, other: &Self) -> Result<(), FeatureError> {
        let same_options = |options: &FeatureOptions| FeatureOptions {
            batch_prompts: 0,
            memory: 0,
            threads: 0,
            ..options.clone()
        };
        let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
        let (left, right) = (same_options(&self.options), same_options(&other.options));
        for (what, left, right) in [
            ("the model", text(&self.model), text(&other.model)),
            ("the dictionary", text(&self.sae), text(&other.sae)),
            ("the second dictionary", text(&self.sae_b), text(&other.sae_b)),
            ("the fingerprint of the dictionary's weights", text(&self.weights), text(&other.weights)),
            ("the hook read", text(&self.hook_in), text(&other.hook_in)),
            ("the hook written", text(&self.hook_out), text(&other.hook_out)),
            ("the number of features", text(&self.n_features), text(&other.n_features)),
            (
                "the number of features of the second dictionary",
                text(&self.n_features_b),
                text(&other.n_features_b),
            ),
            ("the width of the dictionary", text(&self.d_in), text(&other.d_in)),
            ("the number of prompts", text(&self.n_prompts), text(&other.n_prompts)),
            ("the number of positions", text(&self.n_positions), text(&other.n_positions)),
            ("the fingerprint of the tokens", text(&self.tokens), text(&other.tokens)),
            ("the width of the residual stream", text(&self.d_resid), text(&other.d_resid)),
            ("the options", text(&left), text(&right)),
        ] {
            if left != right {
                return Err(FeatureError::Mismatch { what, left, right });
            }
        }
        Ok(())
    }
}

impl Manifest {
    /// Of a shard that has not begun.
    pub(super) fn new(run: RunKey, prompts: Range<usize>) -> Self {
        let done = prompts.start;
        Self { version: VERSION, run, prompts, done, batches: Vec::new(), sums: String::new() }
    }

    /// What a store holds; `None` if nothing.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is of another version.
    pub fn read(store: &dyn TensorStore) -> Result<Option<Self>, FeatureError> {
        let Some(text) = store.get_text(MANIFEST).map_err(in_store(MANIFEST))? else { return Ok(None) };
        let damaged = |what: String| FeatureError::Damaged { name: MANIFEST.to_owned(), what };
        let manifest: Self = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if manifest.version != VERSION {
            return Err(damaged(format!("it is of version {}, expected {VERSION}", manifest.version)));
        }
        let mut next = manifest.prompts.start;
        for &(first, count) in &manifest.batches {
            if first != next || count == 0 {
                return Err(damaged(format!("its batches are not one behind the other at prompt {first}")));
            }
            next = first + count;
        }
        if next != manifest.done || manifest.done > manifest.prompts.end {
            return Err(damaged("its batches do not end where it says".to_owned()));
        }
        Ok(Some(manifest))
    }

    /// The sums so far.
    pub(super) fn read_sums(&self, store: &dyn TensorStore) -> Result<NeuronSums, FeatureError> {
        let size = (self.run.n_correlated()?, self.run.d_in);
        if self.batches.is_empty() {
            return Ok(NeuronSums::zeros(size.0, size.1));
        }
        NeuronSums::from_tensors(&self.sums, size, store.get(&self.sums).map_err(in_store(&self.sums))?)
    }
}

impl RunKey {
    /// The features asked for.
    pub(super) fn features(&self) -> Result<Vec<usize>, FeatureError> {
        self.options.features.resolve(self.n_features).map_err(|feature| FeatureError::NoFeature {
            feature,
            name: self.sae.clone(),
            n_features: self.n_features,
        })
    }

    /// How many features are correlated with neurons.
    pub(super) fn n_correlated(&self) -> Result<usize, FeatureError> {
        Ok(if self.options.n_table_rows == 0 { 0 } else { self.features()?.len() })
    }
}

/// The name of a batch's sparse activations.
pub(super) fn codes_name(first: usize) -> String {
    format!("codes-{first:08}")
}

/// The name of a batch's residual stream.
pub(super) fn resid_name(first: usize) -> String {
    format!("resid-{first:08}")
}

pub(super) fn in_store(name: &str) -> impl FnOnce(StoreError) -> FeatureError + '_ {
    move |source| FeatureError::Store { name: name.to_owned(), source }
}

/// What the shards in these stores were given, and their tokens.
///
/// # Errors
///
/// As [`build`](super::build()).
pub fn stored_run(stores: &[&dyn TensorStore]) -> Result<(RunKey, TokenTable), FeatureError> {
    let parts = Parts::open(stores)?;
    let Corpus { n_positions, tokens, roles } = parts.corpus;
    let real = roles.iter().map(|&role| role != Role::Padding).collect();
    Ok((parts.run, TokenTable::from_parts(n_positions, tokens, real)))
}

/// The shards of a run, read as one.
pub(super) struct Parts<'a> {
    pub(super) run: RunKey,
    pub(super) sums: NeuronSums,
    pub(super) corpus: Corpus,
    batches: Vec<(usize, usize, &'a dyn TensorStore)>,
}

/// The tokens of all prompts, and what each is.
#[derive(Default)]
pub(super) struct Corpus {
    n_positions: usize,
    tokens: Vec<u32>,
    roles: Vec<Role>,
}

impl<'a> Parts<'a> {
    /// Shards that together hold every prompt once.
    pub(super) fn open(stores: &[&'a dyn TensorStore]) -> Result<Self, FeatureError> {
        let mut shards = Vec::new();
        for (at, &store) in stores.iter().enumerate() {
            let manifest = Manifest::read(store)?.ok_or_else(|| FeatureError::Incomplete {
                what: format!("part {} of {} holds nothing", at + 1, stores.len()),
            })?;
            shards.push((manifest, store));
        }
        shards.sort_by_key(|(manifest, _)| manifest.prompts.start);
        let run = shards
            .first()
            .map(|(manifest, _)| manifest.run.clone())
            .ok_or_else(|| FeatureError::Incomplete { what: "there is no part at all".to_owned() })?;
        let mut sums = NeuronSums::zeros(run.n_correlated()?, run.d_in);
        let (mut batches, mut next) = (Vec::new(), 0);
        for (manifest, store) in &shards {
            run.check(&manifest.run)?;
            check_next(manifest, next)?;
            next = manifest.prompts.end;
            sums.merge(&manifest.read_sums(*store)?);
            batches.extend(manifest.batches.iter().map(|&(first, count)| (first, count, *store)));
        }
        if next != run.n_prompts {
            let what = format!("prompts {next} to {} are in none", run.n_prompts - 1);
            return Err(FeatureError::Incomplete { what });
        }
        let mut corpus = Corpus { n_positions: run.n_positions, ..Corpus::default() };
        let mut parts = Self { run, sums, batches, corpus: Corpus::default() };
        parts.each(|segment| {
            corpus.tokens.extend_from_slice(&segment.tokens);
            corpus.roles.extend_from_slice(&segment.roles);
            Ok(())
        })?;
        parts.corpus = corpus;
        Ok(parts)
    }

    /// Goes through the batches in order of their prompts.
    pub(super) fn each(
        &self,
        mut visit: impl FnMut(Segment) -> Result<(), FeatureError>,
    ) -> Result<(), FeatureError> {
        for &(first, count, store) in &self.batches {
            let name = codes_name(first);
            let segment = Segment::from_tensors(&name, first, store.get(&name).map_err(in_store(&name))?)?;
            if segment.n_prompts() != count || segment.n_positions != self.run.n_positions {
                let what = "it holds other prompts than the manifest says".to_owned();
                return Err(FeatureError::Damaged { name, what });
            }
            visit(segment)?;
        }
        Ok(())
    }

    /// The final residual stream at some places, which rise.
    pub(super) fn resid(&self, places: &[u64]) -> Result<Vec<f32>, FeatureError> {
        let d = self.run.d_resid;
        let mut rows = Vec::with_capacity(places.len() * d);
        let n = self.run.n_positions;
        let mut rest = places;
        for &(first, count, store) in &self.batches {
            let (start, end) = ((first * n) as u64, ((first + count) * n) as u64);
            let here = rest.partition_point(|&place| place < end);
            let (mine, after) = rest.split_at(here);
            rest = after;
            if mine.is_empty() {
                continue;
            }
            let name = resid_name(first);
            let mut tensors = store.get(&name).map_err(in_store(&name))?;
            let values: Vec<f32> = take(&name, &mut tensors, "resid")?;
            if values.len() != count * n * d {
                let what = "`resid` does not fit the prompts".to_owned();
                return Err(FeatureError::Damaged { name, what });
            }
            for &place in mine {
                let row = (place - start) as usize;
                rows.extend_from_slice(&values[row * d..(row + 1) * d]);
            }
        }
        Ok(rows)
    }
}

fn check_next(manifest: &Manifest, next: usize) -> Result<(), FeatureError> {
    let Manifest { prompts, done, .. } = manifest;
    let what = if prompts.start > next {
        format!("prompts {next} to {} are in none", prompts.start - 1)
    } else if prompts.start < next {
        format!("prompts {} to {} are there twice", prompts.start, next.min(prompts.end) - 1)
    } else if *done < prompts.end {
        format!(
            "the part of prompts {} to {} ended at prompt {done}; run it again to go on",
            prompts.start,
            prompts.end - 1
        )
    } else {
        return Ok(());
    };
    Err(FeatureError::Incomplete { what })
}

impl Corpus {
    /// How many tokens were counted.
    pub(super) fn n_counted(&self) -> u64 {
        self.roles.iter().filter(|&&role| role == Role::Counted).count() as u64
    }
}

impl Prompts for Corpus {
    fn prompt(&self, prompt: usize) -> (&[u32], Range<usize>) {
        let n = self.n_positions;
        let rows = prompt * n..(prompt + 1) * n;
        let roles = &self.roles[rows.clone()];
        let start = roles.iter().position(|&role| role != Role::Padding).unwrap_or(0);
        let end = roles.iter().rposition(|&role| role != Role::Padding).map_or(start, |last| last + 1);
        (&self.tokens[rows], start..end)
    }

    fn n_positions(&self) -> usize {
        self.n_positions
    }
}
