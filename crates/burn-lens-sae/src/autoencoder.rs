//! What every dictionary can do: [`SparseAutoencoder`].

use std::fmt::Debug;

use burn::tensor::{Int, Tensor};
use burn_lens_tensor::{AnyTensor, kernels};
use serde_json::{Map, Value};

use crate::{Base, Prepared, SaeConfig, SaeError, features::SparseRows, rows};

/// Told the pre-activations on the way; what it gives back is used in their place.
pub type Tap<'t> = dyn FnMut(Tensor<3>) -> Tensor<3> + 't;

/// What encoding gave, dense.
#[derive(Clone, Debug)]
pub struct Codes {
    /// The features' activations, `[batch, pos, d_sae]`.
    pub acts: Tensor<3>,
    /// What a temporal dictionary predicted from earlier positions, `[batch, pos, d_sae]`, which its
    /// reconstruction contains beside the activations.
    pub predicted: Option<Tensor<3>>,
}

/// A dictionary of features: it encodes an activation as few of many features and decodes it again.
///
/// The result of encoding is sparse, [`SparseRows`]; `*_dense` methods give tensors. All of them take
/// vectors `[batch, pos, d_in]` as they are at the hook, with heads side by side, and normalise them
/// themselves.
///
/// ```
/// use burn_lens_sae::{SaeOptions, read_sae_lens};
/// use burn_lens_tensor::{DeviceSpec, MemoryWeights, burn::tensor::{Tensor, TensorData}};
///
/// let device = DeviceSpec::cpu().open()?;
/// let mut weights = MemoryWeights::new([
///     ("W_enc".to_owned(), TensorData::new(vec![1.0_f32, 0.0, -1.0, 0.0, 1.0, 0.0], [2, 3])),
///     ("W_dec".to_owned(), TensorData::new(vec![1.0_f32, 0.0, 0.0, 1.0, -1.0, 0.0], [3, 2])),
///     ("b_enc".to_owned(), TensorData::new(vec![0.0_f32; 3], [3])),
///     ("b_dec".to_owned(), TensorData::new(vec![0.0_f32; 2], [2])),
/// ]);
/// let config = r#"{"architecture": "standard", "d_in": 2, "d_sae": 3, "metadata": {"sae_lens_version": "6.0.0"}}"#;
/// let sae = read_sae_lens(config, "cfg.json", &mut weights, &SaeOptions::on(&device))?;
///
/// let x = Tensor::<3>::from_floats([[[-2.0, 5.0]]], &device);
/// let codes = sae.encode(x.clone())?;
/// assert_eq!(codes.row(0), (&[1, 2][..], &[5.0, 2.0][..]));
/// let x_hat = sae.forward_dense(x).into_data().try_to_vec::<f32>()?;
/// assert_eq!(x_hat, [-2.0, 5.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait SparseAutoencoder: Debug + Send + Sync {
    /// What it has in common with all others.
    fn base(&self) -> &Base;

    /// The same, to change it.
    fn base_mut(&mut self) -> &mut Base;

    /// SAELens's name for its kind.
    fn kind(&self) -> &'static str;

    /// The codes of normalised, centred input, telling `tap` the pre-activations where there are any.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, pos, d_in]`; `tap` takes and gives `[batch, pos, d_sae]`
    fn codes(&self, x: Tensor<3>, tap: &mut Tap<'_>) -> Codes;

    /// Whether its activations come from one pre-activation each, which can be read and changed.
    fn has_pre_acts(&self) -> bool {
        true
    }

    /// Whether a position's code depends on the positions before it.
    fn reads_context(&self) -> bool {
        false
    }

    /// The activations times the decoder, without bias: linear.
    ///
    /// # Shapes
    ///
    /// - `acts`: `[batch, pos, d_sae]`; returns `[batch, pos, d_out]`
    fn decode_linear(&self, acts: Tensor<3>) -> Tensor<3> {
        linear(acts, &self.directions())
    }

    /// What each feature adds per unit of its activation, before the normalisation is undone.
    ///
    /// # Shapes
    ///
    /// - returns `[d_sae, d_out]`
    fn directions(&self) -> Tensor<2> {
        self.base().w_dec.clone()
    }

    /// What it adds to the reconstruction straight from its input, as it is at the hook.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, pos, d_in]`; returns `[batch, pos, d_out]`
    fn skip(&self, x: &Tensor<3>) -> Option<Tensor<3>> {
        let _ = x;
        None
    }

    /// The codes of normalised, centred input, sparse, a row for each position.
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn sparse_codes(&self, x: Tensor<3>) -> Result<SparseRows, SaeError> {
        rows::of_dense(self.codes(x, &mut |pre| pre).acts)
    }

    /// The settings of its own kind, as SAELens writes them.
    fn settings(&self) -> Map<String, Value>;

    /// The tensors of its own kind, under SAELens's names.
    fn own_tensors(&self) -> Vec<(String, AnyTensor)>;

    /// Some of its features as a dictionary of its own, where the activation of none depends on another.
    ///
    /// A feature that is not there panics.
    fn part(&self, features: &[usize]) -> Option<Box<dyn SparseAutoencoder>> {
        let _ = features;
        None
    }

    /// Whether its encoder is its decoder, transposed, so that `W_enc` is no weight of its own.
    fn is_tied(&self) -> bool {
        false
    }

    /// Multiplies what belongs to each feature's pre-activation, but not `W_enc`, by a factor: a part
    /// of [`fold_w_dec_norm`](crate::fold_w_dec_norm).
    ///
    /// # Errors
    ///
    /// If that would change which features are active.
    fn scale_latents(&mut self, factors: &Tensor<1>) -> Result<(), SaeError>;

    /// Makes the choice of active features independent of the decoder, whose norms were folded.
    fn forget_decoder_norms(&mut self) {}

    /// Whether the choice of active features depends on the norms of the decoder's rows.
    fn chooses_by_decoder_norms(&self) -> bool {
        false
    }

    /// Subtracts `shift` from each feature's pre-activation: a part of
    /// [`fold_whitening`](crate::fold_whitening).
    fn shift_latents(&mut self, shift: &Tensor<1>);

    /// Prepares for inputs that will be multiplied by `factor` no more, as far as that is not a
    /// matter of encoder and decoder: a part of [`fold_scaling_factor`](crate::fold_scaling_factor).
    ///
    /// # Errors
    ///
    /// If that cannot be folded.
    fn scale_input(&mut self, factor: f64) -> Result<(), SaeError> {
        let _ = factor;
        Ok(())
    }

    /// Its sizes and hooks.
    fn config(&self) -> &SaeConfig {
        &self.base().config
    }

    /// `x`, normalised and centred, and how to undo that.
    fn prepare(&self, x: Tensor<3>) -> Prepared {
        self.base().prepare(x)
    }

    /// A reconstruction before the normalisation is undone: codes times the decoder, and its bias.
    fn recons(&self, codes: &Codes) -> Tensor<3> {
        let acts = match &codes.predicted {
            None => codes.acts.clone(),
            Some(predicted) => codes.acts.clone() + predicted.clone(),
        };
        self.base().with_bias(self.decode_linear(acts))
    }

    /// The activations of its features.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, pos, d_in]`; returns `batch · pos` rows
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn encode(&self, x: Tensor<3>) -> Result<SparseRows, SaeError> {
        self.sparse_codes(self.prepare(x).x)
    }

    /// The activations of its features, zeros included.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, pos, d_in]`; returns `[batch, pos, d_sae]`
    fn encode_dense(&self, x: Tensor<3>) -> Tensor<3> {
        self.codes(self.prepare(x).x, &mut |pre| pre).acts
    }

    /// The vectors that activations stand for, before any normalisation is undone (which is a
    /// property of the input, not of the activations): a sum over the active features only.
    ///
    /// # Shapes
    ///
    /// - returns `[row, d_out]`
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn decode(&self, codes: &SparseRows) -> Result<Tensor<2>, SaeError> {
        let sum = rows::times(codes, &self.directions());
        Ok(self.base().with_bias(sum.unsqueeze_dim::<3>(0)).squeeze_dim(0))
    }

    /// The reconstruction of `x`, or what a transcoder makes of it.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, pos, d_in]`; returns `[batch, pos, d_out]`
    fn forward_dense(&self, x: Tensor<3>) -> Tensor<3> {
        let prepared = self.prepare(x.clone());
        let codes = self.codes(prepared.x.clone(), &mut |pre| pre);
        let out = prepared.undo(self.recons(&codes));
        match self.skip(&x) {
            Some(skip) => out + skip,
            None => out,
        }
    }
}

/// `x w`.
///
/// # Shapes
///
/// - `x`: `[batch, pos, a]`, `w`: `[a, b]`; returns `[batch, pos, b]`
pub(crate) fn linear(x: Tensor<3>, w: &Tensor<2>) -> Tensor<3> {
    kernels::linear(x, w.clone(), None)
}

/// Some entries of what has one for each feature.
pub(crate) fn entries(v: &Tensor<1>, features: &Tensor<1, Int>) -> Tensor<1> {
    v.clone().select(0, features.clone())
}

/// A vector, to be added to every position.
pub(crate) fn along(v: &Tensor<1>) -> Tensor<3> {
    v.clone().unsqueeze()
}
