//! `refactor_factored_attn_matrices`: a canonical factorisation of each head's circuits.
//!
//! - QK, with the biases as an extra row of `W_Q` and `W_K`: `W_Q W_Kᵀ = U S Vᵀ` becomes
//!   `W_Q ← U √S`, `W_K ← V √S`.
//! - OV: `W_V W_O = U S Vᵀ` becomes `W_V ← U S`, `W_O ← Vᵀ`; `b_V W_O` moves into `b_O`.
//!
//! Signs of singular vectors are fixed as `burn-lens-linalg` documents, so factors may differ
//! from TransformerLens's by a sign for each dimension of a head; products are the same.

use burn::tensor::Tensor;
use burn_lens_linalg::{Svd, svd};

use super::{Draft, fold_value_biases};
use crate::{ModelError, Param};

pub(super) fn run(draft: &mut Draft) -> Result<(), ModelError> {
    fold_value_biases::run(draft, false)?;
    for l in 0..draft.config.n_layers {
        refactor_qk(draft, l)?;
        refactor_ov(draft, l)?;
    }
    Ok(())
}

fn decomposed(m: Tensor<2>, param: Param) -> Result<Svd, ModelError> {
    svd(m).map_err(|error| ModelError::Decomposition { param, reason: error.to_string() })
}

fn refactor_qk(draft: &mut Draft, l: usize) -> Result<(), ModelError> {
    let attention = &draft.config.attention;
    let (n_heads, d_head, d_model) = (attention.n_heads, attention.d_head, draft.config.d_model);
    let (w_q, w_k): (Tensor<2>, Tensor<2>) =
        (draft.params.get(Param::WQ(l))?, draft.params.get(Param::WK(l))?);
    let with_bias = |w: Tensor<2>, b: Option<Tensor<1>>| {
        let b = b.unwrap_or_else(|| Tensor::zeros([n_heads * d_head], (&w.device(), w.dtype())));
        Tensor::cat(vec![w, b.unsqueeze()], 0)
    };
    let q = with_bias(w_q, draft.params.find(Param::BQ(l)));
    let k = with_bias(w_k, draft.params.find(Param::BK(l)));
    let (mut qs, mut ks) = (Vec::new(), Vec::new());
    for head in 0..n_heads {
        let (q, k) = (q.clone().narrow(1, head * d_head, d_head), k.clone().narrow(1, head * d_head, d_head));
        let Svd { u, s, v } = decomposed(q.matmul(k.transpose()), Param::WQ(l))?;
        let rank = d_head.min(d_model + 1);
        let root = s.narrow(0, 0, rank).sqrt().unsqueeze::<2>();
        let padded = |x: Tensor<2>| widened(x.narrow(1, 0, rank) * root.clone(), d_head);
        qs.push(padded(u));
        ks.push(padded(v));
    }
    for (w, b, heads) in [(Param::WQ(l), Param::BQ(l), qs), (Param::WK(l), Param::BK(l), ks)] {
        let all = Tensor::cat(heads, 1);
        draft.params.insert(w, all.clone().narrow(0, 0, d_model));
        draft.params.insert(b, all.narrow(0, d_model, 1).squeeze_dim::<1>(0));
    }
    draft.config.attention.qkv_bias = true;
    if !draft.params.contains(Param::BV(l)) {
        let w_v: Tensor<2> = draft.params.get(Param::WV(l))?;
        draft
            .params
            .insert(Param::BV(l), Tensor::<1>::zeros([n_heads * d_head], (&w_v.device(), w_v.dtype())));
    }
    Ok(())
}

fn refactor_ov(draft: &mut Draft, l: usize) -> Result<(), ModelError> {
    let attention = &draft.config.attention;
    let (n_heads, d_head, d_model) = (attention.n_heads, attention.d_head, draft.config.d_model);
    let (w_v, w_o): (Tensor<2>, Tensor<2>) =
        (draft.params.get(Param::WV(l))?, draft.params.get(Param::WO(l))?);
    let (mut vs, mut os) = (Vec::new(), Vec::new());
    for head in 0..n_heads {
        let v = w_v.clone().narrow(1, head * d_head, d_head);
        let o = w_o.clone().narrow(0, head * d_head, d_head);
        let Svd { u, s, v } = decomposed(v.matmul(o), Param::WV(l))?;
        let rank = d_head.min(d_model);
        let s = s.narrow(0, 0, rank).unsqueeze::<2>();
        vs.push(widened(u.narrow(1, 0, rank) * s, d_head));
        os.push(widened(v.narrow(1, 0, rank), d_head).transpose());
    }
    draft.params.insert(Param::WV(l), Tensor::cat(vs, 1));
    draft.params.insert(Param::WO(l), Tensor::cat(os, 0));
    Ok(())
}

/// `x` with zero columns up to `d_head`, for heads wider than the stream.
fn widened(x: Tensor<2>, d_head: usize) -> Tensor<2> {
    let [rows, cols] = x.dims();
    if cols == d_head {
        return x;
    }
    let zeros = Tensor::zeros([rows, d_head - cols], (&x.device(), x.dtype()));
    Tensor::cat(vec![x, zeros], 1)
}
