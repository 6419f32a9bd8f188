//! `fold_ln`: norm weights and biases into what reads the norm's output.
//!
//! For `y = (x̂ ⊙ w + b) W + c`: `W ← w ⊙ W` (row by row) and `c ← c + b W`. Layer norm leaves
//! `x̂` with mean zero over `d_model`, so the mean of each column of `W` is then removed.
//!
//! Norms on what a half *writes* (Gemma 2's second pair) are left as they are.

use burn::tensor::Tensor;

use super::Draft;
use crate::{
    ModelError, Param,
    components::NormKind,
    config::{Interface, MlpKind},
};

/// Weights that read a norm, with their biases.
type Readers<'a> = &'a [(Param, Param)];

pub(super) fn run(draft: &mut Draft) -> Result<(), ModelError> {
    let kind = draft.config.norm.kind;
    let gated = draft.config.mlp.as_ref().is_some_and(|mlp| mlp.kind == MlpKind::Gated);
    let has_mlp = draft.config.mlp.is_some();
    for l in 0..draft.config.n_layers {
        let qkv = [(Param::WQ(l), Param::BQ(l)), (Param::WK(l), Param::BK(l)), (Param::WV(l), Param::BV(l))];
        fold(draft, kind, Param::Ln1W(l), Param::Ln1B(l), &qkv)?;
        if has_mlp {
            let both = [(Param::WIn(l), Param::BIn(l)), (Param::WGate(l), Param::BGate(l))];
            let readers: Readers<'_> = if gated { &both } else { &both[..1] };
            fold(draft, kind, Param::Ln2W(l), Param::Ln2B(l), readers)?;
            // The norm inside a SoLU MLP centres over d_mlp.
            let inner = [(Param::WOut(l), Param::BOut(l))];
            if draft.params.contains(Param::MlpLnW(l)) {
                fold(draft, NormKind::Layer, Param::MlpLnW(l), Param::MlpLnB(l), &inner)?;
            }
        }
    }
    let final_kind = draft.config.norm.final_kind;
    let last = match draft.config.interface {
        Interface::Tokens => (Param::WU, Param::BU),
        Interface::Vectors(_) => (Param::ReadOutW, Param::ReadOutB),
    };
    fold(draft, final_kind, Param::LnFinalW, Param::LnFinalB, &[last])?;
    settle(draft);
    Ok(())
}

fn fold(
    draft: &mut Draft,
    kind: NormKind,
    w: Param,
    b: Param,
    readers: Readers<'_>,
) -> Result<(), ModelError> {
    if kind == NormKind::None {
        return Ok(());
    }
    let (scale, shift) = (draft.params.find::<1>(w), draft.params.find::<1>(b));
    for &(matrix, bias) in readers {
        let mut m: Tensor<2> = draft.params.get(matrix)?;
        if let Some(shift) = &shift {
            let added = shift.clone().unsqueeze::<2>().matmul(m.clone()).squeeze_dim::<1>(0);
            let folded = match draft.params.find::<1>(bias) {
                Some(bias) => bias + added,
                None => added,
            };
            draft.params.insert(bias, folded);
        }
        if let Some(scale) = &scale {
            m = m * scale.clone().unsqueeze_dim(1);
        }
        if kind == NormKind::Layer {
            m = m.clone() - m.mean_dim(0);
        }
        draft.params.insert(matrix, m);
    }
    draft.params.remove(w);
    draft.params.remove(b);
    Ok(())
}

/// The configuration that the folded weights have.
fn settle(draft: &mut Draft) {
    let Draft { config, params } = draft;
    // The norms that stay (after the embedding, after the halves) keep their weights, which
    // are looked for by name; new biases are part of the model from now on.
    config.norm.weights = false;
    config.attention.qkv_bias |= params.contains(Param::BQ(0));
    config.unembed_bias |= params.contains(Param::BU);
    if let Interface::Vectors(readers) = &mut config.interface {
        readers.out_bias |= params.contains(Param::ReadOutB);
    }
    config.tied = false;
}
