//! Where token sequences come from.

use crate::TrainError;

/// Sequences of one length, and how much each of their tokens counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Rows.
    pub batch: usize,
    /// Tokens in a row.
    pub pos: usize,
    /// `[batch, pos]`, row by row.
    pub tokens: Vec<i64>,
    /// `[batch, pos]`: what predicting **this** token, from those before it, counts in the loss.
    /// 0 leaves it out. The first of a row is never predicted, so its weight is not used.
    pub weights: Vec<f32>,
}

impl Batch {
    /// Checks the lengths, and gives the sum of the weights that are used.
    ///
    /// # Errors
    ///
    /// If a length is wrong, or the weights cannot be averaged over.
    pub(crate) fn check(&self) -> Result<f64, TrainError> {
        let Self { batch, pos, .. } = *self;
        for (what, found) in [("tokens", self.tokens.len()), ("weights", self.weights.len())] {
            if found != batch * pos || found == 0 {
                return Err(TrainError::BatchLength { what, batch, pos, found });
            }
        }
        let used = self.weights.chunks(pos).flat_map(|row| &row[1..]);
        let total: f64 = used.clone().copied().map(f64::from).sum();
        let valid = used.clone().all(|weight| weight.is_finite() && *weight >= 0.0);
        if valid && total > 0.0 { Ok(total) } else { Err(TrainError::BatchWeights) }
    }
}

/// A source of batches.
pub trait Batches {
    /// The batch of a step, from 0. For training to be reproducible it must depend on nothing
    /// but `step` and the source's own seed.
    fn batch(&mut self, step: usize) -> Batch;
}

impl<F: FnMut(usize) -> Batch> Batches for F {
    fn batch(&mut self, step: usize) -> Batch {
        self(step)
    }
}
