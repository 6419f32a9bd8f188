//! Next-token cross-entropy.

use burn::tensor::{Int, Tensor};
use burn_lens_tensor::numeric;

/// `-log p(token[pos + 1] | tokens[..= pos])`, in the accumulator type.
///
/// # Shapes
///
/// - `logits`: `[batch, pos, d_vocab_out]`, `tokens`: `[batch, pos]`
/// - returns: `[batch, pos - 1]`
pub(crate) fn per_token(logits: Tensor<3>, tokens: Tensor<2, Int>) -> Tensor<2> {
    let [batch, pos, _] = logits.dims();
    let log_probs = numeric::log_softmax(logits.narrow(1, 0, pos - 1));
    let next = tokens.narrow(1, 1, pos - 1).unsqueeze_dim::<3>(2);
    -log_probs.gather(2, next).reshape([batch, pos - 1])
}

/// The mean over positions whose token and next token are both no padding.
///
/// # Shapes
///
/// - `per_token`: `[batch, pos - 1]`, `mask`: `[batch, pos]`
/// - returns: `[1]`
pub(crate) fn mean(per_token: Tensor<2>, mask: Option<&Tensor<2, Int>>) -> Tensor<1> {
    let Some(mask) = mask else { return per_token.mean() };
    let [_, pos] = mask.dims();
    let token = mask.clone().not_equal_elem(0).float().cast(per_token.dtype());
    let counts = token.clone().narrow(1, 0, pos - 1) * token.narrow(1, 1, pos - 1);
    (per_token * counts.clone()).sum() / counts.sum()
}
