//! A pattern over interleaved examples, in four parts.

use serde::{Deserialize, Serialize};

use super::Rows;
use crate::AnalysisError;

/// What a position of `x₁ y₁ x₂ y₂ …` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// An input.
    X,
    /// A target.
    Y,
}

impl Role {
    /// Both, in the order of a sequence.
    pub const ALL: [Self; 2] = [Self::X, Self::Y];

    /// The position of an example's input or target.
    #[must_use]
    pub fn position(self, example: usize) -> usize {
        2 * example + usize::from(self == Self::Y)
    }
}

/// One head's pattern on one sequence of `n` examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Quadrants {
    /// `[2n · 2n]`
    pattern: Vec<f64>,
    n: usize,
}

impl Quadrants {
    /// A pattern `[2n · 2n]`, queries by keys.
    ///
    /// # Errors
    ///
    /// If it is not square with an even side.
    pub fn new(pattern: Vec<f64>) -> Result<Self, AnalysisError> {
        let side = pattern.len().isqrt();
        if side * side != pattern.len() || side == 0 || side % 2 == 1 {
            let expected = "[2n, 2n]: x and y in turn".to_owned();
            return Err(AnalysisError::Shape { what: "the pattern", expected, found: vec![pattern.len()] });
        }
        Ok(Self { pattern, n: side / 2 })
    }

    /// How many examples.
    #[must_use]
    pub fn examples(&self) -> usize {
        self.n
    }

    /// The whole pattern `[2n · 2n]`.
    #[must_use]
    pub fn pattern(&self) -> &[f64] {
        &self.pattern
    }

    /// The part `[n · n]` of one kind of query and one kind of key.
    #[must_use]
    pub fn part(&self, query: Role, key: Role) -> Vec<f64> {
        let side = 2 * self.n;
        let at = |q: usize, k: usize| self.pattern[query.position(q) * side + key.position(k)];
        (0..self.n).flat_map(|q| (0..self.n).map(move |k| at(q, k))).collect()
    }

    /// The rows `[n, 2n]` of one kind of query: each a distribution over all keys.
    ///
    /// # Errors
    ///
    /// If a value is not finite.
    pub fn rows(&self, query: Role) -> Result<Rows, AnalysisError> {
        let side = 2 * self.n;
        let row = |q: usize| &self.pattern[query.position(q) * side..(query.position(q) + 1) * side];
        Rows::new((0..self.n).flat_map(|q| row(q).iter().copied()).collect(), side)
    }
}
