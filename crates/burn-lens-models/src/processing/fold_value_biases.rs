//! `fold_value_biases`: `b_O ← b_O + Σ_h b_V[h] W_O[h]`, `b_V ← 0`.
//!
//! Exact because pattern rows sum to 1, so each head writes its value bias at every position.

use burn::tensor::Tensor;

use super::Draft;
use crate::{ModelError, Param};

pub(super) fn run(draft: &mut Draft, center: bool) -> Result<(), ModelError> {
    let attention = draft.config.attention.clone();
    let group = attention.n_heads / attention.n_kv_heads;
    for l in 0..draft.config.n_layers {
        let Some(b_v) = draft.params.find::<1>(Param::BV(l)) else { continue };
        let w_o: Tensor<2> = draft.params.get(Param::WO(l))?;
        // Each query head of a group reads the same value head.
        let by_query_head = b_v
            .clone()
            .reshape([attention.n_kv_heads, 1, attention.d_head])
            .repeat_dim(1, group)
            .reshape([1, attention.n_heads * attention.d_head]);
        let mut b_o = by_query_head.matmul(w_o).squeeze_dim::<1>(0);
        if let Some(old) = draft.params.find::<1>(Param::BO(l)) {
            b_o = b_o + old;
        }
        if center {
            b_o = b_o.clone() - b_o.mean();
        }
        draft.params.insert(Param::BO(l), b_o);
        draft.params.insert(Param::BV(l), b_v.zeros_like());
        draft.config.attention.out_bias = true;
    }
    Ok(())
}
