//! A position is predicted from those before it by attention; features code what is new.
//!
//! With `λ = 1 / (4 d_in)`, for each attention layer: `z = relu(λ r W_enc)`, its context the `z` of
//! earlier positions; `z' = relu(attention)`; `s = ⟨z' W_dec, r⟩ / (‖z' W_dec‖ + 1e-6)²`; the
//! prediction grows by `s z'` and `r` shrinks by `s z' W_dec`. What is left is coded as
//! `relu(λ r W_enc)`, of which the largest are kept. Source: SAELens, `temporal_sae.py`;
//! Lubana et al. (2025).

use burn::tensor::{
    Bool, IndexingUpdateOp, Tensor,
    activation::{relu, softmax},
};
use burn_lens_tensor::{AnyTensor, kernels};
use serde_json::{Map, Value, json};

use super::{Plan, SaeKind};
use crate::{
    Base, Codes, SaeConfig, SaeError, SparseAutoencoder,
    autoencoder::{Tap, along, linear},
};

pub(super) static TEMPORAL: SaeKind = SaeKind {
    name: "temporal",
    formula: "relu(λ (x − what earlier positions predict) W_enc), of which the largest are kept",
    build: |plan| Ok(Box::new(Temporal::read(plan)?)),
};

#[derive(Clone, Debug)]
struct Temporal {
    base: Base,
    tied: bool,
    n_heads: usize,
    bottleneck_factor: usize,
    /// How many features are kept; all that are positive if `None`.
    k: Option<usize>,
    layers: Vec<Attention>,
}

#[derive(Clone, Debug)]
struct Attention {
    key: Projection,
    query: Projection,
    value: Projection,
    out: Projection,
}

/// `x weightᵀ + bias`
#[derive(Clone, Debug)]
struct Projection {
    name: String,
    /// `[out, in]`
    weight: Tensor<2>,
    /// `[out]`
    bias: Tensor<1>,
}

impl Projection {
    fn apply(&self, x: &Tensor<3>) -> Tensor<3> {
        linear(x.clone(), &self.weight.clone().transpose()) + along(&self.bias)
    }
}

impl Temporal {
    fn read(mut plan: Plan<'_, '_>) -> Result<Self, SaeError> {
        let SaeConfig { d_in, d_sae, .. } = plan.config;
        let settings = plan.settings;
        let n_heads = settings.optional_size("n_heads")?.unwrap_or(8);
        let bottleneck_factor = settings.optional_size("bottleneck_factor")?.unwrap_or(64);
        if d_sae % (n_heads * bottleneck_factor) != 0 {
            let expected = format!("n_heads · bottleneck_factor divides d_sae, {d_sae}");
            return Err(settings.wrong("bottleneck_factor", &bottleneck_factor.into(), &expected));
        }
        let k = match settings.text("sae_diff_type")?.unwrap_or("topk") {
            "topk" => settings.optional_size("kval_topk")?,
            "relu" => None,
            other => return Err(settings.wrong("sae_diff_type", &other.into(), "topk or relu")),
        };
        if let Some(k) = k.filter(|&k| k > d_sae) {
            return Err(settings.wrong("kval_topk", &k.into(), "at most d_sae"));
        }
        let n_layers = settings.optional_size("n_attn_layers")?.unwrap_or(1);
        let layers = (0..n_layers).map(|layer| plan.attention(layer, d_sae / bottleneck_factor));
        let layers = layers.collect::<Result<_, _>>()?;
        let tied = settings.flag("tied_weights", true)?;
        let w_dec = plan.reader.matrix("W_dec", [d_sae, d_in])?;
        let w_enc =
            if tied { w_dec.clone().transpose() } else { plan.reader.matrix("W_enc", [d_in, d_sae])? };
        let base = Base {
            w_enc,
            w_dec,
            b_dec: plan.reader.vector("b_dec", d_in)?,
            output_bias: !tied || plan.config.apply_b_dec_to_input,
            undoes_normalization: true,
            config: SaeConfig { d_out: d_in, ..plan.config },
        };
        Ok(Self { base, tied, n_heads, bottleneck_factor, k, layers })
    }

    /// `λ r W_enc`
    fn pre(&self, left: &Tensor<3>) -> Tensor<3> {
        let lambda = 1.0 / (4.0 * self.base.config.d_in as f64);
        linear(left.clone() * lambda, &self.base.w_enc)
    }

    /// The `k` largest, zeros elsewhere.
    fn largest(&self, acts: Tensor<3>) -> Tensor<3> {
        let Some(k) = self.k else { return acts };
        let [batch, pos, d_sae] = acts.dims();
        let acts = acts.reshape([batch * pos, d_sae]);
        let (values, indices) = kernels::top(acts.clone(), k);
        acts.zeros_like().scatter(1, indices, values, IndexingUpdateOp::Add).reshape([batch, pos, d_sae])
    }
}

impl Plan<'_, '_> {
    fn attention(&mut self, layer: usize, d_key: usize) -> Result<Attention, SaeError> {
        let d_sae = self.config.d_sae;
        let mut projection = |what: &str, out: usize| -> Result<Projection, SaeError> {
            let name = format!("attn_layers.{layer}.{what}");
            let weight = self.reader.matrix(&format!("{name}.weight"), [out, d_sae])?;
            Ok(Projection { weight, bias: self.reader.vector(&format!("{name}.bias"), out)?, name })
        };
        Ok(Attention {
            key: projection("k_ctx", d_key)?,
            query: projection("q_target", d_key)?,
            value: projection("v_ctx", d_sae)?,
            out: projection("c_proj", d_sae)?,
        })
    }
}

impl Attention {
    /// # Shapes
    ///
    /// - `context`, `target`: `[batch, pos, d_sae]`, as what it returns
    fn apply(&self, context: &Tensor<3>, target: &Tensor<3>, n_heads: usize) -> Tensor<3> {
        let [batch, pos, d_sae] = context.dims();
        let heads = |x: Tensor<3>| -> Tensor<4> {
            let width = x.dims()[2] / n_heads;
            x.reshape([batch, pos, n_heads, width]).swap_dims(1, 2)
        };
        let (k, v) = (heads(self.key.apply(context)), heads(self.value.apply(context)));
        let q = heads(self.query.apply(target));
        let scale = 1.0 / (q.dims()[3] as f64).sqrt();
        let scores = q.matmul(k.transpose()) * scale;
        let later = Tensor::<2, Bool>::tril_mask([pos, pos], 0, &scores.device().without_autodiff());
        let later = later.unsqueeze::<4>().expand(scores.dims());
        let pattern = softmax(scores.mask_fill(later, f64::NEG_INFINITY), 3);
        self.out.apply(&pattern.matmul(v).swap_dims(1, 2).reshape([batch, pos, d_sae]))
    }
}

impl SparseAutoencoder for Temporal {
    fn base(&self) -> &Base {
        &self.base
    }

    fn base_mut(&mut self) -> &mut Base {
        &mut self.base
    }

    fn kind(&self) -> &'static str {
        TEMPORAL.name
    }

    fn reads_context(&self) -> bool {
        true
    }

    fn is_tied(&self) -> bool {
        self.tied
    }

    fn codes(&self, x: Tensor<3>, tap: &mut Tap<'_>) -> Codes {
        const EPS: f64 = 1e-6;
        let mut left = x;
        let mut predicted: Option<Tensor<3>> = None;
        for layer in &self.layers {
            let z = relu(self.pre(&left));
            let [batch, pos, d_sae] = z.dims();
            let nothing = Tensor::zeros([batch, 1, d_sae], (&z.device(), z.dtype()));
            let context = Tensor::cat(vec![nothing, z.clone()], 1).narrow(1, 0, pos);
            let guess = relu(layer.apply(&context, &z, self.n_heads));
            let vector = linear(guess.clone(), &self.base.w_dec);
            let norm = vector.clone().square().sum_dim(2).sqrt() + EPS;
            let scale = (vector.clone() * left.clone()).sum_dim(2) / norm.square();
            let guess = guess * scale.clone();
            predicted = Some(match predicted {
                None => guess,
                Some(before) => before + guess,
            });
            left = left - vector * scale;
        }
        let acts = self.largest(relu(tap(self.pre(&left))));
        Codes { acts, predicted }
    }

    fn settings(&self) -> Map<String, Value> {
        let settings = json!({
            "n_heads": self.n_heads,
            "n_attn_layers": self.layers.len(),
            "bottleneck_factor": self.bottleneck_factor,
            "sae_diff_type": if self.k.is_some() { "topk" } else { "relu" },
            "kval_topk": self.k,
            "tied_weights": self.tied,
        });
        settings.as_object().cloned().unwrap_or_default()
    }

    fn own_tensors(&self) -> Vec<(String, AnyTensor)> {
        let projections = self.layers.iter().flat_map(|layer| {
            [&layer.key, &layer.query, &layer.value, &layer.out].map(|projection| {
                let Projection { name, weight, bias } = projection.clone();
                [(format!("{name}.weight"), weight.into()), (format!("{name}.bias"), bias.into())]
            })
        });
        projections.flatten().collect()
    }

    fn scale_latents(&mut self, _: &Tensor<1>) -> Result<(), SaeError> {
        Err(refused("folding the decoder's norms"))
    }

    fn shift_latents(&mut self, _: &Tensor<1>) {}

    fn scale_input(&mut self, _: f64) -> Result<(), SaeError> {
        Err(refused("folding a scale of its inputs"))
    }
}

fn refused(change: &'static str) -> SaeError {
    let reason = "its attention reads what is coded so far, which would change with it";
    SaeError::Refused { change, kind: TEMPORAL.name, reason }
}
