//! What tells clusters apart, by a linear classifier.

use burn_lens_linalg::regression::{Loss, classifier};
use serde::Serialize;

use super::Rows;
use crate::AnalysisError;

/// A linear support vector machine of squared hinge loss for each class against the rest, as
/// scikit-learn's `LinearSVC`: `C` = 1, and an intercept that is penalised like a weight.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinearExplanation {
    /// `[classes][width]`; of two classes one row, for class 1.
    pub coefficients: Vec<Vec<f64>>,
    /// One for each row of coefficients.
    pub intercepts: Vec<f64>,
    /// The share of rows that it puts into their own class.
    pub accuracy: f64,
}

impl LinearExplanation {
    /// Fits it to tell the labels of rows apart.
    ///
    /// # Errors
    ///
    /// If there are not as many labels as rows, or all rows are of one class.
    pub fn fit(rows: &Rows, labels: &[usize]) -> Result<Self, AnalysisError> {
        let refuse = |reason: String| AnalysisError::Refused { what: "the linear explanation", reason };
        if labels.len() != rows.len() {
            return Err(refuse(format!("{} labels do not fit {} rows", labels.len(), rows.len())));
        }
        let mut classes = labels.to_vec();
        classes.sort_unstable();
        classes.dedup();
        let [_, second, ..] = classes[..] else {
            return Err(refuse(format!("all {} rows are of one class", rows.len())));
        };
        let fitted = if classes.len() == 2 { vec![second] } else { classes.clone() };
        let with_one: Vec<Vec<f64>> = rows.iter().map(|row| [row, &[1.0]].concat()).collect();
        let with_one: Vec<&[f64]> = with_one.iter().map(Vec::as_slice).collect();
        let (mut coefficients, mut intercepts) = (Vec::new(), Vec::new());
        for class in fitted {
            let positive: Vec<bool> = labels.iter().map(|&label| label == class).collect();
            let fit = classifier(&with_one, &positive, 1.0, Loss::SquaredHinge);
            let mut w = fit.map_err(|error| refuse(error.to_string()))?;
            intercepts.push(w.pop().unwrap_or(0.0));
            coefficients.push(w);
        }
        let mut found = Self { coefficients, intercepts, accuracy: 0.0 };
        let right = rows.iter().zip(labels).filter(|(row, label)| classes[found.class(row)] == **label);
        found.accuracy = right.count() as f64 / rows.len() as f64;
        Ok(found)
    }

    /// The index of the class that a row is put into, among those that occur.
    fn class(&self, row: &[f64]) -> usize {
        let scores: Vec<f64> = self
            .coefficients
            .iter()
            .zip(&self.intercepts)
            .map(|(w, b)| w.iter().zip(row).map(|(w, x)| w * x).sum::<f64>() + b)
            .collect();
        match scores[..] {
            [one] => usize::from(one > 0.0),
            _ => (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0),
        }
    }
}
