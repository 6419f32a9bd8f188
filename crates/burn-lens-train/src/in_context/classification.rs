//! Logistic classification.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{
    Answers, Baseline, Episode, Family, Layout, Mistake,
    regression::{dot, normals},
};
use crate::TrainError;

/// Labels of a logistic model: 1 with probability `1 / (1 + exp(-sharpness · w·x))`, else -1,
/// with `w` and `x` standard normal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Classification {
    /// How long `x` and `w` are.
    pub dimensions: usize,
    /// Examples in an episode.
    pub examples: usize,
    /// How sure labels are.
    pub sharpness: f64,
}

impl Default for Classification {
    fn default() -> Self {
        Self { dimensions: 4, examples: 16, sharpness: 3.0 }
    }
}

impl Family for Classification {
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
        let w = normals(self.dimensions, rng);
        let mut episode = Episode { x: Vec::new(), y: Vec::new() };
        for _ in 0..self.examples {
            let x = normals(self.dimensions, rng);
            let p = 1.0 / (1.0 + (-self.sharpness * dot(&w, &x)).exp());
            episode.y.push(if rng.random::<f64>() < p { 1.0 } else { -1.0 });
            episode.x.push(x);
        }
        Ok(episode)
    }

    fn baselines(&self) -> Vec<Baseline> {
        // With this penalty it is the most likely `w`, since `sharpness · w` has that variance.
        let c = self.sharpness * self.sharpness;
        vec![Baseline::Logistic { c }, Baseline::LeastSquares, Baseline::Averaging, Baseline::Majority]
    }

    fn mistake(&self) -> Option<Mistake> {
        let valid = self.sharpness.is_finite() && self.sharpness > 0.0;
        (!valid).then_some(("sharpness", "a positive number", self.sharpness))
    }
}
