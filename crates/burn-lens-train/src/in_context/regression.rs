//! Linear regression: `y = w·x + noise`.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};
use serde::{Deserialize, Serialize};

use super::{Answers, Baseline, Episode, Family, Layout, Mistake};
use crate::TrainError;

/// `y = w·x + noise · ε`, with `w`, `x` and `ε` standard normal (Garg et al., 2022).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Regression {
    /// How long `x` and `w` are.
    pub dimensions: usize,
    /// Examples in an episode.
    pub examples: usize,
    /// The standard deviation of the noise.
    pub noise: f64,
}

impl Default for Regression {
    fn default() -> Self {
        Self { dimensions: 4, examples: 16, noise: 0.5 }
    }
}

/// Independent standard normal numbers.
pub(super) fn normals(count: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    (0..count).map(|_| StandardNormal.sample(rng)).collect()
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Family for Regression {
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
        Answers::Values
    }

    fn episode(&self, rng: &mut ChaCha8Rng) -> Result<Episode, TrainError> {
        let w = normals(self.dimensions, rng);
        let mut episode = Episode { x: Vec::new(), y: Vec::new() };
        for _ in 0..self.examples {
            let x = normals(self.dimensions, rng);
            episode.y.push(dot(&w, &x) + self.noise * normals(1, rng)[0]);
            episode.x.push(x);
        }
        Ok(episode)
    }

    fn baselines(&self) -> Vec<Baseline> {
        // With this penalty ridge is the posterior mean: nothing does better.
        let lambda = (self.noise * self.noise).max(1e-9);
        vec![Baseline::Ridge { lambda }, Baseline::LeastSquares, Baseline::Averaging, Baseline::Mean]
    }

    fn mistake(&self) -> Option<Mistake> {
        let valid = self.noise.is_finite() && self.noise >= 0.0;
        (!valid).then_some(("noise", "0 or a positive number", self.noise))
    }
}
