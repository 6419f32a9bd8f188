//! From stored activations to the data of features.

use burn_lens_hooks::HookPoint;

use super::{
    Correlate, FeatureData, FeatureError, FeatureKind, FeatureOptions, Progress, RunInfo, SequenceData,
    Stage, TensorStore, attribution,
    collect::FeatureRun,
    correlate::{Products, Slots},
    decoder::{alignment, head_shares},
    draft::{AllMoments, AllProducts, Drafter, FeatureColumn, all_moments},
    effects::{Effect, Effects, Meeting},
    logits,
    parts::Parts,
    readout::{Readout, failed, host},
    select::Prompts as _,
    threads,
};

/// Computes the data of every feature asked for and hands it on, in the order asked for.
///
/// `stores` are the shards of the run. The model is used for its weights, and to run the prompts
/// shown once more where activations are attributed to source positions; it is not run over the
/// tokens again.
///
/// # Errors
///
/// If the shards do not make a whole or belong to another run, a dictionary or the store fails, or
/// `sink` does.
pub fn build(
    run: &FeatureRun<'_>,
    stores: &[&dyn TensorStore],
    sink: &mut dyn FnMut(FeatureData) -> Result<(), FeatureError>,
    progress: &mut dyn FnMut(Progress),
) -> Result<RunInfo, FeatureError> {
    let parts = Parts::open(stores)?;
    parts.run.check(&run.key())?;
    let features = parts.run.features()?;
    let moments = all_moments(&parts)?;
    let mut builder =
        Builder { run, parts: &parts, moments: &moments, info: info(run, &parts), seen: Seen::default() };
    let total = features.len();
    for (at, features) in features.chunks(at_once(run.options)).enumerate() {
        let done = at * at_once(run.options);
        let mut report =
            |stage, done_here: usize| progress(Progress { stage, done: done + done_here, total });
        for data in builder.pass(features, &mut report)? {
            builder.seen.add(&data);
            sink(data)?;
        }
    }
    Ok(builder.finished())
}

/// How many features are taken through all stages together: what a page shows of one is some
/// tens of kilobytes.
fn at_once(options: &FeatureOptions) -> usize {
    const PAGE: u64 = 128 << 10;
    (options.memory / PAGE).clamp(16, 1 << 16) as usize
}

/// What was seen of features, for the notes.
#[derive(Default)]
struct Seen {
    dead: usize,
    dense: usize,
    not_finite: usize,
}

impl Seen {
    fn add(&mut self, data: &FeatureData) {
        self.dead += usize::from(data.kind == FeatureKind::Dead);
        self.dense += usize::from(data.kind == FeatureKind::Dense || data.kind == FeatureKind::Constant);
        self.not_finite += usize::from(data.statistics.n_not_finite > 0);
    }
}

struct Builder<'a> {
    run: &'a FeatureRun<'a>,
    parts: &'a Parts<'a>,
    moments: &'a AllMoments,
    info: RunInfo,
    seen: Seen,
}

fn info(run: &FeatureRun<'_>, parts: &Parts<'_>) -> RunInfo {
    let key = &parts.run;
    let mut notes = Vec::new();
    if let Err(reason) = Readout::of(run.model, run.source.hook_out()) {
        notes.push(format!("no effects on logits and loss: {reason}"));
    }
    if parts.sums.n_bad_inputs > 0 {
        notes.push(format!(
            "{} tokens were not counted, because `{}` is NaN or infinite there",
            parts.sums.n_bad_inputs, key.hook_in
        ));
    }
    RunInfo {
        model: key.model.clone(),
        sae: key.sae.clone(),
        sae_b: key.sae_b.clone(),
        hook: key.hook_in.clone(),
        hook_out: key.hook_out.clone(),
        d_sae: key.n_features,
        n_prompts: key.n_prompts,
        n_positions: key.n_positions,
        n_tokens: parts.corpus.n_counted(),
        notes,
    }
}

/// `work(0..n)`, over several threads.
fn parallel<R: Send>(n: usize, n_threads: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let ranges = threads::divide(std::iter::repeat_n(1, n), n_threads);
    threads::run(ranges, |range| range.map(&work).collect::<Vec<R>>()).into_iter().flatten().collect()
}

impl Builder<'_> {
    fn finished(self) -> RunInfo {
        let Self { mut info, seen, .. } = self;
        for (count, what) in [
            (seen.dead, "are never active on these tokens"),
            (seen.dense, "are active at half of the tokens or more"),
            (seen.not_finite, "are NaN or infinite at some tokens, which are not counted as active"),
        ] {
            if count > 0 {
                info.notes.push(format!("{count} features {what}"));
            }
        }
        info
    }

    /// Some features, through all stages.
    fn pass(
        &self,
        features: &[usize],
        progress: &mut dyn FnMut(Stage, usize),
    ) -> Result<Vec<FeatureData>, FeatureError> {
        let mut drafts = Vec::with_capacity(features.len());
        let mut meetings = Vec::new();
        let wanted = self.wants_effects();
        let drafter = Drafter {
            options: self.run.options,
            corpus: &self.parts.corpus,
            sums: &self.parts.sums,
            moments: self.moments,
        };
        let at_once = (self.run.options.memory / 4 / self.correlation_bytes() as u64).max(1) as usize;
        for features in features.chunks(at_once) {
            let (columns, products) = self.columns(features)?;
            let first = drafts.len();
            let draft = |slot: usize| drafter.draft(features[slot], slot, &columns[slot], &products);
            drafts.extend(parallel(features.len(), self.run.options.n_threads(), draft));
            if wanted {
                for (slot, column) in columns.iter().enumerate() {
                    meetings.extend(drafter.meetings((first + slot) as u32, column, &drafts[first + slot]));
                }
            }
            progress(Stage::Select, drafts.len());
        }
        self.decoder(features, &mut drafts)?;
        self.neurons(features, &mut drafts)?;
        attribution::fill(self.run, self.parts, &mut drafts)?;
        let Ok(readout) = Readout::of(self.run.model, self.run.source.hook_out()) else { return Ok(drafts) };
        let source = self.run.source;
        let directions = source.directions(features).map_err(failed(source.name()))?;
        let directions = readout.directions(directions).map_err(failed(source.name()))?;
        logits::fill(&mut drafts, &readout, &directions, self.run.options)?;
        progress(Stage::Logits, drafts.len());
        if wanted {
            self.effects(&readout, &directions, meetings, (&mut drafts, progress))?;
        }
        Ok(drafts)
    }

    fn wants_effects(&self) -> bool {
        self.parts.run.d_resid > 0
    }

    /// Bytes for the correlations of one feature.
    fn correlation_bytes(&self) -> usize {
        let options = self.run.options;
        if options.n_table_rows == 0 {
            return 1;
        }
        let own = match options.correlate {
            Correlate::None => 0,
            Correlate::All | Correlate::Chosen => self.parts.run.n_features,
        };
        (own + self.parts.run.n_features_b) * size_of::<f64>() + 1
    }

    /// What a feature's decoder direction is made of.
    fn decoder(&self, features: &[usize], drafts: &mut [FeatureData]) -> Result<(), FeatureError> {
        let (source, k) = (self.run.source, self.run.options.n_table_rows);
        let directions = source.directions(features).map_err(failed(source.name()))?;
        let width = directions.dims()[1];
        let n_heads = match source.hook_out() {
            HookPoint::AttnZ(_) => self.run.model.dims().n_heads,
            _ => 0,
        };
        let values = host(directions).map_err(failed(source.name()))?;
        for (draft, row) in drafts.iter_mut().zip(values.chunks_exact(width)) {
            draft.label = source.label(draft.feature);
            draft.neuron_alignment = alignment(row, k);
            draft.decoder_head_shares = head_shares(row, n_heads);
        }
        Ok(())
    }

    fn neurons(&self, features: &[usize], drafts: &mut [FeatureData]) -> Result<(), FeatureError> {
        let slots = Slots::new(&self.parts.run.features()?, self.parts.run.n_features);
        let k = self.run.options.n_table_rows;
        let (sums, moments) = (&self.parts.sums, self.moments);
        let table = |at: usize| {
            let feature = features[at];
            let slot = slots.of(feature as u32)?;
            Some(sums.correlated(slot, moments.a[feature], k))
        };
        let tables = parallel(features.len(), self.run.options.n_threads(), table);
        for (draft, table) in drafts.iter_mut().zip(tables) {
            draft.correlated_neurons = table.unwrap_or_default();
        }
        Ok(())
    }

    /// Fills in what features do to the predictions at the tokens shown.
    fn effects(
        &self,
        readout: &Readout,
        directions: &[f32],
        mut meetings: Vec<Meeting>,
        (drafts, progress): (&mut [FeatureData], &mut dyn FnMut(Stage, usize)),
    ) -> Result<(), FeatureError> {
        meetings.sort_unstable_by_key(|meeting| (meeting.place, meeting.slot));
        let options = self.run.options;
        let effects = Effects {
            readout,
            directions,
            k: options.sequences.n_hover,
            n_threads: options.n_threads(),
            memory: options.memory,
        };
        let (total, n) = (meetings.len().max(1), drafts.len());
        let found = effects.of(
            &meetings,
            |places| self.parts.resid(places),
            |done| progress(Stage::Effects, done * n / total),
        )?;
        let mut by_slot: Vec<Vec<(u64, Effect)>> = vec![Vec::new(); n];
        for (meeting, effect) in meetings.iter().zip(found) {
            by_slot[meeting.slot as usize].push((meeting.place, effect));
        }
        for (draft, effects) in drafts.iter_mut().zip(by_slot) {
            for sequence in draft.groups.iter_mut().flat_map(|group| &mut group.sequences) {
                self.fill(sequence, &effects);
            }
        }
        Ok(())
    }

    /// Fills in the effects at the tokens of one sequence; `effects` are in order of their places.
    fn fill(&self, sequence: &mut SequenceData, effects: &[(u64, Effect)]) {
        let first = (sequence.prompt * self.parts.corpus.n_positions()) as u64;
        let real = self.parts.corpus.prompt(sequence.prompt).1;
        for position in sequence.start..sequence.start + sequence.tokens.len() {
            let before = (position > real.start).then(|| first + position as u64 - 1);
            let at = |place: u64| effects.binary_search_by_key(&place, |&(place, _)| place).ok();
            let effect = before.and_then(at).map(|at| &effects[at].1);
            sequence.loss_effects.push(match (before, effect) {
                (None, _) => None,
                (Some(_), None) => Some(0.0),
                (Some(_), Some(effect)) => Some(effect.loss).filter(|loss| loss.is_finite()),
            });
            let hover = effect.map(|effect| effect.hover.clone());
            sequence.hover.push(hover.filter(|hover| !hover.top.is_empty()));
        }
    }

    /// The activations of some features and their products with those of others, in one pass over
    /// the sparse rows.
    fn columns(&self, features: &[usize]) -> Result<(Vec<FeatureColumn>, AllProducts), FeatureError> {
        let (options, key) = (self.run.options, &self.parts.run);
        let slots = Slots::new(features, key.n_features);
        let mut columns = vec![FeatureColumn::default(); features.len()];
        let count = |wanted: bool| if wanted && options.n_table_rows > 0 { features.len() } else { 0 };
        let mut products = AllProducts {
            a: Products::zeros(count(options.correlate != Correlate::None), key.n_features),
            b: Products::zeros(count(key.sae_b.is_some()), key.n_features_b),
        };
        let n_threads = options.n_threads();
        self.parts.each(|segment| {
            let start = (segment.first * segment.n_positions) as u64;
            for (row, role) in segment.roles.iter().enumerate() {
                let (indices, values) = segment.codes.row(row);
                for (&index, &value) in indices.iter().zip(values) {
                    if let Some(slot) = slots.of(index) {
                        columns[slot].push(*role, start + row as u64, value);
                    }
                }
            }
            let counted: Vec<usize> = segment.counted().collect();
            products.a.add(&counted, (&segment.codes, &slots), &segment.codes, n_threads);
            if let Some(codes_b) = &segment.codes_b {
                products.b.add(&counted, (&segment.codes, &slots), codes_b, n_threads);
            }
            Ok(())
        })?;
        Ok((columns, products))
    }
}
