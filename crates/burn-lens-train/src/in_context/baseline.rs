//! What a model in context is compared with.

use burn_lens_linalg::regression::{Loss, classifier, least_squares, ridge};
use serde::{Deserialize, Serialize};

use super::regression::dot;
use crate::TrainError;

/// A way to answer from the examples so far. Answers of two classes are signs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "baseline", rename_all = "snake_case")]
pub enum Baseline {
    /// Ridge regression with this penalty.
    Ridge {
        /// The penalty.
        lambda: f64,
    },
    /// The shortest `w` of least squared error.
    LeastSquares,
    /// `w` = the mean of `y x`.
    Averaging,
    /// The mean of `y`.
    Mean,
    /// Logistic regression, penalised by `|w|² / 2c`.
    Logistic {
        /// What errors cost.
        c: f64,
    },
    /// The answer of the nearest example.
    Nearest,
    /// The more frequent answer.
    Majority,
    /// One number of `x`: what one of several regressions says.
    Column {
        /// Which.
        column: usize,
    },
    /// The number of `x` that was right most closely so far.
    Select,
    /// The mean of `x`.
    Average,
    /// Ridge regression with penalty 1 on top of the regressions, towards their mean.
    Ensemble,
}

impl Baseline {
    /// Its name in results.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Ridge { .. } => "ridge".to_owned(),
            Self::LeastSquares => "least squares".to_owned(),
            Self::Averaging => "averaging".to_owned(),
            Self::Mean => "mean".to_owned(),
            Self::Logistic { .. } => "logistic regression".to_owned(),
            Self::Nearest => "nearest example".to_owned(),
            Self::Majority => "majority".to_owned(),
            Self::Column { column } => format!("regression {column}"),
            Self::Select => "selection".to_owned(),
            Self::Average => "average".to_owned(),
            Self::Ensemble => "ensemble".to_owned(),
        }
    }

    /// The answer to `query` after examples `x` with answers `y`; 0 where there is nothing to
    /// go by.
    ///
    /// # Errors
    ///
    /// If a regression has no solution.
    pub fn predict(self, x: &[Vec<f64>], y: &[f64], query: &[f64]) -> Result<f64, TrainError> {
        let rows: Vec<&[f64]> = x.iter().map(Vec::as_slice).collect();
        if rows.is_empty()
            && !matches!(self, Self::Column { .. } | Self::Average | Self::Select | Self::Ensemble)
        {
            return Ok(0.0);
        }
        let count = y.len().max(1) as f64;
        Ok(match self {
            Self::Ridge { lambda } => dot(&ridge(&rows, y, lambda)?, query),
            Self::LeastSquares => dot(&least_squares(&rows, y)?, query),
            Self::Averaging => x.iter().zip(y).map(|(x, y)| y * dot(x, query)).sum::<f64>() / count,
            Self::Mean => y.iter().sum::<f64>() / count,
            Self::Logistic { c } => {
                let positive: Vec<bool> = y.iter().map(|&y| y > 0.0).collect();
                dot(&classifier(&rows, &positive, c, Loss::Logistic)?, query)
            }
            Self::Nearest => nearest(x, y, query),
            Self::Majority => y.iter().sum::<f64>(),
            Self::Column { column } => query[column],
            Self::Select => query[closest(x, y)],
            Self::Average => mean(query),
            Self::Ensemble => ensemble(x, y, query)?,
        })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The answer of the nearest example, the earliest of those as near.
fn nearest(x: &[Vec<f64>], y: &[f64], query: &[f64]) -> f64 {
    let distance = |x: &[f64]| x.iter().zip(query).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    let by_distance = x.iter().zip(y).min_by(|(a, _), (b, _)| distance(a).total_cmp(&distance(b)));
    by_distance.map_or(0.0, |(_, &y)| y)
}

/// The column of least squared error.
fn closest(x: &[Vec<f64>], y: &[f64]) -> usize {
    let columns = x.first().map_or(1, Vec::len);
    let error = |column: usize| x.iter().zip(y).map(|(x, y)| (x[column] - y).powi(2)).sum::<f64>();
    (0..columns).min_by(|&a, &b| error(a).total_cmp(&error(b))).unwrap_or(0)
}

/// The mean of the columns, and what ridge regression adds to it.
fn ensemble(x: &[Vec<f64>], y: &[f64], query: &[f64]) -> Result<f64, TrainError> {
    if x.is_empty() {
        return Ok(mean(query));
    }
    let rows: Vec<&[f64]> = x.iter().map(Vec::as_slice).collect();
    let rest: Vec<f64> = x.iter().zip(y).map(|(x, y)| y - mean(x)).collect();
    Ok(mean(query) + dot(&ridge(&rows, &rest, 1.0)?, query))
}
