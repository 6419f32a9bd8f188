//! Normalisations folded into weights, so that the dictionary does the same without them.

use burn::tensor::Tensor;

use crate::{Normalization, SaeError, SparseAutoencoder, affine::row_norms};

/// Gives every row of the decoder norm 1, `W_dec / n`, and features the activations that go with it:
/// `W_enc · n`, `b_enc · n`, thresholds `· n`. Reconstructions stay what they are.
///
/// # Errors
///
/// If which features are active depends on the norms: top-k kinds that are not rescaled, matching
/// pursuit, temporal.
pub fn fold_w_dec_norm(sae: &mut dyn SparseAutoencoder) -> Result<(), SaeError> {
    let norms = norms(&sae.base().w_dec);
    sae.scale_latents(&norms)?;
    let base = sae.base_mut();
    base.w_dec = base.w_dec.clone() / norms.clone().unsqueeze_dim(1);
    base.w_enc = base.w_enc.clone() * norms.unsqueeze();
    Ok(())
}

/// The norms of a decoder's rows, none of them 0: a row of zeros stays one. As in SAELens.
pub(crate) fn norms(w_dec: &Tensor<2>) -> Tensor<1> {
    const LEAST: f64 = 1e-8;
    row_norms(w_dec).clamp_min(LEAST)
}

/// Makes a dictionary that was trained on activations times `factor` (`√d_in` over their mean norm)
/// one for activations as they are: `W_enc · s`, `W_dec / s`, `b_dec / s`. A transcoder's output was
/// not scaled, so only its encoder is changed.
///
/// A matching pursuit has one matrix for both. Its rows stay as they are, and its threshold becomes
/// `/ s`; so do its activations. (SAELens divides the rows, after which they have not norm 1 and the
/// pursuit finds something else.)
///
/// # Errors
///
/// If its kind does not allow it (temporal).
pub fn fold_scaling_factor(sae: &mut dyn SparseAutoencoder, factor: f64) -> Result<(), SaeError> {
    sae.scale_input(factor)?;
    let tied = sae.is_tied();
    let base = sae.base_mut();
    if !tied {
        base.w_enc = base.w_enc.clone() * factor;
    }
    if base.undoes_normalization {
        if !tied {
            base.w_dec = base.w_dec.clone() / factor;
        }
        base.b_dec = base.b_dec.clone() / factor;
    }
    Ok(())
}

/// How activations were whitened: `z = (x − mean) M`.
#[derive(Clone, Debug)]
pub struct Whitening {
    /// `[d_in]`
    pub mean: Tensor<1>,
    /// `M`, `[d_in, d_in]`
    pub matrix: Tensor<2>,
    /// Its inverse, `[d_in, d_in]`
    pub inverse: Tensor<2>,
}

/// Makes a dictionary that was trained on whitened activations one for activations as they are:
/// `W_enc ← M W_enc`, `W_dec ← W_dec M⁻¹`, `b_dec ← b_dec M⁻¹ + mean`, and, where `b_dec` is not
/// subtracted from the input, `b_enc ← b_enc − mean M W_enc`.
///
/// # Errors
///
/// For kinds whose encoder is tied to the decoder, and for transcoders, whose output was not whitened.
pub fn fold_whitening(sae: &mut dyn SparseAutoencoder, whitening: &Whitening) -> Result<(), SaeError> {
    let refused = |reason| Err(SaeError::Refused { change: "folding a whitening", kind: sae.kind(), reason });
    if sae.is_tied() || sae.reads_context() {
        return refused("its encoder is tied to its decoder");
    }
    if !sae.base().undoes_normalization {
        return refused("what it writes was not whitened");
    }
    if sae.chooses_by_decoder_norms() {
        // Unwhitening changes the norms, and with them the choice; folded, it does not depend on them.
        fold_w_dec_norm(sae)?;
        sae.forget_decoder_norms();
    }
    let Whitening { mean, matrix, inverse } = whitening;
    let base = sae.base_mut();
    base.w_enc = matrix.clone().matmul(base.w_enc.clone());
    base.w_dec = base.w_dec.clone().matmul(inverse.clone());
    base.b_dec = base.b_dec.clone().unsqueeze::<2>().matmul(inverse.clone()).squeeze_dim(0) + mean.clone();
    base.config.normalization = Normalization::None;
    if !base.config.apply_b_dec_to_input {
        let shift = mean.clone().unsqueeze::<2>().matmul(base.w_enc.clone()).squeeze_dim(0);
        sae.shift_latents(&shift);
    }
    Ok(())
}
