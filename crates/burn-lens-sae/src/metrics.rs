//! How well a dictionary stands in for an activation.
//!
//! All sums are in `f64` over every token given, so no number depends on the size of batches. The
//! formulas are in `docs/sae.md`; source: SAELens's `evals.py`.

use burn::tensor::{Int, Tensor, activation::log_softmax};
use burn_lens_hooks::{CacheOptions, Hook, HookContext, HookPoint, HookedModel, Input, RunError, RunOptions};
use burn_lens_tensor::{AnyTensor, numeric};
use serde::Serialize;

use crate::{Codes, SaeError, SaeModel, SplicedSae, features::SparseRows, rows, splice::Vectors};

/// What [`SaeEvaluation`] found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SaeMetrics {
    /// Tokens whose activations were looked at: no padding, none that the dictionary is not used at.
    pub n_tokens: u64,
    /// Predictions that losses and divergences are means over.
    pub n_predictions: u64,
    /// The model's loss as it is, in nats.
    pub ce_clean: f64,
    /// With the reconstruction in the activation's place.
    pub ce_sae: f64,
    /// With zeros in its place.
    pub ce_zero: f64,
    /// How much of what zeros lose the reconstruction recovers; `None` where they lose nothing.
    pub ce_score: Option<f64>,
    /// From the model's predictions to those with the reconstruction, in nats.
    pub kl_sae: f64,
    /// From the model's predictions to those with zeros.
    pub kl_zero: f64,
    /// How much of that divergence the reconstruction removes; `None` where there is none.
    pub kl_score: Option<f64>,
    /// Active features per token: activations that are not zero, negative ones too.
    pub l0: f64,
    /// Sum of the activations' magnitudes per token.
    pub l1: f64,
    /// Squared error per token, summed over entries.
    pub mse: f64,
    /// `1 − error / variance`.
    pub explained_variance: f64,
    /// Between activation and reconstruction.
    pub cosine: f64,
    /// Norm of the activation.
    pub l2_in: f64,
    /// Norm of the reconstruction.
    pub l2_out: f64,
    /// Mean of their ratio.
    pub l2_ratio: f64,
    /// `E‖x̂‖² / E⟨x, x̂⟩`: 1 where nothing is shrunk.
    pub relative_reconstruction_bias: f64,
    /// Features that were never active.
    pub n_dead: usize,
    /// How often each feature is active, per token.
    pub densities: Vec<f64>,
}

/// Runs a model with and without a dictionary, batch by batch.
#[derive(Debug)]
pub struct SaeEvaluation {
    spliced: SplicedSae,
    from: HookPoint,
    to: HookPoint,
    sums: Sums,
}

#[derive(Debug, Default)]
struct Sums {
    n: u64,
    predictions: u64,
    /// Of the clean run, of that with the dictionary, of that with zeros.
    ce: [f64; 3],
    kl: [f64; 2],
    active: Vec<u64>,
    l0: u64,
    l1: f64,
    error: f64,
    squares: f64,
    squares_out: f64,
    product: f64,
    cosine: f64,
    norms: [f64; 2],
    ratio: f64,
    mean: Vec<f64>,
}

impl SaeEvaluation {
    /// An evaluation of a dictionary; its error term is left out.
    ///
    /// # Errors
    ///
    /// If it does not say which activation it reads.
    pub fn new(spliced: &SplicedSae) -> Result<Self, SaeError> {
        let config = spliced.sae.config();
        let sums = Sums { active: vec![0; config.d_sae], mean: vec![0.0; config.d_out], ..Sums::default() };
        let (from, to) = (config.hook_in()?, config.hook_out()?);
        Ok(Self { spliced: SplicedSae { use_error_term: false, ..spliced.clone() }, from, to, sums })
    }

    /// Adds some prompts.
    ///
    /// # Shapes
    ///
    /// - `tokens`, `attention_mask`: `[batch, pos]`; the mask is 0 at padding
    ///
    /// # Errors
    ///
    /// If the dictionary does not fit the model, or a run fails.
    pub fn add<M: HookedModel + ?Sized>(
        &mut self,
        model: &M,
        tokens: &Tensor<2, Int>,
        attention_mask: Option<&Tensor<2, Int>>,
    ) -> Result<(), SaeError> {
        let input = Input::Tokens(tokens.clone());
        let options = RunOptions { attention_mask: attention_mask.cloned(), ..RunOptions::default() };
        let cache = CacheOptions::names([self.from, self.to]);
        let (clean, cache) = model.run_with_cache(&input, &options, &cache)?;
        let spliced = model.run_with_saes(&input, &options, std::slice::from_ref(&self.spliced))?;
        let zeroed = model.run_with_hooks(
            &input,
            &options,
            vec![zeros_at(self.to, self.spliced.sae.config().head)],
        )?;
        let ids: Vec<i64> = tokens.clone().try_into_vec_as()?;
        let real: Vec<bool> = match attention_mask {
            None => vec![true; ids.len()],
            Some(mask) => mask.clone().try_into_vec_as::<i64>()?.into_iter().map(|one| one != 0).collect(),
        };
        let pos = tokens.dims()[1];
        let excluded = &self.spliced.exclude_tokens;
        let counted: Vec<bool> =
            real.iter().zip(&ids).map(|(&real, id)| real && !excluded.contains(id)).collect();
        self.activations(&cache.get(self.from)?, &cache.get(self.to)?, &counted)?;
        if pos > 1 {
            let logits = [clean.into_logits()?, spliced.into_logits()?, zeroed.into_logits()?];
            let counted = |row: usize| row % pos + 1 < pos && real[row] && real[row + 1];
            self.predictions(logits, tokens, counted)?;
        }
        Ok(())
    }

    fn predictions(
        &mut self,
        logits: [Tensor<3>; 3],
        tokens: &Tensor<2, Int>,
        counted: impl Fn(usize) -> bool,
    ) -> Result<(), SaeError> {
        let [batch, pos] = tokens.dims();
        let targets = tokens.clone().narrow(1, 1, pos - 1).unsqueeze_dim::<3>(2);
        let log_p = |logits: Tensor<3>| log_softmax(numeric::widened(logits.narrow(1, 0, pos - 1)).0, 2);
        let rows: Vec<usize> = (0..batch * pos).filter(|row| row % pos + 1 < pos).collect();
        let sum = |values: Tensor<3>| -> Result<f64, SaeError> {
            let values: Vec<f64> = values.try_into_vec_as()?;
            Ok(rows.iter().zip(values).filter(|(row, _)| counted(**row)).map(|(_, value)| value).sum())
        };
        self.sums.predictions += rows.iter().filter(|row| counted(**row)).count() as u64;
        let [clean, spliced, zeroed] = logits.map(log_p);
        let p = clean.clone().exp();
        for (at, other) in [&clean, &spliced, &zeroed].into_iter().enumerate() {
            self.sums.ce[at] -= sum(other.clone().gather(2, targets.clone()))?;
            if at > 0 {
                self.sums.kl[at - 1] += sum((p.clone() * (clean.clone() - other.clone())).sum_dim(2))?;
            }
        }
        Ok(())
    }

    fn activations(&mut self, x: &AnyTensor, y: &AnyTensor, counted: &[bool]) -> Result<(), SaeError> {
        let sae = &*self.spliced.sae;
        let vectors = |x: &AnyTensor, point| Vectors::of(x.clone(), point, sae.config().head);
        let (x, y) = (vectors(x, self.from)?.x, vectors(y, self.to)?.x);
        let x = x.cast(sae.base().w_dec.dtype());
        let prepared = sae.prepare(x.clone());
        let codes: Codes = sae.codes(prepared.x.clone(), &mut |pre| pre);
        let out = prepared.undo(sae.recons(&codes));
        let out = match sae.skip(&x) {
            Some(skip) => out + skip,
            None => out,
        };
        let acts = rows::of_dense(codes.acts)?;
        let d = y.dims()[2];
        let (y, out): (Vec<f64>, Vec<f64>) = (y.try_into_vec_as()?, out.try_into_vec_as()?);
        for (row, (y, out)) in y.chunks_exact(d).zip(out.chunks_exact(d)).enumerate() {
            if counted[row] {
                self.sums.token(y, out);
                self.sums.features(&acts, row);
            }
        }
        Ok(())
    }

    /// What was found so far.
    ///
    /// # Errors
    ///
    /// If no token was counted.
    pub fn metrics(&self) -> Result<SaeMetrics, SaeError> {
        let sums = &self.sums;
        if sums.n == 0 || sums.predictions == 0 {
            let what = "there is nothing to evaluate: no token is counted, or no prediction";
            return Err(RunError::Options(what.to_owned()).into());
        }
        let (n, predictions) = (sums.n as f64, sums.predictions as f64);
        let [ce_clean, ce_sae, ce_zero] = sums.ce.map(|sum| sum / predictions);
        let [kl_sae, kl_zero] = sums.kl.map(|sum| sum / predictions);
        Ok(SaeMetrics {
            n_tokens: sums.n,
            n_predictions: sums.predictions,
            ce_clean,
            ce_sae,
            ce_zero,
            ce_score: share(ce_zero - ce_sae, ce_zero - ce_clean),
            kl_sae,
            kl_zero,
            kl_score: share(kl_zero - kl_sae, kl_zero),
            l0: sums.l0 as f64 / n,
            l1: sums.l1 / n,
            mse: sums.error / n,
            explained_variance: sums.explained_variance(),
            cosine: sums.cosine / n,
            l2_in: sums.norms[0] / n,
            l2_out: sums.norms[1] / n,
            l2_ratio: sums.ratio / n,
            relative_reconstruction_bias: sums.squares_out / sums.product,
            n_dead: sums.active.iter().filter(|&&count| count == 0).count(),
            densities: sums.active.iter().map(|&count| count as f64 / n).collect(),
        })
    }
}

/// `part / whole`, where there is a whole.
fn share(part: f64, whole: f64) -> Option<f64> {
    const NOTHING: f64 = 1e-12;
    (whole.abs() > NOTHING).then(|| part / whole)
}

/// Sets an activation to zero, or one head of it.
fn zeros_at(point: HookPoint, head: Option<usize>) -> Hook<'static> {
    Hook::try_edit(point, move |x: AnyTensor, _: &mut HookContext<'_>| {
        let vectors = Vectors::of(x, point, head)?;
        Ok::<_, RunError>(Some(vectors.restored(vectors.x.zeros_like())))
    })
}

impl Sums {
    fn token(&mut self, y: &[f64], out: &[f64]) {
        /// A shorter vector is no longer divided by.
        const SHORT: f64 = 1e-4;
        /// As in PyTorch's cosine similarity.
        const LEAST: f64 = 1e-8;
        self.n += 1;
        let [mut square, mut square_out, mut product, mut error] = [0.0; 4];
        for ((&y, &out), mean) in y.iter().zip(out).zip(&mut self.mean) {
            square += y * y;
            square_out += out * out;
            product += y * out;
            error += (y - out) * (y - out);
            *mean += y;
        }
        let (norm, norm_out) = (square.sqrt(), square_out.sqrt());
        self.squares += square;
        self.squares_out += square_out;
        self.product += product;
        self.error += error;
        self.cosine += product / (norm.max(LEAST) * norm_out.max(LEAST));
        self.norms[0] += norm;
        self.norms[1] += norm_out;
        self.ratio += norm_out / if norm < SHORT { 1.0 } else { norm };
    }

    fn features(&mut self, acts: &SparseRows, row: usize) {
        let (indices, values) = acts.row(row);
        self.l0 += indices.len() as u64;
        self.l1 += values.iter().map(|&value| f64::from(value).abs()).sum::<f64>();
        for &index in indices {
            self.active[index as usize] += 1;
        }
    }

    fn explained_variance(&self) -> f64 {
        /// Below this there is nothing to explain.
        const NOTHING: f64 = 1e-10;
        let n = self.n as f64;
        let mean: f64 = self.mean.iter().map(|sum| (sum / n) * (sum / n)).sum();
        let (error, variance) = (self.error / n, self.squares / n - mean);
        if variance < NOTHING { f64::from(error < NOTHING) } else { 1.0 - error / variance }
    }
}
