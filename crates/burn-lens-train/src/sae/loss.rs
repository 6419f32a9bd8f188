//! What a batch costs.

use burn::tensor::{Bool, IndexingUpdateOp, Tensor, TensorData, activation::relu};

use super::{SaeConfig, SaeWeights, Sparsity};

/// The loss of a batch and what it is made of; tracked as far as the weights are.
pub(super) struct Loss {
    /// `[1]`
    pub(super) total: Tensor<1>,
    /// `x̂`, `[batch, d_in]`
    pub(super) reconstruction: Tensor<2>,
    /// `a`, `[batch, d_sae]`
    pub(super) codes: Tensor<2>,
}

impl Loss {
    /// The loss of `x`, `[batch, d_in]`, at a step. `dead` says which features are.
    pub(super) fn of(
        config: &SaeConfig,
        weights: &SaeWeights,
        x: &Tensor<2>,
        (step, dead): (usize, &[bool]),
    ) -> Self {
        let norms = weights.norms();
        let row = norms.clone().transpose();
        let centered = x.clone() - weights.b_dec.clone().unsqueeze();
        let pre = centered.matmul(weights.w_enc.clone()) + weights.b_enc.clone().unsqueeze();
        let bias = || weights.b_dec.clone().unsqueeze();
        match config.sparsity {
            Sparsity::L1 { coefficient, warmup_steps } => {
                let codes = relu(pre);
                let reconstruction = codes.clone().matmul(weights.w_dec.clone()) + bias();
                let risen = ((step + 1) as f64 / warmup_steps.max(1) as f64).min(1.0);
                let penalty = (codes.clone() * row).sum_dim(1).mean() * (coefficient * risen);
                let total = squared_error(&reconstruction, x) + penalty;
                Self { total, reconstruction, codes }
            }
            Sparsity::TopK { k, auxiliary } => {
                let (pre, decoder) = (pre * row, weights.w_dec.clone() / norms);
                let codes = relu(pre.clone()) * largest(&pre, k);
                let reconstruction = codes.clone().matmul(decoder.clone()) + bias();
                let mut total = squared_error(&reconstruction, x);
                let n_dead = dead.iter().filter(|&&dead| dead).count();
                if n_dead > 0 && auxiliary > 0.0 {
                    let left = (x.clone() - reconstruction.clone()).detach();
                    let half = (config.d_in / 2).max(1);
                    let chosen = largest(&only(&pre, dead), half.min(n_dead));
                    let found = (pre * chosen).matmul(decoder);
                    let weight = auxiliary * (n_dead as f64 / half as f64).min(1.0);
                    total = total + squared_error(&found, &left) * weight;
                }
                Self { total, reconstruction, codes }
            }
        }
    }
}

/// `mean ‖x̂ − x‖²`
pub(super) fn squared_error(found: &Tensor<2>, x: &Tensor<2>) -> Tensor<1> {
    (found.clone() - x.clone()).square().sum_dim(1).mean()
}

/// 1 at the `k` largest of each row, 0 elsewhere; not tracked.
fn largest(pre: &Tensor<2>, k: usize) -> Tensor<2> {
    let pre = pre.clone().detach();
    let (_, indices) = pre.clone().topk_with_indices(k, 1);
    let ones = Tensor::ones(indices.dims(), (&pre.device(), pre.dtype()));
    pre.zeros_like().scatter(1, indices, ones, IndexingUpdateOp::Add)
}

/// `pre` of dead features, and less than any number of the others; not tracked.
fn only(pre: &Tensor<2>, dead: &[bool]) -> Tensor<2> {
    let live: Vec<bool> = dead.iter().map(|dead| !dead).collect();
    let live = Tensor::<1, Bool>::from_data(TensorData::new(live, [dead.len()]), &pre.device());
    let [batch, d_sae] = pre.dims();
    pre.clone().detach().mask_fill(live.unsqueeze::<2>().expand([batch, d_sae]), f32::NEG_INFINITY)
}
