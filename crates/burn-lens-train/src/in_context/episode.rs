//! An episode, and how it stands in a sequence of vectors.

use serde::{Deserialize, Serialize};

use crate::{Targets, VectorBatch};

/// A task's examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// `[examples][width]`
    pub x: Vec<Vec<f64>>,
    /// The answer to each: a value, or -1 and 1 for two classes.
    pub y: Vec<f64>,
}

/// What answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answers {
    /// Numbers; the loss is the squared error.
    Values,
    /// Two classes, in the sequence as -1 and 1; the loss is cross-entropy.
    Classes,
}

/// How examples stand in a sequence. A vector is as wide as an `x` and one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `(x₁, 0) (0, y₁) (x₂, 0) (0, y₂) …`: the answer is asked for at every `x`.
    Interleaved,
    /// `(x₁, y₁) (x₂, y₂) … (xₙ, 0)`: the answer is asked for at the last.
    Rows,
}

impl Layout {
    /// How many positions that many examples take.
    #[must_use]
    pub fn positions(self, examples: usize) -> usize {
        match self {
            Self::Interleaved => 2 * examples,
            Self::Rows => examples,
        }
    }

    /// The example and position of each answer that is asked for.
    #[must_use]
    pub fn questions(self, examples: usize) -> Vec<[usize; 2]> {
        match self {
            Self::Interleaved => (0..examples).map(|example| [example, 2 * example]).collect(),
            Self::Rows => vec![[examples - 1, examples - 1]],
        }
    }

    /// An episode as vectors, `[positions · width]`.
    ///
    /// ```
    /// # use burn_lens_train::in_context::{Episode, Layout};
    /// let episode = Episode { x: vec![vec![1.0], vec![2.0]], y: vec![3.0, 4.0] };
    /// assert_eq!(Layout::Interleaved.vectors(&episode), [1.0, 0.0, 0.0, 3.0, 2.0, 0.0, 0.0, 4.0]);
    /// assert_eq!(Layout::Rows.vectors(&episode), [1.0, 3.0, 2.0, 0.0]);
    /// ```
    #[must_use]
    pub fn vectors(self, episode: &Episode) -> Vec<f64> {
        let last = episode.y.len().saturating_sub(1);
        let mut values = Vec::new();
        for (example, (x, &y)) in episode.x.iter().zip(&episode.y).enumerate() {
            values.extend(x);
            match self {
                Self::Interleaved => {
                    values.push(0.0);
                    values.extend(std::iter::repeat_n(0.0, x.len()));
                    values.push(y);
                }
                Self::Rows => values.push(if example == last { 0.0 } else { y }),
            }
        }
        values
    }
}

pub(super) fn batch(episodes: &[Episode], layout: Layout, answers: Answers) -> VectorBatch {
    let examples = episodes.first().map_or(0, |episode| episode.y.len());
    assert!(episodes.iter().all(|episode| episode.y.len() == examples), "episodes of one length");
    let pos = layout.positions(examples);
    let places = episodes.len() * pos;
    let (mut expected, mut weights) = (vec![0.0; places], vec![0.0; places]);
    for (row, episode) in episodes.iter().enumerate() {
        for [example, at] in layout.questions(examples) {
            expected[row * pos + at] = episode.y[example];
            weights[row * pos + at] = 1.0;
        }
    }
    let targets = match answers {
        Answers::Values => Targets::Values(expected),
        Answers::Classes => Targets::Classes(expected.iter().map(|&y| i64::from(y > 0.0)).collect()),
    };
    let inputs = episodes.iter().flat_map(|episode| layout.vectors(episode)).collect();
    VectorBatch { batch: episodes.len(), pos, inputs, targets, weights }
}
