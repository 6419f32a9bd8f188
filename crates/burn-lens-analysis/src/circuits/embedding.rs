//! The effective embedding.

use burn::tensor::{Int, Tensor, TensorData};
use burn_lens_hooks::{Hook, HookContext, HookPoint, HookedModel, Input, RunError, RunOptions};

use crate::AnalysisError;

/// What the first block makes of each token on its own: the residual stream behind it, with its
/// attention and the learned positions set to 0.
///
/// For a block with its norm before the MLP: `W_E + MLP(ln2(W_E))`. Heads of later layers read this
/// rather than `W_E`, most of all in models with tied embeddings, where `W_E` must also be what the
/// last layer writes.
///
/// # Shapes
///
/// - returns `[d_vocab, d_model]`
///
/// # Errors
///
/// If the model does not run on tokens.
///
/// Source: Wang et al., *Interpretability in the Wild* (2022), appendix; Gould et al., *Successor
/// Heads* (2023).
pub fn effective_embedding<M: HookedModel + ?Sized>(model: &M) -> Result<Tensor<2>, AnalysisError> {
    /// Tokens a run, each a prompt of its own.
    const BATCH: usize = 1024;
    let (d_vocab, device, fires) = (model.dims().d_vocab, model.device(), model.firing().always);
    let silent =
        [HookPoint::AttnOut(0), HookPoint::PosEmbed].into_iter().filter(|point| fires.contains(point));
    let silent: Vec<HookPoint> = silent.collect();
    let options = RunOptions { stop_at_layer: Some(1), ..RunOptions::default() };
    let mut parts = Vec::with_capacity(d_vocab.div_ceil(BATCH));
    for start in (0..d_vocab).step_by(BATCH) {
        let tokens: Vec<i64> = (start..(start + BATCH).min(d_vocab)).map(|token| token as i64).collect();
        let tokens = TensorData::new(tokens.clone(), [tokens.len(), 1]);
        let input = Input::Tokens(Tensor::<2, Int>::from_data(tokens, &device));
        let zero = |point: &HookPoint| Hook::edit(*point, |x: Tensor<3>, _: &mut HookContext| x.zeros_like());
        let output = model.run_with_hooks(&input, &options, silent.iter().map(zero).collect())?;
        let missing = || RunError::Options("this model gives no residual stream at stop_at_layer".to_owned());
        parts.push(output.resid.ok_or_else(missing)?.squeeze_dim::<2>(1));
    }
    if parts.is_empty() {
        return Err(AnalysisError::Refused {
            what: "the effective embedding",
            reason: "this model has no vocabulary".to_owned(),
        });
    }
    Ok(Tensor::cat(parts, 0))
}
