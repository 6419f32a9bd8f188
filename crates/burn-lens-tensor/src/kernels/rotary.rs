//! Rotary position embedding.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::{RowOp, fused, half};
use crate::backend;

/// Sine and cosine of every pair of dimensions at some positions, on the host.
#[derive(Clone, Debug)]
pub struct Turns {
    /// `[positions · half]`
    pub cos: Arc<[f32]>,
    /// `[positions · half]`
    pub sin: Arc<[f32]>,
    /// How many positions the tables hold: those of one prompt, or of every prompt in turn.
    pub positions: usize,
    /// How many pairs are turned; the dimensions behind them stay.
    pub half: usize,
    /// Pairs are neighbors; if not, the halves of the turned dimensions.
    pub adjacent: bool,
}

impl Turns {
    /// The turns back.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { sin: self.sin.iter().map(|sin| -sin).collect(), ..self.clone() }
    }
}

/// Turns `x` by `turns`, or composes the same with `composed` where there is no kernel.
///
/// # Shapes
///
/// - `x`: `[batch, pos, heads, d_head]`; returns the same
#[must_use]
pub fn rotate(x: Tensor<4>, turns: &Turns, composed: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
    let [_, _, _, d_head] = x.dims();
    let turned = |x| backend::map(x, RowOp::Rotate(turns.clone(), d_head));
    if fused(&x, true) || half(&x) { turned(x) } else { composed(x) }
}
