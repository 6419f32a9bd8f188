//! Model selection: which of several ridge regressions to trust.

use burn_lens_linalg::regression::ridge;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{
    Answers, Baseline, Episode, Family, Layout, Mistake,
    regression::{dot, normals},
};
use crate::TrainError;

/// Which of several ridge regressions to trust.
///
/// An episode draws `α` from `alphas`, `w` standard normal, and `fitted + examples` points
/// `y = w·x + 0.8 α ε`. A ridge regression with each of the `alphas` is fitted on the first
/// `fitted` points; the examples are the others, and an example's `x` is what each regression
/// says of it: `(ŷ_α₁, ŷ_α₂, …)`. In rows, as in the notebook, `y` stands behind it, and the last
/// is to be told.
///
/// Source: `data_gen.py` of modelSelectInterp (Ottlik, 2023), where `fitted` is a share of the
/// points of a whole data set; here each task has its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// The penalties of the regressions, and the scales of noise.
    pub alphas: Vec<f64>,
    /// How long a point is.
    pub dimensions: usize,
    /// Points that the regressions are fitted on.
    pub fitted: usize,
    /// Examples in an episode.
    pub examples: usize,
    /// How they stand in a sequence; in rows, as in the notebook, or in turn.
    pub layout: Layout,
}

impl Default for Selection {
    fn default() -> Self {
        Self { alphas: vec![0.1, 0.8], dimensions: 5, fitted: 10, examples: 21, layout: Layout::Rows }
    }
}

/// How much noise a unit of `α` is.
const NOISE: f64 = 0.8;

impl Selection {
    fn points(&self, count: usize, w: &[f64], alpha: f64, rng: &mut ChaCha8Rng) -> (Vec<Vec<f64>>, Vec<f64>) {
        let x: Vec<Vec<f64>> = (0..count).map(|_| normals(self.dimensions, rng)).collect();
        let y = x.iter().map(|x| dot(x, w) + NOISE * alpha * normals(1, rng)[0]).collect();
        (x, y)
    }
}

impl Family for Selection {
    fn width(&self) -> usize {
        self.alphas.len()
    }

    fn examples(&self) -> usize {
        self.examples
    }

    fn layout(&self) -> Layout {
        self.layout
    }

    fn answers(&self) -> Answers {
        Answers::Values
    }

    fn episode(&self, rng: &mut ChaCha8Rng) -> Result<Episode, TrainError> {
        let alpha = *self.alphas.choose(rng).unwrap_or(&0.0);
        let w = normals(self.dimensions, rng);
        let (x, y) = self.points(self.fitted, &w, alpha, rng);
        let rows: Vec<&[f64]> = x.iter().map(Vec::as_slice).collect();
        let fitted =
            self.alphas.iter().map(|&lambda| ridge(&rows, &y, lambda)).collect::<Result<Vec<_>, _>>()?;
        let (x, y) = self.points(self.examples, &w, alpha, rng);
        let said = |x: &Vec<f64>| fitted.iter().map(|w| dot(w, x)).collect();
        Ok(Episode { x: x.iter().map(said).collect(), y })
    }

    fn baselines(&self) -> Vec<Baseline> {
        let each = (0..self.alphas.len()).map(|column| Baseline::Column { column });
        let mut all = vec![Baseline::Ensemble, Baseline::Select, Baseline::Average];
        all.extend(each);
        all
    }

    fn mistake(&self) -> Option<Mistake> {
        let bad = self.alphas.iter().find(|alpha| !(alpha.is_finite() && **alpha > 0.0));
        if let Some(&alpha) = bad {
            return Some(("alphas", "positive numbers", alpha));
        }
        let sizes = [("dimensions", self.dimensions), ("fitted", self.fitted)];
        let bad = sizes.into_iter().find(|(_, size)| !(1..=4096).contains(size));
        bad.map(|(key, size)| (key, "1 to 4096", size as f64))
    }
}
