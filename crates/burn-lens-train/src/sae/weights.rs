//! The weights of a sparse autoencoder.

use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};

/// The weights of a standard or topk autoencoder.
#[derive(Clone, Debug)]
pub struct SaeWeights {
    /// `[d_in, d_sae]`
    pub w_enc: Tensor<2>,
    /// `[d_sae]`
    pub b_enc: Tensor<1>,
    /// `[d_sae, d_in]`
    pub w_dec: Tensor<2>,
    /// `[d_in]`
    pub b_dec: Tensor<1>,
}

impl SaeWeights {
    /// Fresh weights: decoder rows in random directions, of norm 0.1; the encoder is the decoder
    /// transposed; no biases.
    #[must_use]
    pub fn random(d_in: usize, d_sae: usize, seed: u64, device: &Device) -> Self {
        /// Of each row of the decoder.
        const NORM: f64 = 0.1;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values: Vec<f32> = Vec::with_capacity(d_in * d_sae);
        for _ in 0..d_sae {
            let row: Vec<f64> = (0..d_in).map(|_| StandardNormal.sample(&mut rng)).collect();
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            values.extend(row.iter().map(|x| (NORM * x / norm) as f32));
        }
        let w_dec = Tensor::<2>::from_data(TensorData::new(values, [d_sae, d_in]), device);
        Self {
            w_enc: w_dec.clone().transpose(),
            b_enc: Tensor::zeros([d_sae], device),
            w_dec,
            b_dec: Tensor::zeros([d_in], device),
        }
    }

    /// The norms of the decoder's rows, `[d_sae, 1]`.
    pub(super) fn norms(&self) -> Tensor<2> {
        /// A row that became 0 has a direction no more, but its gradient stays a number.
        const TINY: f64 = 1e-12;
        (self.w_dec.clone().square().sum_dim(1) + TINY).sqrt()
    }

    /// The same autoencoder for activations that were not multiplied by `scale`, as training's were, with
    /// decoder rows of norm 1: what is saved. Reconstructions are divided by `scale`.
    ///
    /// For topk this is the ranking by `p n` of training, as nothing but a plain topk.
    #[must_use]
    pub fn folded(&self, scale: f64) -> Self {
        // x̂ = (a W_dec + b_dec) / s with a = relu((s x − b_dec) W_enc + b_enc), and a n for a.
        let norms = self.norms() / scale;
        let row = norms.clone().transpose();
        Self {
            w_enc: self.w_enc.clone() * scale * row.clone(),
            b_enc: self.b_enc.clone() * row.squeeze_dim::<1>(0),
            w_dec: self.w_dec.clone() / scale / norms,
            b_dec: self.b_dec.clone() / scale,
        }
    }
}
