//! Crosscoders: one set of features that reads several activations at once and writes them all, such
//! as several layers of a model, or one layer of two models.
//!
//! `a = f(Σ_s x_s W_enc[s] + b_enc)`, `x̂_s = a W_dec[s] + b_dec[s]`.
//! Source: Lindsey et al. (2024), "Sparse Crosscoders for Cross-Layer Features and Model Diffing".

use burn::tensor::{Tensor, activation::relu};
use burn_lens_tensor::{AnyTensor, FloatType, WeightError, Weights};

use crate::{
    SaeError, SaeOptions,
    autoencoder::{along, linear},
    features::SparseRows,
    rows,
};

/// One set of features for several activations.
#[derive(Clone, Debug)]
pub struct Crosscoder {
    /// One for each source, `[d_in, d_sae]`.
    pub w_enc: Vec<Tensor<2>>,
    /// `[d_sae]`
    pub b_enc: Tensor<1>,
    /// One for each source, `[d_sae, d_in]`.
    pub w_dec: Vec<Tensor<2>>,
    /// One for each source, `[d_in]`.
    pub b_dec: Vec<Tensor<1>>,
    /// `[d_sae]`; pre-activations at or below it are no activations.
    pub threshold: Option<Tensor<1>>,
}

impl Crosscoder {
    /// Reads one: `W_enc [source, d_in, d_sae]`, `W_dec [d_sae, source, d_in]`, `b_enc`, `b_dec [source,
    /// d_in]` and, if it is there, `threshold`; or, as forks of dictionary_learning write them,
    /// `encoder.weight`, `encoder.bias`, `decoder.weight [source, d_sae, d_in]` and `decoder.bias`.
    ///
    /// # Errors
    ///
    /// If a weight is missing, surplus or of another shape.
    pub fn read(weights: &mut dyn Weights, options: &SaeOptions) -> Result<Self, SaeError> {
        let stacked = weights.shape("W_enc").is_some();
        let names = if stacked {
            ["W_enc", "W_dec", "b_enc", "b_dec"]
        } else {
            ["encoder.weight", "decoder.weight", "encoder.bias", "decoder.bias"]
        };
        let found = weights.shape(names[0]).unwrap_or_default();
        let Ok([n, d_in, d_sae]) = <[usize; 3]>::try_from(found) else {
            // Names what is missing, or of which shape it is.
            weights.get(names[0], &[1, 1, 1])?;
            return Err(SaeError::Device(format!("`{}` is no stack of matrices", names[0])));
        };
        let mut tensors = Stacks { weights, options };
        let w_enc = tensors.stack(names[0], [n, d_in, d_sae])?;
        let w_dec = if stacked { [d_sae, n, d_in] } else { [n, d_sae, d_in] };
        let w_dec = tensors.stack(names[1], w_dec)?;
        let w_dec = if stacked { w_dec.swap_dims(0, 1) } else { w_dec };
        let b_enc = tensors.get::<1>(names[2], &[d_sae])?;
        let b_dec = tensors.get::<2>(names[3], &[n, d_in])?;
        let has_threshold = tensors.weights.shape("threshold").is_some();
        let threshold = if has_threshold { Some(tensors.get::<1>("threshold", &[d_sae])?) } else { None };
        let unread = weights.unread();
        if !unread.is_empty() {
            return Err(WeightError::Surplus { origin: weights.origin(), names: unread }.into());
        }
        let each =
            |stack: &Tensor<3>| (0..n).map(|at| stack.clone().narrow(0, at, 1).squeeze_dim(0)).collect();
        let b_dec = (0..n).map(|at| b_dec.clone().narrow(0, at, 1).squeeze_dim(0)).collect();
        Ok(Self { w_enc: each(&w_enc), b_enc, w_dec: each(&w_dec), b_dec, threshold })
    }

    /// How many activations it reads.
    #[must_use]
    pub fn n_sources(&self) -> usize {
        self.w_enc.len()
    }

    /// The activations of its features.
    ///
    /// # Shapes
    ///
    /// - `x`: one for each source, `[batch, pos, d_in]`; returns `[batch, pos, d_sae]`
    ///
    /// # Panics
    ///
    /// If there are not as many as sources.
    #[must_use]
    pub fn encode_dense(&self, x: &[Tensor<3>]) -> Tensor<3> {
        assert_eq!(x.len(), self.n_sources(), "an activation for each source");
        let parts = x.iter().zip(&self.w_enc).map(|(x, w)| linear(x.clone(), w));
        let pre = parts.fold(along(&self.b_enc), |sum, part| part + sum);
        activated(pre, self.threshold.as_ref())
    }

    /// The activations of its features, sparse, a row for each position.
    ///
    /// # Errors
    ///
    /// If the device fails.
    ///
    /// # Panics
    ///
    /// As [`Crosscoder::encode_dense`].
    pub fn encode(&self, x: &[Tensor<3>]) -> Result<SparseRows, SaeError> {
        rows::of_dense(self.encode_dense(x))
    }

    /// What activations stand for, in each source.
    ///
    /// # Shapes
    ///
    /// - `acts`: `[batch, pos, d_sae]`; returns one `[batch, pos, d_in]` for each source
    #[must_use]
    pub fn decode_dense(&self, acts: &Tensor<3>) -> Vec<Tensor<3>> {
        let decode = |(w, b): (&Tensor<2>, &Tensor<1>)| linear(acts.clone(), w) + along(b);
        self.w_dec.iter().zip(&self.b_dec).map(decode).collect()
    }

    /// The norms of each feature's directions: how much it is a feature of each source.
    ///
    /// # Shapes
    ///
    /// - returns `[d_sae, source]`
    #[must_use]
    pub fn decoder_norms(&self) -> Tensor<2> {
        let norms = self.w_dec.iter().map(|w| w.clone().square().sum_dim(1).sqrt()).collect();
        Tensor::cat(norms, 1)
    }
}

/// `relu(p)`, and nothing at or below a threshold.
pub(crate) fn activated(pre: Tensor<3>, threshold: Option<&Tensor<1>>) -> Tensor<3> {
    match threshold {
        None => relu(pre),
        Some(threshold) => {
            let off = pre.clone().lower_equal(along(threshold).expand(pre.dims()));
            relu(pre).mask_fill(off, 0.0)
        }
    }
}

/// Reads tensors of any rank.
pub(crate) struct Stacks<'w> {
    pub(crate) weights: &'w mut dyn Weights,
    pub(crate) options: &'w SaeOptions,
}

impl Stacks<'_> {
    fn stack(&mut self, name: &str, shape: [usize; 3]) -> Result<Tensor<3>, SaeError> {
        self.get::<3>(name, &shape)
    }

    pub(crate) fn get<const D: usize>(&mut self, name: &str, shape: &[usize]) -> Result<Tensor<D>, SaeError>
    where
        AnyTensor: TryInto<Tensor<D>>,
    {
        let data = self.weights.get(name, shape)?;
        let dtype: FloatType = self.options.dtype;
        let any = AnyTensor::from_data(data, &self.options.device).ok().map(|any| any.cast(dtype));
        any.and_then(|any| any.try_into().ok()).ok_or_else(|| {
            let (name, origin) = (name.to_owned(), self.weights.origin());
            WeightError::Shape { name, origin, expected: shape.to_vec(), found: shape.to_vec() }.into()
        })
    }
}
