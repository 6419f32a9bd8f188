//! Circuits: what heads read and write, from the weights alone.
//!
//! - [`Circuits`]: QK, OV and full circuits of every head as factored matrices, copying scores,
//!   composition, scores of attention patterns
//! - [`SvdInterpreter`]: the tokens behind singular vectors
//! - [`effective_embedding`]: what the first MLP makes of each token
//!
//! Everything is exact: full circuits of `d_vocab × d_vocab` are worked with through their factors.

mod composition;
mod embedding;
mod folding;
mod qk_scores;
mod spaces;
mod svd_interpreter;

use std::ops::Range;

use burn::tensor::Tensor;
use burn_lens_hooks::{HookedModel, ModelDims, NormSite, Param, RunError};
use burn_lens_linalg::{FactoredMatrix, Matrices, Values};
use burn_lens_tensor::{kernels, numeric};

use crate::AnalysisError;
use folding::Folder;

pub use composition::{Composition, CompositionPair, all_head_labels};
pub use embedding::effective_embedding;
pub use folding::Folding;
pub use qk_scores::QkScores;
pub use spaces::Space;
pub use svd_interpreter::{SingularVectors, SvdInterpreter, VectorTokens, VectorType};

/// The circuits of a model's heads.
///
/// Weights are `[n_layers, n_heads, ..]` in all of them. Where heads share keys and values, nothing
/// is repeated: the factored matrices of a group share a factor.
///
/// ```
/// use burn_lens_analysis::{Circuits, Folding};
/// # use burn_lens_hooks::{Firing, HookedModel, Hooks, Input, ModelDims, Output, Param, RunError, RunOptions};
/// # use burn_lens_tensor::{AnyTensor, DeviceSpec, burn::tensor::{Device, Tensor}};
/// # struct Copier(Device);
/// # impl HookedModel for Copier {
/// #     fn dims(&self) -> ModelDims {
/// #         ModelDims { n_layers: 1, d_model: 3, n_heads: 1, n_kv_heads: 1, d_head: 3, d_vocab: 3, d_vocab_out: 3, ..ModelDims::default() }
/// #     }
/// #     fn firing(&self) -> Firing { Firing::default() }
/// #     fn device(&self) -> Device { self.0.clone() }
/// #     fn forward(&self, _: &Input, _: &RunOptions, _: &mut Hooks<'_>) -> Result<Output, RunError> { unreachable!() }
/// #     fn param(&self, param: Param) -> Option<AnyTensor> {
/// #         matches!(param, Param::Embed | Param::WV(0) | Param::WO(0) | Param::WU).then(|| Tensor::<2>::eye(3, &self.0).into())
/// #     }
/// # }
/// # let model = Copier(DeviceSpec::cpu().open()?);
/// // A head that writes what it reads, between an embedding and an unembedding that agree.
/// let circuits = Circuits::new(&model, Folding::default())?;
/// assert_eq!(circuits.ov()?.shape(), [1, 1, 3, 3]);
/// assert!((circuits.copying_scores()?.get(&[0, 0]) - 1.0).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: Elhage et al., *A Mathematical Framework for Transformer Circuits* (2021); `QK`, `OV` and
/// `all_composition_scores` of TransformerLens.
#[derive(Debug)]
pub struct Circuits<'m, M: HookedModel + ?Sized> {
    model: &'m M,
    dims: ModelDims,
    folder: Folder,
}

impl<'m, M: HookedModel + ?Sized> Circuits<'m, M> {
    /// The circuits of `model`.
    ///
    /// # Errors
    ///
    /// If norms are to be folded and the model does not say how it is wired, or has no heads.
    pub fn new(model: &'m M, folding: Folding) -> Result<Self, AnalysisError> {
        let dims = model.dims();
        if dims.n_layers * dims.n_heads * dims.n_kv_heads == 0
            || !dims.n_heads.is_multiple_of(dims.n_kv_heads)
        {
            let reason = format!(
                "{} layers of {} heads with {} key and value heads",
                dims.n_layers, dims.n_heads, dims.n_kv_heads
            );
            return Err(AnalysisError::Refused { what: "the circuits of this model", reason });
        }
        Ok(Self { model, dims, folder: Folder::new(model, folding)? })
    }

    /// What was done to the weights, and what of the model is not in its circuits, a sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        self.folder.notes()
    }

    /// The model's sizes.
    #[must_use]
    pub fn dims(&self) -> ModelDims {
        self.dims
    }

    /// A weight as a matrix, with the norm that it reads through folded in.
    fn reader(&self, param: Param, site: NormSite) -> Result<Tensor<2>, AnalysisError> {
        self.folder.reader(self.model, param, site)
    }

    /// A weight as a matrix.
    fn weight(&self, param: Param) -> Result<Tensor<2>, AnalysisError> {
        folding::weight(self.model, param)
    }

    /// Queries, keys or values: `[layers, heads, d_model, d_head]`, with `heads` as they are stored.
    fn heads_in(
        &self,
        of: fn(usize) -> Param,
        heads: usize,
        layers: Range<usize>,
    ) -> Result<Matrices, AnalysisError> {
        let ModelDims { d_model, d_head, .. } = self.dims;
        let layer = |layer: usize| {
            let w = self.reader(of(layer), NormSite::Ln1(layer))?;
            check(of(layer), &w, [d_model, heads * d_head])?;
            Ok(w.reshape([d_model, heads, d_head]).permute([1, 0, 2]))
        };
        stacked(layers, layer)
    }

    /// Outputs: `[layers, n_heads, d_head, d_model]`.
    fn heads_out(&self, layers: Range<usize>) -> Result<Matrices, AnalysisError> {
        let ModelDims { n_heads, d_model, d_head, .. } = self.dims;
        let layer = |layer: usize| {
            let w = self.weight(Param::WO(layer))?;
            check(Param::WO(layer), &w, [n_heads * d_head, d_model])?;
            Ok(w.reshape([n_heads, d_head, d_model]))
        };
        stacked(layers, layer)
    }

    /// `[layers, n_kv_heads, 1, ..]`, to broadcast over the heads of a group.
    fn shared(&self, m: &Matrices) -> Matrices {
        Matrices::new(vec![m.lead()[0], self.dims.n_kv_heads, 1], m.flat())
    }

    /// `[layers, n_kv_heads, heads of a group, ..]`.
    fn grouped(&self, m: &Matrices) -> Matrices {
        let ModelDims { n_heads, n_kv_heads, .. } = self.dims;
        Matrices::new(vec![m.lead()[0], n_kv_heads, n_heads / n_kv_heads], m.flat())
    }

    fn ov_of(&self, layers: Range<usize>) -> Result<FactoredMatrix, AnalysisError> {
        let (w_v, w_o) =
            (self.heads_in(Param::WV, self.dims.n_kv_heads, layers.clone())?, self.heads_out(layers)?);
        let ov = FactoredMatrix::new(self.shared(&w_v), self.grouped(&w_o))?;
        Ok(ov.with_lead(w_o.lead()).named("OV"))
    }

    fn qk_of(&self, layers: Range<usize>) -> Result<FactoredMatrix, AnalysisError> {
        let w_q = self.heads_in(Param::WQ, self.dims.n_heads, layers.clone())?;
        let w_k = self.heads_in(Param::WK, self.dims.n_kv_heads, layers)?;
        let w_k = Matrices::new(w_k.lead().to_vec(), w_k.flat().transpose());
        let qk = FactoredMatrix::new(self.grouped(&w_q), self.shared(&w_k))?;
        Ok(qk.with_lead(w_q.lead()).named("QK"))
    }

    fn layers(&self) -> Range<usize> {
        0..self.dims.n_layers
    }

    /// `W_V W_O` of every head: what it writes of what it reads, where it attends.
    ///
    /// # Shapes
    ///
    /// - returns `[n_layers, n_heads, d_model, d_model]`, with inner dimension `d_head`
    ///
    /// # Errors
    ///
    /// If the model does not give its weights.
    pub fn ov(&self) -> Result<FactoredMatrix, AnalysisError> {
        self.ov_of(self.layers())
    }

    /// `W_Q W_Kᵀ` of every head: the attention score, before its scale, that a stream on the left
    /// gives one on the right. Of rotary models, the score at distance 0.
    ///
    /// # Shapes
    ///
    /// - returns `[n_layers, n_heads, d_model, d_model]`, with inner dimension `d_head`
    ///
    /// # Errors
    ///
    /// If the model does not give its weights.
    pub fn qk(&self) -> Result<FactoredMatrix, AnalysisError> {
        self.qk_of(self.layers())
    }

    /// `W_E`: `[d_vocab, d_model]`.
    ///
    /// # Errors
    ///
    /// If the model does not give it.
    pub fn w_e(&self) -> Result<Tensor<2>, AnalysisError> {
        self.weight(Param::Embed)
    }

    /// `W_U`, with the final norm folded in: `[d_model, d_vocab_out]`.
    ///
    /// # Errors
    ///
    /// If the model does not give it.
    pub fn w_u(&self) -> Result<Tensor<2>, AnalysisError> {
        self.reader(Param::WU, NormSite::Final)
    }

    /// `W_E OV W_U` of every head: what attending to a token does to the logits.
    ///
    /// Embedding and unembedding stay factors of their own, so this takes the memory of the heads
    /// alone, and its eigenvalues need `W_U W_E` once for all heads.
    ///
    /// # Shapes
    ///
    /// - returns `[n_layers, n_heads, d_vocab, d_vocab_out]`
    ///
    /// # Errors
    ///
    /// If the model does not give its weights.
    pub fn full_ov(&self) -> Result<FactoredMatrix, AnalysisError> {
        Ok(self.ov()?.matmul_left(self.w_e()?)?.matmul(self.w_u()?)?.named("full OV"))
    }

    /// `W_E QK W_Eᵀ` of every head: how much each token, as destination, attends to each, as source.
    ///
    /// # Shapes
    ///
    /// - returns `[n_layers, n_heads, d_vocab, d_vocab]`
    ///
    /// # Errors
    ///
    /// If the model does not give its weights.
    pub fn full_qk(&self) -> Result<FactoredMatrix, AnalysisError> {
        let w_e = self.w_e()?;
        Ok(self.qk()?.matmul_left(w_e.clone())?.matmul(w_e.transpose())?.named("full QK"))
    }

    /// `Σ Re λ / Σ |λ|` over the eigenvalues of each head's full OV circuit: near 1 where attending to
    /// a token makes the same token likelier, near −1 where it makes it less likely.
    ///
    /// # Shapes
    ///
    /// - returns `[n_layers, n_heads]`
    ///
    /// # Errors
    ///
    /// If the model does not give its weights, its vocabularies differ, or a weight is not finite.
    pub fn copying_scores(&self) -> Result<Values, AnalysisError> {
        Ok(self.full_ov()?.eigenvalues()?.positive_share())
    }

    /// The same of OV alone, without embedding and unembedding.
    ///
    /// # Shapes
    ///
    /// - returns `[n_layers, n_heads]`
    ///
    /// # Errors
    ///
    /// As [`Circuits::copying_scores`].
    pub fn ov_copying_scores(&self) -> Result<Values, AnalysisError> {
        Ok(self.ov()?.eigenvalues()?.positive_share())
    }

    /// Checks a layer and a head that somebody asked for.
    fn check_head(&self, layer: usize, head: Option<usize>) -> Result<(), AnalysisError> {
        let ModelDims { n_layers, n_heads, .. } = self.dims;
        if layer >= n_layers {
            let layer = isize::try_from(layer).unwrap_or(isize::MAX);
            return Err(RunError::LayerOutOfRange { what: "layer", layer, n_layers }.into());
        }
        match head {
            Some(head) if head >= n_heads => Err(AnalysisError::Head { head, n_heads }),
            _ => Ok(()),
        }
    }
}

/// The heads `[heads, ..]` of some layers behind each other, each written once.
fn stacked(
    layers: Range<usize>,
    of: impl Fn(usize) -> Result<Tensor<3>, AnalysisError>,
) -> Result<Matrices, AnalysisError> {
    let n = layers.len();
    let mut stack: Option<Tensor<3>> = None;
    let mut count = 0;
    for (at, layer) in layers.enumerate() {
        let heads = of(layer)?;
        let [rows, cols] = [heads.dims()[1], heads.dims()[2]];
        count = heads.dims()[0];
        let room = || numeric::zeros([n * count, rows, cols], &heads.device(), heads.dtype());
        let whole = stack.take().unwrap_or_else(room);
        stack = Some(kernels::placed(whole, at * count, heads));
    }
    let stack = stack.ok_or_else(|| AnalysisError::Refused {
        what: "the circuits of this model",
        reason: "it has no blocks".to_owned(),
    })?;
    Ok(Matrices::new(vec![n, count], stack))
}

fn check(param: Param, w: &Tensor<2>, expected: [usize; 2]) -> Result<(), AnalysisError> {
    if w.dims() == expected {
        return Ok(());
    }
    let reason = format!("`{param}` has shape {:?}, but the model's sizes say {expected:?}", w.dims());
    Err(AnalysisError::Refused { what: "the circuits of this model", reason })
}
