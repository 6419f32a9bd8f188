//! Boolean functions of signs.

use rand::{RngExt as _, seq::index::sample};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Answers, Baseline, Episode, Family, Layout, Mistake};
use crate::TrainError;

/// A function of a few literals: inputs of ±1, each as it is or negated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    /// All of them.
    Conjunction,
    /// Any of them.
    Disjunction,
    /// More than half of them.
    Majority,
    /// An odd number of them.
    Parity,
}

impl Function {
    /// Every function.
    pub const ALL: [Self; 4] = [Self::Conjunction, Self::Disjunction, Self::Majority, Self::Parity];

    /// Its value, where `count` of `terms` literals hold.
    fn holds(self, count: usize, terms: usize) -> bool {
        match self {
            Self::Conjunction => count == terms,
            Self::Disjunction => count > 0,
            Self::Majority => 2 * count > terms,
            Self::Parity => count % 2 == 1,
        }
    }
}

/// A boolean function of `terms` of `dimensions` signs, each with its own sign; inputs are
/// uniform (Bhattamishra et al., 2023).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Boolean {
    /// How many signs an `x` has.
    pub dimensions: usize,
    /// Examples in an episode.
    pub examples: usize,
    /// The kind of function.
    pub function: Function,
    /// How many signs it looks at.
    pub terms: usize,
}

impl Default for Boolean {
    fn default() -> Self {
        Self { dimensions: 6, examples: 20, function: Function::Majority, terms: 3 }
    }
}

impl Family for Boolean {
    fn width(&self) -> usize {
        self.dimensions
    }

    fn examples(&self) -> usize {
        self.examples
    }

    fn layout(&self) -> Layout {
        Layout::Interleaved
    }

    fn answers(&self) -> Answers {
        Answers::Classes
    }

    fn episode(&self, rng: &mut ChaCha8Rng) -> Result<Episode, TrainError> {
        let sign = |rng: &mut ChaCha8Rng| if rng.random::<bool>() { 1.0 } else { -1.0 };
        let terms = sample(rng, self.dimensions, self.terms);
        let literals: Vec<(usize, f64)> = terms.into_iter().map(|at| (at, sign(rng))).collect();
        let mut episode = Episode { x: Vec::new(), y: Vec::new() };
        for _ in 0..self.examples {
            let x: Vec<f64> = (0..self.dimensions).map(|_| sign(rng)).collect();
            let count = literals.iter().filter(|&&(at, sign)| x[at] == sign).count();
            episode.y.push(if self.function.holds(count, self.terms) { 1.0 } else { -1.0 });
            episode.x.push(x);
        }
        Ok(episode)
    }

    fn baselines(&self) -> Vec<Baseline> {
        vec![
            Baseline::Logistic { c: 1.0 },
            Baseline::LeastSquares,
            Baseline::Averaging,
            Baseline::Nearest,
            Baseline::Majority,
        ]
    }

    fn mistake(&self) -> Option<Mistake> {
        let valid = (1..=self.dimensions).contains(&self.terms);
        (!valid).then_some(("terms", "1 up to the number of dimensions", self.terms as f64))
    }
}
