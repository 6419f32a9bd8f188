//! What is known of a feature from its activations alone.

use super::{
    FeatureData, FeatureError, FeatureKind, FeatureOptions, FeatureStatistics, Histogram, Quantiles, SCHEMA,
    SequenceData, SequenceGroup,
    correlate::{Moments, Products, strongest},
    effects::Meeting,
    neurons::NeuronSums,
    parts::{Corpus, Parts},
    segment::Role,
    select::{self, Column, Prompts as _},
};

/// What drafts are made of.
#[derive(Clone, Copy)]
pub(super) struct Drafter<'a> {
    pub(super) options: &'a FeatureOptions,
    pub(super) corpus: &'a Corpus,
    pub(super) sums: &'a NeuronSums,
    pub(super) moments: &'a AllMoments,
}

impl Drafter<'_> {
    /// What is known of a feature from its activations.
    pub(super) fn draft(
        &self,
        feature: usize,
        slot: usize,
        column: &FeatureColumn,
        products: &AllProducts,
    ) -> FeatureData {
        let options = self.options;
        let k = options.n_table_rows;
        let shown = column;
        let column = &column.counted;
        let statistics = self.statistics(feature, column);
        let kind = kind(&statistics);
        let own = self.moments.a[feature];
        let n = statistics.n_tokens;
        let related = |products: &Products, others: &[Moments], skip: Option<usize>| {
            if products.is_empty() {
                return Vec::new();
            }
            let sums = products.of(slot);
            let pairs = others.iter().zip(sums).enumerate().filter(|(at, _)| Some(*at) != skip);
            strongest(pairs.map(|(at, (other, &sum))| (at, own.correlated(*other, sum, n))), k)
        };
        let chosen = select::choose(&options.sequences, feature, column, self.corpus);
        let groups = chosen.into_iter().map(|group| SequenceGroup {
            kind: group.kind,
            n_active: group.n_active,
            sequences: group.places.into_iter().map(|place| self.sequence(place, shown)).collect(),
        });
        FeatureData {
            schema: SCHEMA,
            feature,
            label: None,
            kind,
            activations: Histogram::of(&column.values, options.n_bins),
            statistics,
            logits: None,
            neuron_alignment: Vec::new(),
            correlated_neurons: Vec::new(),
            correlated_features: related(&products.a, &self.moments.a, Some(feature)),
            correlated_b_features: related(&products.b, &self.moments.b, None),
            decoder_head_shares: Vec::new(),
            groups: groups.collect(),
        }
    }

    fn statistics(&self, feature: usize, column: &Column) -> FeatureStatistics {
        let mut sorted = column.values.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        let n_tokens = self.corpus.n_counted();
        let n = (n_tokens as f64).max(1.0);
        let Moments { sum, squares } = self.moments.a[feature];
        FeatureStatistics {
            n_tokens,
            n_active: column.values.len() as u64,
            n_not_finite: self.sums.n_not_finite.get(&(feature as u32)).copied().unwrap_or(0),
            max: sorted.last().copied().unwrap_or(0.0),
            min: sorted.first().copied().unwrap_or(0.0),
            mean: sum / n,
            root_mean_square: (squares / n).sqrt(),
            quantiles: Quantiles::of_sorted(&sorted),
        }
    }

    fn sequence(&self, (place, repeats): (u64, u64), column: &FeatureColumn) -> SequenceData {
        let n = self.corpus.n_positions() as u64;
        let (range, target) = select::window(&self.options.sequences, self.corpus, place);
        let prompt = (place / n) as usize;
        let (start, tokens) = (range.start, self.corpus.prompt(prompt).0[range.clone()].to_vec());
        let first = prompt as u64 * n;
        let activations = range.map(|position| column.at(first + position as u64)).collect();
        SequenceData { prompt, start, target, tokens, activations, repeats, ..SequenceData::default() }
    }

    /// The feature at the tokens whose effect is shown: each token's is that of the one before.
    pub(super) fn meetings(&self, slot: u32, column: &FeatureColumn, draft: &FeatureData) -> Vec<Meeting> {
        let n = self.corpus.n_positions() as u64;
        let sequences = draft.groups.iter().flat_map(|group| &group.sequences);
        let mut meetings: Vec<Meeting> = sequences
            .flat_map(|sequence| {
                let (tokens, real) = self.corpus.prompt(sequence.prompt);
                let shown = sequence.start..sequence.start + sequence.tokens.len();
                let first = sequence.prompt as u64 * n;
                shown.filter(move |&position| position > real.start).map(move |position| {
                    let place = first + position as u64 - 1;
                    Meeting { place, slot, activation: column.at(place), next: tokens[position] }
                })
            })
            .filter(|meeting| meeting.activation != 0.0)
            .collect();
        meetings.sort_unstable_by_key(|meeting| meeting.place);
        meetings.dedup_by_key(|meeting| meeting.place);
        meetings
    }
}

/// One feature's activations.
#[derive(Clone, Debug, Default)]
pub(super) struct FeatureColumn {
    /// Those that count.
    pub(super) counted: Column,
    /// Those that are only shown beside others.
    pub(super) ignored: Column,
}

impl FeatureColumn {
    pub(super) fn push(&mut self, role: Role, place: u64, value: f32) {
        let column = if role == Role::Counted { &mut self.counted } else { &mut self.ignored };
        column.places.push(place);
        column.values.push(value);
    }

    /// The activation at a place; 0 where it is not active.
    pub(super) fn at(&self, place: u64) -> f32 {
        let find = |column: &Column| column.places.binary_search(&place).ok().map(|at| column.values[at]);
        find(&self.counted).or_else(|| find(&self.ignored)).unwrap_or(0.0)
    }
}

/// `Σ a_f a_g` and `Σ a_f b_g`.
pub(super) struct AllProducts {
    pub(super) a: Products,
    pub(super) b: Products,
}

fn kind(statistics: &FeatureStatistics) -> FeatureKind {
    let FeatureStatistics { n_tokens, n_active, min, max, .. } = *statistics;
    match n_active {
        0 => FeatureKind::Dead,
        _ if n_active == n_tokens && min == max => FeatureKind::Constant,
        _ if 2 * n_active >= n_tokens => FeatureKind::Dense,
        _ => FeatureKind::Sparse,
    }
}

/// The sums of every feature of both dictionaries over counted tokens, in order.
pub(super) struct AllMoments {
    pub(super) a: Vec<Moments>,
    pub(super) b: Vec<Moments>,
}

pub(super) fn all_moments(parts: &Parts<'_>) -> Result<AllMoments, FeatureError> {
    let zeros = |n| vec![Moments::default(); n];
    let mut all = AllMoments { a: zeros(parts.run.n_features), b: zeros(parts.run.n_features_b) };
    parts.each(|segment| {
        for row in segment.counted() {
            for (moments, codes) in
                [(&mut all.a, Some(&segment.codes)), (&mut all.b, segment.codes_b.as_ref())]
            {
                let Some((indices, values)) = codes.map(|codes| codes.row(row)) else { continue };
                for (&index, &value) in indices.iter().zip(values) {
                    let moments = moments.get_mut(index as usize).ok_or_else(|| outside(index))?;
                    moments.sum += f64::from(value);
                    moments.squares += f64::from(value) * f64::from(value);
                }
            }
        }
        Ok(())
    })?;
    Ok(all)
}

fn outside(index: u32) -> FeatureError {
    FeatureError::Damaged {
        name: "codes".to_owned(),
        what: format!("feature {index} is not in the dictionary"),
    }
}
