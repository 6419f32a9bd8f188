//! The training loop.

use burn::{
    optim::AdamW,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

use super::{SaeConfig, SaeWeights, loss::Loss};
use crate::{TrainError, leaf::Leaf, trainable::read};

/// A sparse autoencoder in training.
#[derive(Clone)]
pub struct SaeTrainer {
    config: SaeConfig,
    w_enc: Leaf<2>,
    w_dec: Leaf<2>,
    b_enc: Leaf<1>,
    b_dec: Leaf<1>,
    optimizer: AdamW,
    step: usize,
    /// For how many steps each feature has not been active.
    silent: Vec<usize>,
}

/// How one step went. All numbers are of its batch, before the step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SaeStep {
    /// The step, from 0.
    pub step: usize,
    /// The loss.
    pub loss: f64,
    /// `mean ‖x̂ − x‖²`
    pub squared_error: f64,
    /// `1 − E‖x − x̂‖² / (E‖x‖² − ‖E x‖²)`
    pub explained_variance: f64,
    /// How many features are active at a vector, on average.
    pub l0: f64,
    /// How many features are dead.
    pub n_dead: usize,
    /// The learning rate.
    pub rate: f64,
}

impl SaeTrainer {
    /// Starts from given weights, on their device.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense.
    pub fn new(config: &SaeConfig, initial: SaeWeights) -> Result<Self, TrainError> {
        config.check()?;
        let [optimizer, _] = config.training.optimizers();
        Ok(Self {
            w_enc: Leaf::new(initial.w_enc),
            w_dec: Leaf::new(initial.w_dec),
            b_enc: Leaf::new(initial.b_enc),
            b_dec: Leaf::new(initial.b_dec),
            optimizer,
            step: 0,
            silent: vec![0; config.d_sae],
            config: config.clone(),
        })
    }

    /// Takes one step on vectors.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, d_in]`
    ///
    /// # Errors
    ///
    /// If the loss is no longer a number; the weights are then as they were.
    pub fn step(&mut self, x: Tensor<2>) -> Result<SaeStep, TrainError> {
        let x = x.without_autodiff().autodiff();
        let dead = self.dead();
        let loss = Loss::of(&self.config, &self.tracked(), &x, (self.step, &dead));
        let grads = loss.total.clone().backward();
        let squares = [self.w_enc.squares(&grads), self.w_dec.squares(&grads)].into_iter();
        let squares = squares.chain([self.b_enc.squares(&grads), self.b_dec.squares(&grads)]);
        let norm = squares.flatten().reduce(|sum, next| sum + next).map_or(Ok(0.0), read)?.sqrt();
        let total = read(loss.total.clone())?;
        if !(total.is_finite() && norm.is_finite()) {
            return Err(TrainError::Diverged { step: self.step, loss: total });
        }
        let told = self.told(&loss, x, total)?;
        let clip = self.config.training.clip_norm.filter(|&most| norm > most);
        let by = (&grads, clip.map_or(1.0, |most| most / norm));
        self.w_enc.step(&self.optimizer, told.rate, by);
        self.w_dec.step(&self.optimizer, told.rate, by);
        self.b_enc.step(&self.optimizer, told.rate, by);
        self.b_dec.step(&self.optimizer, told.rate, by);
        self.step += 1;
        Ok(told)
    }

    /// What to say of a step, and which features were active in it.
    fn told(&mut self, loss: &Loss, x: Tensor<2>, total: f64) -> Result<SaeStep, TrainError> {
        let x = x.without_autodiff();
        let active = loss.codes.clone().without_autodiff().greater_elem(0.0).float();
        let squared_error =
            read(super::loss::squared_error(&loss.reconstruction.clone().without_autodiff(), &x))?;
        let mean_square = read(x.clone().square().sum_dim(1).mean())?;
        let square_mean = read(x.mean_dim(0).square().sum())?;
        let counts =
            active.sum_dim(0).try_into_data().map_err(|error| TrainError::Device(format!("{error:?}")))?;
        let batch = loss.codes.dims()[0] as f64;
        let mut n_active = 0.0;
        for (silent, count) in self.silent.iter_mut().zip(counts.iter::<f64>()) {
            *silent = if count > 0.0 { 0 } else { *silent + 1 };
            n_active += count;
        }
        let n_dead = self.dead().into_iter().filter(|&dead| dead).count();
        Ok(SaeStep {
            step: self.step,
            loss: total,
            squared_error,
            explained_variance: 1.0 - squared_error / (mean_square - square_mean).max(f64::MIN_POSITIVE),
            l0: n_active / batch,
            n_dead,
            rate: self.config.training.rate(self.step),
        })
    }

    fn dead(&self) -> Vec<bool> {
        self.silent.iter().map(|&silent| silent >= self.config.dead_after.max(1)).collect()
    }

    fn tracked(&self) -> SaeWeights {
        SaeWeights {
            w_enc: self.w_enc.value.clone(),
            b_enc: self.b_enc.value.clone(),
            w_dec: self.w_dec.value.clone(),
            b_dec: self.b_dec.value.clone(),
        }
    }

    /// The weights as they are now, cut off from autodiff.
    #[must_use]
    pub fn weights(&self) -> SaeWeights {
        let SaeWeights { w_enc, b_enc, w_dec, b_dec } = self.tracked();
        SaeWeights {
            w_enc: w_enc.without_autodiff(),
            b_enc: b_enc.without_autodiff(),
            w_dec: w_dec.without_autodiff(),
            b_dec: b_dec.without_autodiff(),
        }
    }
}

impl std::fmt::Debug for SaeTrainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaeTrainer")
            .field("config", &self.config)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

/// Trains a sparse autoencoder from fresh weights. `data` gives the vectors of a step, `[batch, d_in]`.
///
/// # Errors
///
/// As [`SaeTrainer::new`] and [`SaeTrainer::step`], or if `data` fails.
pub fn train_sae(
    config: &SaeConfig,
    device: &Device,
    data: &mut dyn FnMut(usize) -> Result<Tensor<2>, TrainError>,
    observer: &mut dyn FnMut(&SaeStep),
) -> Result<SaeWeights, TrainError> {
    let initial = SaeWeights::random(config.d_in, config.d_sae, config.training.seed, device);
    let mut trainer = SaeTrainer::new(config, initial)?;
    for step in 0..config.training.steps {
        observer(&trainer.step(data(step)?)?);
    }
    Ok(trainer.weights())
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use burn_lens_tensor::DeviceSpec;

    use super::*;
    use crate::{TrainConfig, sae::Sparsity};

    const D_IN: usize = 8;

    fn config(sparsity: Sparsity, steps: usize) -> SaeConfig {
        let training = TrainConfig {
            steps,
            learning_rate: 1e-2,
            warmup_steps: 10,
            beta_2: 0.999,
            ..TrainConfig::default()
        };
        SaeConfig { d_in: D_IN, d_sae: 12, sparsity, dead_after: 20, training }
    }

    fn device() -> Device {
        DeviceSpec::cpu().open().unwrap()
    }

    /// Sums of two of `D_IN` directions at right angles.
    #[expect(clippy::unnecessary_wraps, reason = "the trainer takes data that can fail")]
    fn data(step: usize) -> Result<Tensor<2>, TrainError> {
        let mut values = vec![0.0_f32; 64 * D_IN];
        for (row, values) in values.chunks_mut(D_IN).enumerate() {
            let at = step * 64 + row;
            values[at % D_IN] += 2.0 + (at % 5) as f32 / 5.0;
            values[(at / D_IN * 3 + at + 1) % D_IN] += 1.5 + (at % 3) as f32 / 3.0;
        }
        Ok(Tensor::from_data(TensorData::new(values, [64, D_IN]), &device()))
    }

    /// How near the decoder's rows come to each true direction, at worst.
    fn recovered(weights: &SaeWeights) -> f64 {
        let values: Vec<f64> = weights.folded(1.0).w_dec.into_data().iter().collect();
        let best = |at: usize| values.chunks(D_IN).map(|row| row[at]).fold(f64::NEG_INFINITY, f64::max);
        (0..D_IN).map(best).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn both_kinds_find_the_directions_that_there_are() {
        for sparsity in
            [Sparsity::L1 { coefficient: 0.2, warmup_steps: 50 }, Sparsity::TopK { k: 2, auxiliary: 1.0 }]
        {
            let mut last = None;
            let config = config(sparsity, 600);
            let weights = train_sae(&config, &device(), &mut data, &mut |step| last = Some(*step)).unwrap();
            let last = last.unwrap();
            assert!(last.explained_variance > 0.9 && last.l0 < 3.0, "{sparsity:?}: {last:?}");
            assert!(recovered(&weights) > 0.9, "{sparsity:?}: {}", recovered(&weights));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bits() {
        let config = config(Sparsity::TopK { k: 2, auxiliary: 1.0 }, 30);
        let train = || train_sae(&config, &device(), &mut data, &mut |_| ()).unwrap().w_dec.into_data();
        assert_eq!(train(), train());
    }

    #[test]
    fn folded_weights_do_the_same_for_activations_as_they_are() {
        const SCALE: f64 = 3.0;
        for sparsity in
            [Sparsity::L1 { coefficient: 0.1, warmup_steps: 1 }, Sparsity::TopK { k: 2, auxiliary: 0.0 }]
        {
            let config = config(sparsity, 40);
            let mut scaled = |step| data(step).map(|x| x * SCALE);
            let weights = train_sae(&config, &device(), &mut scaled, &mut |_| ()).unwrap();
            let x = data(7).unwrap();
            let of = |weights: &SaeWeights, x: Tensor<2>| {
                let loss = Loss::of(&config, weights, &x, (0, &[]));
                loss.reconstruction.into_data().iter().collect::<Vec<f64>>()
            };
            let trained = of(&weights, x.clone() * SCALE);
            let folded = weights.folded(SCALE);
            for (trained, folded) in trained.iter().zip(of(&folded, x)) {
                assert!((trained / SCALE - folded).abs() < 1e-5, "{trained} {folded}");
            }
            let norms: Vec<f64> = folded.norms().into_data().iter().collect();
            assert!(norms.iter().all(|norm| (norm - 1.0).abs() < 1e-5));
        }
    }

    #[test]
    fn dead_features_are_counted_and_learn_from_what_is_left() {
        let mut weights = SaeWeights::random(D_IN, 12, 0, &device());
        // Feature 0 can never be among the largest.
        let mut biases = vec![0.0_f32; 12];
        biases[0] = -100.0;
        weights.b_enc = Tensor::from_data(TensorData::new(biases, [12]), &device());
        for (auxiliary, moves) in [(0.0, false), (1.0, true)] {
            let config = SaeConfig { dead_after: 3, ..config(Sparsity::TopK { k: 2, auxiliary }, 10) };
            let mut trainer = SaeTrainer::new(&config, weights.clone()).unwrap();
            let row = |trainer: &SaeTrainer| -> Vec<f64> {
                trainer.weights().w_dec.narrow(0, 0, 1).into_data().iter().collect()
            };
            let before = row(&trainer);
            let steps: Vec<SaeStep> = (0..8).map(|step| trainer.step(data(step).unwrap()).unwrap()).collect();
            assert_eq!(steps[1].n_dead, 0);
            assert!(steps[5].n_dead >= 1);
            assert_eq!(row(&trainer) != before, moves);
        }
    }

    #[test]
    fn the_losses_are_those_of_the_formulas() {
        let weights = SaeWeights::random(D_IN, 12, 3, &device());
        let x = data(0).unwrap();
        let list = |x: Tensor<2>| x.into_data().iter().collect::<Vec<f64>>();
        let (x_values, w) = (list(x.clone()), list(weights.w_dec.clone()));
        for sparsity in
            [Sparsity::L1 { coefficient: 0.5, warmup_steps: 4 }, Sparsity::TopK { k: 3, auxiliary: 0.0 }]
        {
            let is_topk = matches!(sparsity, Sparsity::TopK { .. });
            let found = Loss::of(&config(sparsity, 10), &weights, &x, (0, &[false; 12]));
            let mut expected = 0.0;
            for x in x_values.chunks(D_IN) {
                let dot = |d: &[f64]| d.iter().zip(x).map(|(d, x)| d * x).sum::<f64>();
                // Encoder and decoder are one matrix, with rows of norm 0.1.
                let mut codes: Vec<f64> = w.chunks(D_IN).map(|d| dot(d).max(0.0)).collect();
                if is_topk {
                    let mut sorted = codes.clone();
                    sorted.sort_by(|a, b| b.total_cmp(a));
                    for a in &mut codes {
                        *a = if *a >= sorted[2] { *a } else { 0.0 };
                    }
                }
                for at in 0..D_IN {
                    let hat: f64 = codes.iter().zip(w.chunks(D_IN)).map(|(a, d)| a * d[at]).sum();
                    expected += (hat - x[at]).powi(2) / 64.0;
                }
                if !is_topk {
                    expected += 0.5 / 4.0 * 0.1 * codes.iter().sum::<f64>() / 64.0;
                }
            }
            let found = found.total.into_scalar::<f64>();
            assert!((found - expected).abs() < 1e-4 * expected, "{sparsity:?}: {found} {expected}");
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        for (sparsity, said) in [
            (Sparsity::TopK { k: 0, auxiliary: 1.0 }, "`k` is 0"),
            (Sparsity::TopK { k: 13, auxiliary: 1.0 }, "`k` is 13"),
            (Sparsity::L1 { coefficient: f64::NAN, warmup_steps: 1 }, "`coefficient` is NaN"),
        ] {
            let error = config(sparsity, 1).check().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
