//! How wrong a model and its baselines are, by the number of examples.

use burn_lens_hooks::{HookedModel as _, RunOptions};
use burn_lens_models::HookedTransformer;
use serde::{Deserialize, Serialize};

use super::{Answers, Episode, Problem, held_out};
use crate::TrainError;

/// Errors on held-out episodes, by the number of examples before the question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// What an error is: `squared error` or `error rate`.
    pub measure: String,
    /// Episodes that the means are over.
    pub episodes: usize,
    /// How many examples came before each question.
    pub examples: Vec<usize>,
    /// The model, then each baseline.
    pub curves: Vec<Curve>,
}

/// One line of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// `model`, or the baseline's name.
    pub name: String,
    /// The mean error at each question.
    pub errors: Vec<f64>,
}

impl Curves {
    /// The error of `name` after all examples.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<f64> {
        self.curves.iter().find(|curve| curve.name == name)?.errors.last().copied()
    }
}

/// Rows of one run.
const ROWS: usize = 128;

/// Compares a model with the baselines on `count` held-out episodes of a seed.
///
/// # Errors
///
/// If the model cannot run on the problem's vectors, or a regression has no solution.
pub fn evaluate(
    model: &HookedTransformer,
    problem: &Problem,
    seed: u64,
    count: usize,
) -> Result<Curves, TrainError> {
    let episodes = held_out(problem, seed, count)?;
    let questions = problem.layout().questions(problem.examples());
    let mut of_model = Vec::new();
    for episodes in episodes.chunks(ROWS) {
        of_model.extend(answers(model, problem, episodes)?);
    }
    let mut curves = vec![curve("model".to_owned(), problem, &episodes, &of_model)];
    for baseline in problem.baselines() {
        let mut said = Vec::new();
        for Episode { x, y } in &episodes {
            for &[example, _] in &questions {
                said.push(baseline.predict(&x[..example], &y[..example], &x[example])?);
            }
        }
        curves.push(curve(baseline.name(), problem, &episodes, &said));
    }
    let measure = match problem.answers() {
        Answers::Values => "squared error",
        Answers::Classes => "error rate",
    };
    let examples = questions.iter().map(|&[example, _]| example).collect();
    Ok(Curves { measure: measure.to_owned(), episodes: count, examples, curves })
}

/// What the model says at each question: a value, or by how much class 1 is ahead.
fn answers(
    model: &HookedTransformer,
    problem: &Problem,
    episodes: &[Episode],
) -> Result<Vec<f64>, TrainError> {
    let batch = problem.batch(episodes);
    let output = model.run_with_hooks(&batch.input(model), &RunOptions::default(), Vec::new())?;
    let values = output.into_logits()?.try_to_vec_as::<f64>();
    let values = values.map_err(|error| TrainError::Device(format!("{error:?}")))?;
    let d_out = problem.d_out();
    let mut said = Vec::new();
    for row in 0..episodes.len() {
        for [_, at] in problem.layout().questions(problem.examples()) {
            let place = (row * batch.pos + at) * d_out;
            said.push(match problem.answers() {
                Answers::Values => values[place],
                Answers::Classes => values[place + 1] - values[place],
            });
        }
    }
    Ok(said)
}

/// Means over episodes of how wrong `said` (by episode, then question) is. Of two classes a
/// tie is half wrong.
fn curve(name: String, problem: &Problem, episodes: &[Episode], said: &[f64]) -> Curve {
    let questions = problem.layout().questions(problem.examples());
    let mut errors = vec![0.0; questions.len()];
    for (episode, said) in episodes.iter().zip(said.chunks(questions.len())) {
        for ((error, &[example, _]), said) in errors.iter_mut().zip(&questions).zip(said) {
            let y = episode.y[example];
            *error += match problem.answers() {
                Answers::Values => (said - y) * (said - y),
                Answers::Classes if *said == 0.0 => 0.5,
                Answers::Classes => f64::from(u8::from(said.signum() != y.signum())),
            };
        }
    }
    for error in &mut errors {
        *error /= episodes.len().max(1) as f64;
    }
    Curve { name, errors }
}
