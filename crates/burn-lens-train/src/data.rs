//! Where batches come from, and what they cost.

use burn::tensor::{Int, Tensor, TensorData};
use burn_lens_hooks::{HookedModel as _, Input, ReturnType, RunError, RunOptions};
use burn_lens_models::HookedTransformer;

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

/// What a batch costs a model.
pub trait Objective {
    /// The loss `[1]`, tracked as far as the model's weights are.
    ///
    /// # Errors
    ///
    /// If the batch does not fit itself or the model.
    fn loss(&self, model: &HookedTransformer) -> Result<Tensor<1>, TrainError>;
}

/// The weighted mean of next-token cross-entropy.
impl Objective for Batch {
    fn loss(&self, model: &HookedTransformer) -> Result<Tensor<1>, TrainError> {
        let total = self.check()?;
        let Self { batch, pos, .. } = *self;
        let device = model.device();
        let tokens = TensorData::new(self.tokens.clone(), [batch, pos]);
        let input = Input::Tokens(Tensor::<2, Int>::from_data(tokens, &device));
        let options = RunOptions { loss_per_token: true, ..RunOptions::returning(ReturnType::None) };
        let output = model.run_with_hooks(&input, &options, Vec::new())?;
        let missing = || RunError::Options("the run gave no loss per token".to_owned());
        let per_token = output.loss_per_token.ok_or_else(missing)?;
        let weights = TensorData::new(self.weights.clone(), [batch, pos]);
        let weights = Tensor::<2>::from_data(weights, (&device, per_token.dtype())).narrow(1, 1, pos - 1);
        Ok((per_token * weights).sum() / total)
    }
}

/// A source of batches.
pub trait Batches {
    /// What a batch is.
    type Batch: Objective;

    /// The batch of a step, from 0. For training to be reproducible, and to go on after an
    /// interruption, it must depend on nothing but `step` and the source's own seed.
    fn batch(&mut self, step: usize) -> Self::Batch;
}

impl<B: Objective, F: FnMut(usize) -> B> Batches for F {
    type Batch = B;

    fn batch(&mut self, step: usize) -> B {
        self(step)
    }
}
