//! Features are chosen one after the other, each the one that explains most of what is left.
//!
//! Encoder and decoder are tied. Repeated for each vector: `i = argmax relu(r W_decᵀ)`,
//! `v = relu(r · d_i)`, `a_i += v`, `r −= v d_i`; until no new feature is chosen, the norm of `r`
//! is below a threshold, or as often as asked for. Source: SAELens, `matching_pursuit_sae.py`.

use burn::tensor::{IndexingUpdateOp, Tensor, activation::relu};
use burn_lens_tensor::AnyTensor;
use serde_json::{Map, Value, json};

use super::{Plan, SaeKind};
use crate::{Base, Codes, SaeConfig, SaeError, SparseAutoencoder, autoencoder::Tap};

pub(super) static MATCHING_PURSUIT: SaeKind = SaeKind {
    name: "matching_pursuit",
    formula: "repeat: i = argmax relu(r W_decᵀ), a_i += relu(r · d_i), r −= relu(r · d_i) d_i",
    build: |plan| Ok(Box::new(MatchingPursuit::read(plan)?)),
};

#[derive(Clone, Debug)]
struct MatchingPursuit {
    base: Base,
    /// 0 for none.
    residual_threshold: f64,
    max_iterations: Option<usize>,
    stop_on_duplicate_support: bool,
}

impl MatchingPursuit {
    fn read(plan: Plan<'_, '_>) -> Result<Self, SaeError> {
        let SaeConfig { d_in, d_sae, .. } = plan.config;
        let w_dec = plan.reader.matrix("W_dec", [d_sae, d_in])?;
        let output_bias = plan.config.apply_b_dec_to_input;
        let settings = plan.settings;
        Ok(Self {
            residual_threshold: settings.optional_number("residual_threshold")?.unwrap_or(1e-2),
            max_iterations: settings.optional_size("max_iterations")?,
            stop_on_duplicate_support: settings.flag("stop_on_duplicate_support", true)?,
            base: Base {
                w_enc: w_dec.clone().transpose(),
                w_dec,
                b_dec: plan.reader.vector("b_dec", d_in)?,
                output_bias,
                undoes_normalization: true,
                config: SaeConfig { d_out: d_in, ..plan.config },
            },
        })
    }
}

impl SparseAutoencoder for MatchingPursuit {
    fn base(&self) -> &Base {
        &self.base
    }

    fn base_mut(&mut self) -> &mut Base {
        &mut self.base
    }

    fn kind(&self) -> &'static str {
        MATCHING_PURSUIT.name
    }

    fn has_pre_acts(&self) -> bool {
        false
    }

    fn is_tied(&self) -> bool {
        true
    }

    fn codes(&self, x: Tensor<3>, _: &mut Tap<'_>) -> Codes {
        let [batch, pos, d_in] = x.dims();
        let (rows, d_sae) = (batch * pos, self.base.config.d_sae);
        let mut left = x.reshape([rows, d_in]);
        let (device, dtype) = (left.device().without_autodiff(), left.dtype());
        let mut acts = Tensor::<2>::zeros([rows, d_sae], (&left.device(), dtype));
        // 1 for vectors that are not done.
        let mut open = Tensor::<2>::ones([rows, 1], (&device, dtype));
        for _ in 0..self.max_iterations.unwrap_or(d_in) {
            let seen = left.clone().without_autodiff();
            let scores = relu(seen.matmul(self.base.w_dec.clone().without_autodiff().transpose()));
            let chosen = scores.argmax(1);
            let direction = self.base.w_dec.clone().select(0, chosen.clone().squeeze_dim(1));
            let value = relu((left.clone() * direction.clone()).sum_dim(1)) * open.clone();
            let before = acts.clone().without_autodiff().gather(1, chosen.clone());
            acts = acts.scatter(1, chosen, value.clone(), IndexingUpdateOp::Add);
            left = left - direction * value.clone();
            if self.stop_on_duplicate_support {
                let is_new = before.equal_elem(0.0).bool_and(value.without_autodiff().greater_elem(0.0));
                open = open.mask_fill(is_new.bool_not(), 0.0);
            }
            if self.residual_threshold > 0.0 {
                let norm = left.clone().without_autodiff().square().sum_dim(1).sqrt();
                open = open.mask_fill(norm.lower_elem(self.residual_threshold), 0.0);
            }
            if open.clone().sum().into_scalar::<f64>() == 0.0 {
                break;
            }
        }
        Codes { acts: acts.reshape([batch, pos, d_sae]), predicted: None }
    }

    fn settings(&self) -> Map<String, Value> {
        let settings = json!({
            "residual_threshold": self.residual_threshold,
            "max_iterations": self.max_iterations,
            "stop_on_duplicate_support": self.stop_on_duplicate_support,
        });
        settings.as_object().cloned().unwrap_or_default()
    }

    fn own_tensors(&self) -> Vec<(String, AnyTensor)> {
        Vec::new()
    }

    fn scale_latents(&mut self, _: &Tensor<1>) -> Result<(), SaeError> {
        Err(SaeError::Refused {
            change: "folding the decoder's norms",
            kind: MATCHING_PURSUIT.name,
            reason: "its encoder is its decoder, so it would choose other features",
        })
    }

    fn shift_latents(&mut self, _: &Tensor<1>) {}

    fn scale_input(&mut self, factor: f64) -> Result<(), SaeError> {
        self.residual_threshold /= factor;
        Ok(())
    }
}
