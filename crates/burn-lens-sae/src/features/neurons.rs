//! Sums over tokens of features times the entries that the dictionary reads.

use std::collections::{BTreeMap, HashMap};

use burn_lens_tensor::burn::tensor::TensorData;
use pulp::Arch;

use super::{
    Correlated, FeatureError, SparseRows,
    correlate::{Moments, strongest},
    segment::take,
    sums::{PairSums, add_scaled, add_squares},
    threads,
};

/// What the correlations of features with neurons need. Sums in any order are equal, so shards
/// merge into what one run gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NeuronSums {
    /// How many tokens were counted.
    pub(super) n: u64,
    /// `Σ x`, `[d_in]`
    x: PairSums,
    /// `Σ x²`, `[d_in]`
    xx: PairSums,
    /// `Σ a x`, `[feature, d_in]`
    ax: PairSums,
    /// How often each of all features was NaN or infinite.
    pub(super) n_not_finite: BTreeMap<u32, u64>,
    /// How many tokens were left out because what the dictionary reads is NaN or infinite there.
    pub(super) n_bad_inputs: u64,
}

impl NeuronSums {
    pub(super) fn zeros(n_features: usize, d_in: usize) -> Self {
        Self {
            x: PairSums::zeros(d_in),
            xx: PairSums::zeros(d_in),
            ax: PairSums::zeros(n_features * d_in),
            ..Self::default()
        }
    }

    fn d_in(&self) -> usize {
        self.x.high.len()
    }

    /// Adds the counted tokens of a batch. `slots` says which of the sums a feature has.
    pub(super) fn add(
        &mut self,
        counted: &[usize],
        x: &[f32],
        codes: &SparseRows,
        (slots, n_threads): (&HashMap<u32, usize>, usize),
    ) {
        let d_in = self.d_in();
        self.n += counted.len() as u64;
        let row = |at: usize| &x[at * d_in..(at + 1) * d_in];
        for &at in counted {
            add_scaled(&mut self.x.high, &mut self.x.low, 1.0, row(at));
            add_squares(&mut self.xx.high, &mut self.xx.low, row(at));
        }
        if self.ax.high.is_empty() {
            return;
        }
        let mut columns = vec![Vec::new(); self.ax.high.len() / d_in.max(1)];
        for &at in counted {
            let (indices, values) = codes.row(at);
            for (index, &value) in indices.iter().zip(values) {
                if let Some(&slot) = slots.get(index) {
                    columns[slot].push((at, value));
                }
            }
        }
        let ranges = threads::divide(columns.iter().map(Vec::len), n_threads);
        let highs = threads::split(&mut self.ax.high, d_in, &ranges);
        let lows = threads::split(&mut self.ax.low, d_in, &ranges);
        let tasks: Vec<_> = ranges.into_iter().zip(highs.into_iter().zip(lows)).collect();
        threads::run(tasks, |(range, (high, low))| {
            let sums = high.chunks_exact_mut(d_in).zip(low.chunks_exact_mut(d_in));
            Arch::new().dispatch(|| {
                for (column, (high, low)) in columns[range].iter().zip(sums) {
                    for &(at, value) in column {
                        add_scaled(high, low, value, row(at));
                    }
                }
            });
        });
    }

    /// Adds what another shard has.
    pub(super) fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.n_bad_inputs += other.n_bad_inputs;
        self.x.merge(&other.x);
        self.xx.merge(&other.xx);
        self.ax.merge(&other.ax);
        for (&feature, &count) in &other.n_not_finite {
            *self.n_not_finite.entry(feature).or_default() += count;
        }
    }

    /// The neurons that go with a feature most, by Pearson's correlation.
    pub(super) fn correlated(&self, slot: usize, feature: Moments, k: usize) -> Vec<Correlated> {
        let d_in = self.d_in();
        if self.ax.high.is_empty() {
            return Vec::new();
        }
        let pairs = (0..d_in).map(|at| {
            let neuron = Moments { sum: self.x.value(at), squares: self.xx.value(at) };
            (at, feature.correlated(neuron, self.ax.value(slot * d_in + at), self.n))
        });
        strongest(pairs, k)
    }

    pub(super) fn to_tensors(&self) -> Vec<(String, TensorData)> {
        let features: Vec<u32> = self.n_not_finite.keys().copied().collect();
        let counts: Vec<u64> = self.n_not_finite.values().copied().collect();
        let vector = |values: &Vec<f64>| TensorData::new(values.clone(), [values.len()]);
        let mut tensors = vec![
            ("counts".to_owned(), TensorData::new(vec![self.n, self.n_bad_inputs], [2])),
            ("not_finite.features".to_owned(), TensorData::new(features, [counts.len()])),
            ("not_finite.counts".to_owned(), TensorData::new(counts.clone(), [counts.len()])),
        ];
        for (name, sums) in [("x", &self.x), ("xx", &self.xx), ("ax", &self.ax)] {
            tensors.push((format!("{name}.high"), vector(&sums.high)));
            tensors.push((format!("{name}.low"), vector(&sums.low)));
        }
        tensors
    }

    pub(super) fn from_tensors(
        name: &str,
        (n_features, d_in): (usize, usize),
        mut tensors: BTreeMap<String, TensorData>,
    ) -> Result<Self, FeatureError> {
        let damaged = |what: &str| FeatureError::Damaged { name: name.to_owned(), what: what.to_owned() };
        let mut sums = |prefix: &str, len: usize| {
            let high = take(name, &mut tensors, &format!("{prefix}.high"))?;
            let low = take(name, &mut tensors, &format!("{prefix}.low"))?;
            let sums = PairSums { high, low };
            let fits = sums.high.len() == len && sums.low.len() == len;
            if fits { Ok(sums) } else { Err(damaged(&format!("`{prefix}` has another length than {len}"))) }
        };
        let (x, xx, ax) = (sums("x", d_in)?, sums("xx", d_in)?, sums("ax", n_features * d_in)?);
        let counts: Vec<u64> = take(name, &mut tensors, "counts")?;
        let [n, n_bad_inputs] = counts[..] else { return Err(damaged("`counts` has not two entries")) };
        let features: Vec<u32> = take(name, &mut tensors, "not_finite.features")?;
        let counts: Vec<u64> = take(name, &mut tensors, "not_finite.counts")?;
        Ok(Self { n, x, xx, ax, n_not_finite: features.into_iter().zip(counts).collect(), n_bad_inputs })
    }
}
