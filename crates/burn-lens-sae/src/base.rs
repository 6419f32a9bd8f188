//! What dictionaries of every kind have: sizes, encoder and decoder, and what is done to inputs.

use burn::tensor::{Int, Tensor, TensorData};

use crate::{Normalization, SaeConfig, autoencoder::along};

/// What dictionaries of every kind have.
#[derive(Clone, Debug)]
pub struct Base {
    /// Sizes, hooks and the like.
    pub config: SaeConfig,
    /// `[d_in, d_sae]`
    pub w_enc: Tensor<2>,
    /// `[d_sae, d_out]`
    pub w_dec: Tensor<2>,
    /// `[d_out]`
    pub b_dec: Tensor<1>,
    /// Whether `b_dec` is added to reconstructions.
    pub output_bias: bool,
    /// Whether the normalisation of its input is undone at its output: not for a transcoder, which
    /// writes another activation with norms of its own.
    pub undoes_normalization: bool,
}

/// Input that can be encoded.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// `[batch, pos, d_in]`, normalised and centred.
    pub x: Tensor<3>,
    undo: Undo,
}

#[derive(Clone, Debug)]
enum Undo {
    Nothing,
    Divide(Box<Tensor<3>>),
    Affine(Box<Affine>),
}

#[derive(Clone, Debug)]
struct Affine {
    scale: Tensor<3>,
    shift: Tensor<3>,
}

impl Prepared {
    /// A reconstruction as it is at the hook.
    #[must_use]
    pub fn undo(&self, recons: Tensor<3>) -> Tensor<3> {
        match &self.undo {
            Undo::Affine(affine) => self.undo_linear(recons) + affine.shift.clone(),
            _ => self.undo_linear(recons),
        }
    }

    /// A difference of reconstructions as it is at the hook.
    #[must_use]
    pub fn undo_linear(&self, difference: Tensor<3>) -> Tensor<3> {
        match &self.undo {
            Undo::Nothing => difference,
            Undo::Divide(factor) => difference / *factor.clone(),
            Undo::Affine(affine) => difference * affine.scale.clone(),
        }
    }
}

impl Base {
    pub(crate) fn prepare(&self, x: Tensor<3>) -> Prepared {
        let (x, undo) = normalized(x, self.config.normalization);
        let x = if self.config.apply_b_dec_to_input { x - along(&self.b_dec) } else { x };
        let undo = if self.undoes_normalization { undo } else { Undo::Nothing };
        Prepared { x, undo }
    }

    /// Some of the features alone.
    pub(crate) fn part(&self, features: &[usize]) -> (Self, Tensor<1, Int>) {
        let indices: Vec<i64> = features.iter().map(|&feature| feature as i64).collect();
        let device = self.w_enc.device().without_autodiff();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [features.len()]), &device);
        let base = Self {
            config: SaeConfig { d_sae: features.len(), ..self.config.clone() },
            w_enc: self.w_enc.clone().select(1, indices.clone()),
            w_dec: self.w_dec.clone().select(0, indices.clone()),
            ..self.clone()
        };
        (base, indices)
    }

    pub(crate) fn with_bias(&self, x: Tensor<3>) -> Tensor<3> {
        if self.output_bias { x + along(&self.b_dec) } else { x }
    }
}

/// Each vector normalised, and how to bring a reconstruction back.
fn normalized(x: Tensor<3>, how: Normalization) -> (Tensor<3>, Undo) {
    /// Added to the standard deviation going in, as in SAELens and OpenAI's code.
    const EPS: f64 = 1e-5;
    let d = x.dims()[2] as f64;
    match how {
        Normalization::None => (x, Undo::Nothing),
        Normalization::ConstantScalarRescale(factor) => {
            let factor = Tensor::full([1, 1, 1], factor, (&x.device(), x.dtype()));
            (x * factor.clone(), Undo::Divide(Box::new(factor)))
        }
        Normalization::ConstantNormRescale => {
            let norm = x.clone().square().sum_dim(2).sqrt();
            let zero = norm.clone().equal_elem(0.0);
            let factor = (norm.recip() * d.sqrt()).mask_fill(zero, 1.0);
            (x * factor.clone(), Undo::Divide(Box::new(factor)))
        }
        Normalization::LayerNorm => {
            let mean = x.clone().mean_dim(2);
            let x = x - mean.clone();
            let std = (x.clone().square().sum_dim(2) / (d - 1.0)).sqrt();
            (x / (std.clone() + EPS), Undo::Affine(Box::new(Affine { scale: std, shift: mean })))
        }
    }
}
