//! Steering vectors: directions of the stream that lead from one kind of text to another.

use burn::tensor::{Int, Tensor, TensorData};
use burn_lens_hooks::{CacheOptions, HookPoint, HookedModel, Input, ReturnType, RunOptions};
use burn_lens_tensor::AnyTensor;

use super::{Edit, Intervention, Values};
use crate::AnalysisError;

/// A direction of the stream at one hook.
#[derive(Clone, Debug)]
pub struct SteeringVector {
    /// Where it was fitted, and is added.
    pub at: HookPoint,
    /// `[d_model]`
    pub vector: Tensor<1>,
}

/// Which positions of a text a steering vector is fitted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SteeringPos {
    /// The last token.
    #[default]
    Last,
    /// The mean over the text.
    Mean,
}

impl SteeringVector {
    /// The mean activation of the first texts less that of the second: as many of each as there are.
    ///
    /// Source: Marks & Tegmark (2023), `The geometry of truth` (mass-mean probing).
    ///
    /// # Errors
    ///
    /// If a list is empty, or the model does not fire the hook with `d_model` entries.
    pub fn mean_difference<M: HookedModel + ?Sized>(
        model: &M,
        at: HookPoint,
        [positive, negative]: [&[Vec<i64>]; 2],
        pos: SteeringPos,
    ) -> Result<Self, AnalysisError> {
        let (positive, negative) = (vectors(model, at, positive, pos)?, vectors(model, at, negative, pos)?);
        let mean = |x: Tensor<2>| -> Tensor<1> {
            let width = x.dims()[1];
            x.mean_dim(0).reshape([width])
        };
        Ok(Self { at, vector: mean(positive) - mean(negative) })
    }

    /// The mean over pairs of texts of the difference between them, each of length 1 before: a pair
    /// whose texts lie far apart counts no more than others.
    ///
    /// Source: Rimsky et al. (2023), `Steering Llama 2 via contrastive activation addition`, whose
    /// differences are not scaled: without pairs to weigh, that is [`SteeringVector::mean_difference`].
    ///
    /// # Errors
    ///
    /// As there, or if the lists are of different lengths.
    pub fn contrastive<M: HookedModel + ?Sized>(
        model: &M,
        at: HookPoint,
        [positive, negative]: [&[Vec<i64>]; 2],
        pos: SteeringPos,
    ) -> Result<Self, AnalysisError> {
        if positive.len() != negative.len() {
            return Err(AnalysisError::Shape {
                what: "the negative texts of pairs",
                expected: format!("[{}], one for each positive text", positive.len()),
                found: vec![negative.len()],
            });
        }
        let (positive, negative) = (vectors(model, at, positive, pos)?, vectors(model, at, negative, pos)?);
        let differences = positive - negative;
        let width = differences.dims()[1];
        let length = (differences.clone() * differences.clone()).sum_dim(1).sqrt();
        let mean_length = length.clone().mean_dim(0);
        // A pair without a difference has no direction.
        let units = differences / length.clamp_min(f64::from(f32::MIN_POSITIVE));
        Ok(Self { at, vector: (units.mean_dim(0) * mean_length).reshape([width]) })
    }

    /// Its length.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn norm(&self) -> Result<f64, AnalysisError> {
        let squares = crate::error::to_host((self.vector.clone() * self.vector.clone()).sum())?;
        Ok(squares[0].sqrt())
    }

    /// Adds it, times `factor`, at every position.
    #[must_use]
    pub fn intervention(&self, factor: f64) -> Intervention {
        let vector: Tensor<3> = self.vector.clone().unsqueeze();
        Intervention::new(self.at, Edit::Add(Values::Tensor(AnyTensor::from(vector)), factor))
    }
}

/// One vector for each text, `[text, d_model]`; texts are run one by one, so none is padded.
fn vectors<M: HookedModel + ?Sized>(
    model: &M,
    at: HookPoint,
    texts: &[Vec<i64>],
    pos: SteeringPos,
) -> Result<Tensor<2>, AnalysisError> {
    if texts.is_empty() || texts.iter().any(Vec::is_empty) {
        let reason = "a steering vector needs at least one text of each kind, none of them empty".to_owned();
        return Err(AnalysisError::Empty { what: "the list of texts", reason });
    }
    let d_model = model.dims().d_model;
    let options = RunOptions::returning(ReturnType::None);
    let mut rows = Vec::new();
    for ids in texts {
        let tokens =
            Tensor::<2, Int>::from_data(TensorData::new(ids.clone(), [1, ids.len()]), &model.device());
        let cache = model.run_with_cache(&Input::Tokens(tokens), &options, &CacheOptions::names([at]))?.1;
        let x: Tensor<3> = cache.tensor(at)?;
        let [_, len, width] = x.dims();
        if width != d_model {
            return Err(AnalysisError::Shape {
                what: "the activation that is steered",
                expected: format!("[batch, pos, {d_model}]"),
                found: x.dims().to_vec(),
            });
        }
        rows.push(match pos {
            SteeringPos::Last => x.narrow(1, len - 1, 1).reshape([1, width]),
            SteeringPos::Mean => x.mean_dim(1).reshape([1, width]),
        });
    }
    Ok(Tensor::cat(rows, 0))
}
