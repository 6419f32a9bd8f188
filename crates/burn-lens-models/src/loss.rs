//! Next-token cross-entropy.

use burn::tensor::{Int, Tensor};
use burn_lens_hooks::Hooks;
use burn_lens_tensor::{kernels, numeric};

use crate::components::Unembed;

/// How many rows of logits are in memory at once where nobody asks for logits.
const ROWS: usize = 512;

/// `-log p(token[pos + 1] | tokens[..= pos])`, in the accumulator type.
///
/// # Shapes
///
/// - `logits`: `[batch, pos, d_vocab_out]`, `tokens`: `[batch · pos]`, each below `d_vocab_out`
/// - returns: `[batch, pos - 1]`
pub(crate) fn per_token(logits: Tensor<3>, tokens: &[i64]) -> Tensor<2> {
    let [batch, pos, d_vocab] = logits.dims();
    let (rows, _) = numeric::widened(logits.reshape([batch * pos, d_vocab]));
    let losses = kernels::negative_log_likelihood(rows, &next_tokens(tokens, pos));
    losses.reshape([batch, pos]).narrow(1, 0, pos - 1)
}

/// The same from the stream before the unembedding, whose logits are not kept: no more than
/// [`ROWS`] rows of them are in memory at once.
///
/// # Shapes
///
/// - `stream`: `[batch, pos, d_model]`; returns `[batch, pos - 1]`
pub(crate) fn per_token_of_stream(unembed: &Unembed, stream: Tensor<3>, tokens: &[i64]) -> Tensor<2> {
    let [batch, pos, d_model] = stream.dims();
    let total = batch * pos;
    // Chunks of about one size: a product of very few rows takes another kernel.
    let chunk = total.div_ceil(total.div_ceil(ROWS));
    let stream = stream.reshape([1, total, d_model]);
    let targets = next_tokens(tokens, pos);
    let losses = (0..total).step_by(chunk).map(|start| {
        let rows = chunk.min(total - start);
        let logits = unembed.forward(&mut Hooks::none(), stream.clone().narrow(1, start, rows));
        let (logits, _) = numeric::widened(logits.squeeze_dim::<2>(0));
        kernels::negative_log_likelihood(logits, &targets[start..start + rows])
    });
    Tensor::cat(losses.collect(), 0).reshape([batch, pos]).narrow(1, 0, pos - 1)
}

/// The token behind each one; any at all behind the last of a prompt, whose loss is dropped.
fn next_tokens(tokens: &[i64], pos: usize) -> Vec<usize> {
    let next =
        |row: &[i64]| row[1..].iter().chain([&0]).map(|&token| token.unsigned_abs() as usize).collect();
    tokens.chunks(pos).flat_map(|row| -> Vec<usize> { next(row) }).collect()
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
