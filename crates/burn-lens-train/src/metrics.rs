//! What training measured, as JSON lines.

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The step, from 0.
    pub step: usize,
    /// The loss of its batch, before the step.
    pub loss: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The norm of all gradients together, before clipping.
    pub grad_norm: f64,
}

impl Metrics {
    /// The numbers of a step, to twelve digits: what every JSON reader gives back exactly.
    #[must_use]
    pub fn new(step: usize, loss: f64, learning_rate: f64, grad_norm: f64) -> Self {
        let rounded = |x: f64| format!("{x:.11e}").parse().unwrap_or(x);
        Self {
            step,
            loss: rounded(loss),
            learning_rate: rounded(learning_rate),
            grad_norm: rounded(grad_norm),
        }
    }
}

/// The numbers of many steps, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History(Vec<Metrics>);

impl History {
    /// Adds a step's numbers.
    pub fn push(&mut self, metrics: Metrics) {
        self.0.push(metrics);
    }

    /// In order.
    #[must_use]
    pub fn as_slice(&self) -> &[Metrics] {
        &self.0
    }

    /// Without what came at or after `step`: what a run that goes on from there had.
    #[must_use]
    pub fn before(mut self, step: usize) -> Self {
        self.0.retain(|metrics| metrics.step < step);
        self
    }

    /// Means over `window` steps (fewer at the start): `(step, loss)`.
    #[must_use]
    pub fn smoothed(&self, window: usize) -> Vec<(f64, f64)> {
        let mean = |(at, metrics): (usize, &Metrics)| {
            let recent = &self.0[(at + 1).saturating_sub(window.max(1))..=at];
            let loss = recent.iter().map(|metrics| metrics.loss).sum::<f64>() / recent.len() as f64;
            (metrics.step as f64, loss)
        };
        self.0.iter().enumerate().map(mean).collect()
    }

    /// A JSON object for each step, a line each.
    ///
    /// # Errors
    ///
    /// If a number is not finite, which JSON has no word for.
    pub fn to_json_lines(&self) -> Result<String, TrainError> {
        let mut text = String::new();
        for metrics in &self.0 {
            text.push_str(&serde_json::to_string(metrics)?);
            text.push('\n');
        }
        Ok(text)
    }

    /// The inverse of [`History::to_json_lines`].
    ///
    /// # Errors
    ///
    /// If a line is something else.
    pub fn from_json_lines(text: &str) -> Result<Self, TrainError> {
        Ok(Self(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?))
    }
}
