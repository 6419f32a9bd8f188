//! Batches for models without a vocabulary.

use burn::tensor::{Int, Tensor, TensorData};
use burn_lens_hooks::{HookedModel as _, Input, RunOptions};
use burn_lens_models::HookedTransformer;
use burn_lens_tensor::numeric;

use crate::{Objective, TrainError};

/// Sequences of vectors, what should come out, and how much each position counts.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorBatch {
    /// Rows.
    pub batch: usize,
    /// Positions in a row.
    pub pos: usize,
    /// `[batch, pos, d_in]`
    pub inputs: Vec<f64>,
    /// What should come out.
    pub targets: Targets,
    /// `[batch, pos]`: what a position counts in the loss; 0 leaves it out.
    pub weights: Vec<f64>,
}

/// What should come out at each position.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// `[batch, pos, d_out]`: the loss is the squared error, summed over `d_out`.
    Values(Vec<f64>),
    /// `[batch, pos]`, each below `d_out`: the loss is cross-entropy.
    Classes(Vec<i64>),
}

impl VectorBatch {
    fn check(&self, d_in: usize, d_out: usize) -> Result<f64, TrainError> {
        let Self { batch, pos, .. } = *self;
        let places = batch * pos;
        let targets = match &self.targets {
            Targets::Values(values) => ("target values", values.len(), places * d_out),
            Targets::Classes(classes) => ("target classes", classes.len(), places),
        };
        let lengths = [
            ("input values", self.inputs.len(), places * d_in),
            targets,
            ("weights", self.weights.len(), places),
        ];
        for (what, found, expected) in lengths {
            if found != expected || found == 0 {
                return Err(TrainError::VectorLength { what, batch, pos, expected, found });
            }
        }
        if let Targets::Classes(classes) = &self.targets
            && let Some(&class) =
                classes.iter().find(|&&class| usize::try_from(class).map_or(true, |c| c >= d_out))
        {
            return Err(TrainError::Class { class, d_out });
        }
        let total: f64 = self.weights.iter().sum();
        let valid = self.weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0);
        if valid && total > 0.0 { Ok(total) } else { Err(TrainError::BatchWeights) }
    }

    /// The inputs, as a model takes them.
    #[must_use]
    pub fn input(&self, model: &HookedTransformer) -> Input {
        let data = TensorData::new(self.inputs.clone(), [self.batch, self.pos, model.config().dims().d_in]);
        Input::Vectors(Tensor::from_data(data, (&model.device(), model.dtype())))
    }
}

/// The weighted mean over positions of the squared error or the cross-entropy.
impl Objective for VectorBatch {
    fn loss(&self, model: &HookedTransformer) -> Result<Tensor<1>, TrainError> {
        let (d_in, d_out) = (model.dims().d_in, model.dims().d_out);
        let total = self.check(d_in, d_out)?;
        let (batch, pos, device) = (self.batch, self.pos, model.device());
        let output = model.run_with_hooks(&self.input(model), &RunOptions::default(), Vec::new())?;
        let found = output.into_logits()?;
        let place = (&device, found.dtype());
        let each: Tensor<2> = match &self.targets {
            Targets::Values(values) => {
                let expected = TensorData::new(values.clone(), [batch, pos, d_out]);
                (found - Tensor::from_data(expected, place)).square().sum_dim(2).reshape([batch, pos])
            }
            Targets::Classes(classes) => {
                let classes = TensorData::new(classes.clone(), [batch, pos, 1]);
                let classes = Tensor::<3, Int>::from_data(classes, &device);
                -numeric::log_softmax(found).gather(2, classes).reshape([batch, pos])
            }
        };
        let weights = TensorData::new(self.weights.clone(), [batch, pos]);
        let weights = Tensor::<2>::from_data(weights, (&device, each.dtype()));
        Ok((each * weights).sum() / total)
    }
}
