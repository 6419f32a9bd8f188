//! Tasks to be learnt from examples in the context, without a vocabulary.
//!
//! Each row of a batch is an episode: a fresh task, examples of it, and what should be said of
//! each. A model that is trained on many must find the task from the examples.
//!
//! - [`Regression`]: `y = w·x + noise` (Garg et al., 2022)
//! - [`Selection`]: which of several ridge regressions to trust (the model selection of
//!   Ottlik et al.'s notebook)
//! - [`Classification`]: labels drawn from a logistic model
//! - [`Boolean`]: conjunctions, disjunctions, majorities and parities of a few literals
//!   (Bhattamishra et al., 2023)
//!
//! A [`Recipe`] is everything that a run depends on; [`evaluate`] compares a model with every
//! [`Baseline`] on episodes that training never sees.

mod baseline;
mod boolean;
mod classification;
mod curves;
mod episode;
mod model;
mod recipe;
mod regression;
mod selection;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{Batches, TrainError, VectorBatch};

pub use baseline::Baseline;
pub use boolean::{Boolean, Function};
pub use classification::Classification;
pub use curves::{Curve, Curves, evaluate};
pub use episode::{Answers, Episode, Layout};
pub use model::ModelSize;
pub use recipe::Recipe;
pub use regression::Regression;
pub use selection::Selection;

/// A kind of task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "lowercase")]
pub enum Problem {
    /// `y = w·x + noise`
    Regression(Regression),
    /// Which ridge regression to trust.
    Selection(Selection),
    /// Labels of a logistic model.
    Classification(Classification),
    /// Functions of signs.
    Boolean(Boolean),
}

/// What each kind of task says of itself.
pub(crate) trait Family {
    /// How many numbers an example's `x` has.
    fn width(&self) -> usize;
    /// How many examples an episode has.
    fn examples(&self) -> usize;
    /// How they stand in a sequence.
    fn layout(&self) -> Layout;
    /// What answers are.
    fn answers(&self) -> Answers;
    /// A fresh task and its examples.
    fn episode(&self, rng: &mut ChaCha8Rng) -> Result<Episode, TrainError>;
    /// What to compare with, best first.
    fn baselines(&self) -> Vec<Baseline>;
    /// The first setting that makes no sense.
    fn mistake(&self) -> Option<Mistake>;
}

/// A setting that makes no sense: its name, what it may be, and what it is.
pub(crate) type Mistake = (&'static str, &'static str, f64);

impl Problem {
    fn family(&self) -> &dyn Family {
        match self {
            Self::Regression(family) => family,
            Self::Selection(family) => family,
            Self::Classification(family) => family,
            Self::Boolean(family) => family,
        }
    }

    /// Checks its settings.
    ///
    /// # Errors
    ///
    /// Names the first that makes no sense.
    pub fn check(&self) -> Result<(), TrainError> {
        const EXAMPLES: &str = "2 to 4096";
        let family = self.family();
        let sizes = [("examples", family.examples(), 2), ("dimensions", family.width(), 1)];
        for (key, size, least) in sizes {
            if !(least..=4096).contains(&size) {
                let expected = if least == 2 { EXAMPLES } else { "1 to 4096" };
                return Err(TrainError::Config { key, expected, found: size as f64 });
            }
        }
        match family.mistake() {
            None => Ok(()),
            Some((key, expected, found)) => Err(TrainError::Config { key, expected, found }),
        }
    }

    /// How its examples stand in a sequence.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.family().layout()
    }

    /// What its answers are.
    #[must_use]
    pub fn answers(&self) -> Answers {
        self.family().answers()
    }

    /// How many positions a sequence has.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.layout().positions(self.family().examples())
    }

    /// How many examples an episode has.
    #[must_use]
    pub fn examples(&self) -> usize {
        self.family().examples()
    }

    /// The width of an input vector.
    #[must_use]
    pub fn d_in(&self) -> usize {
        self.family().width() + 1
    }

    /// The width of an output vector.
    #[must_use]
    pub fn d_out(&self) -> usize {
        match self.answers() {
            Answers::Values => 1,
            Answers::Classes => 2,
        }
    }

    /// What to compare a model with.
    #[must_use]
    pub fn baselines(&self) -> Vec<Baseline> {
        self.family().baselines()
    }

    /// Episode `number` of a seed; numbers count up from 0 and are independent of each other.
    ///
    /// # Errors
    ///
    /// If a regression in it has no solution.
    pub fn episode(&self, seed: u64, number: u64) -> Result<Episode, TrainError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        self.family().episode(&mut rng)
    }

    /// Episodes as a batch.
    ///
    /// # Panics
    ///
    /// If an episode is not one of this problem's.
    #[must_use]
    pub fn batch(&self, episodes: &[Episode]) -> VectorBatch {
        episode::batch(episodes, self.layout(), self.answers())
    }
}

/// Where the numbers of episodes start that training does not reach.
const HELD_OUT: u64 = 1 << 63;

/// Episodes that training never sees: those of [`Problem::episode`] from far up.
///
/// # Errors
///
/// If a regression in one has no solution.
pub fn held_out(problem: &Problem, seed: u64, count: usize) -> Result<Vec<Episode>, TrainError> {
    (0..count).map(|number| held_out_episode(problem, seed, number)).collect()
}

/// One of [`held_out`], by its number.
///
/// # Errors
///
/// If a regression in it has no solution.
pub fn held_out_episode(problem: &Problem, seed: u64, number: usize) -> Result<Episode, TrainError> {
    problem.episode(seed, HELD_OUT.saturating_add(number as u64))
}

/// Batches of fresh episodes.
#[derive(Clone, Debug)]
pub struct Episodes {
    problem: Problem,
    seed: u64,
    rows: usize,
}

impl Episodes {
    /// Batches of `rows` episodes of `problem`, drawn from a seed.
    ///
    /// # Errors
    ///
    /// If a setting of the problem makes no sense, or episodes cannot be drawn.
    pub fn new(problem: &Problem, seed: u64, rows: usize) -> Result<Self, TrainError> {
        problem.check()?;
        if rows == 0 {
            return Err(TrainError::Config { key: "batch", expected: "at least 1", found: 0.0 });
        }
        problem.episode(seed, 0)?;
        Ok(Self { problem: problem.clone(), seed, rows })
    }
}

impl Batches for Episodes {
    type Batch = VectorBatch;

    fn batch(&mut self, step: usize) -> VectorBatch {
        let first = (step * self.rows) as u64;
        let numbers = first..first + self.rows as u64;
        // What `check` lets through draws from continuous distributions and regularised fits.
        let episodes: Vec<Episode> =
            numbers.filter_map(|number| self.problem.episode(self.seed, number).ok()).collect();
        self.problem.batch(&episodes)
    }
}
