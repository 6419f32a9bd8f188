//! Activations of a model in random order.

use burn::tensor::{Int, Tensor, TensorData};
use burn_lens_hooks::{CacheOptions, HookPoint, HookedModel, Input, ReturnType, RunOptions};
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::{Batch, TrainError};

/// A pool of activations: filled from a model, shuffled, handed out to half, and filled again, so
/// that neighbours in a text are far apart.
pub struct ActivationBuffer<'a> {
    model: &'a dyn HookedModel,
    hook: HookPoint,
    text: Box<dyn FnMut(usize) -> Batch + 'a>,
    /// How many vectors it holds when it is full.
    capacity: usize,
    pool: Vec<Vec<f32>>,
    n_batches: usize,
    rng: ChaCha8Rng,
}

impl<'a> ActivationBuffer<'a> {
    /// A buffer of up to about `capacity` vectors of one activation. `text` gives batch after batch.
    /// The first position of each row is left out: what a model has there is of another kind.
    pub fn new(
        model: &'a dyn HookedModel,
        hook: HookPoint,
        text: impl FnMut(usize) -> Batch + 'a,
        (capacity, seed): (usize, u64),
    ) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { model, hook, text: Box::new(text), capacity, pool: Vec::new(), n_batches: 0, rng }
    }

    /// `n` vectors, `[n, d]`.
    ///
    /// # Errors
    ///
    /// If the model or the device fails.
    pub fn take(&mut self, n: usize) -> Result<Tensor<2>, TrainError> {
        if self.pool.len() < (self.capacity / 2).max(n) {
            self.fill(n)?;
        }
        let taken = self.pool.split_off(self.pool.len() - n);
        let d = taken.first().map_or(0, Vec::len);
        Ok(Tensor::from_data(TensorData::new(taken.concat(), [n, d]), &self.model.device()))
    }

    /// The mean norm of the vectors that it holds now.
    ///
    /// # Errors
    ///
    /// As [`ActivationBuffer::take`].
    pub fn mean_norm(&mut self) -> Result<f64, TrainError> {
        if self.pool.is_empty() {
            self.fill(1)?;
        }
        let norm = |vector: &Vec<f32>| vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        Ok(self.pool.iter().map(norm).sum::<f64>() / self.pool.len() as f64)
    }

    fn fill(&mut self, least: usize) -> Result<(), TrainError> {
        while self.pool.len() < self.capacity.max(least) {
            let batch = (self.text)(self.n_batches);
            self.n_batches += 1;
            self.add(&batch)?;
        }
        self.pool.shuffle(&mut self.rng);
        Ok(())
    }

    fn add(&mut self, batch: &Batch) -> Result<(), TrainError> {
        batch.check()?;
        let tokens = TensorData::new(batch.tokens.clone(), [batch.batch, batch.pos]);
        let input = Input::Tokens(Tensor::<2, Int>::from_data(tokens, &self.model.device()));
        let options = RunOptions::returning(ReturnType::None);
        let cache = CacheOptions::names([self.hook]);
        let (_, cache) = self.model.run_with_cache(&input, &options, &cache)?;
        let values = cache.get(self.hook)?.into_data();
        let values = values.map_err(|error| TrainError::Device(error.to_string()))?;
        let values: Vec<f32> = values.iter().collect();
        let d = values.len() / (batch.batch * batch.pos);
        let rows = values.chunks_exact(d).enumerate();
        self.pool.extend(rows.filter(|(at, _)| at % batch.pos > 0).map(|(_, row)| row.to_vec()));
        Ok(())
    }
}

impl std::fmt::Debug for ActivationBuffer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActivationBuffer")
            .field("hook", &self.hook)
            .field("held", &self.pool.len())
            .finish_non_exhaustive()
    }
}
