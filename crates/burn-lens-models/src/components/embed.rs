//! Tokens and positions into the residual stream.

use burn::tensor::{Int, Tensor, TensorData};

use super::PositionIds;

/// The token embedding.
#[derive(Clone, Debug)]
pub(crate) struct Embed {
    /// `[d_vocab, d_model]`
    pub(crate) w_e: Tensor<2>,
}

impl Embed {
    /// Looks up each token's row.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, pos]`, each below `d_vocab`
    /// - returns: `[batch, pos, d_model]`
    pub(crate) fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [batch, pos] = tokens.dims();
        let [_, d_model] = self.w_e.dims();
        self.w_e.clone().select(0, tokens.reshape([batch * pos])).reshape([batch, pos, d_model])
    }
}

/// The learned position embedding.
#[derive(Clone, Debug)]
pub(crate) struct PosEmbed {
    /// `[n_ctx, d_model]`
    pub(crate) w_pos: Tensor<2>,
}

impl PosEmbed {
    /// Looks up each position's row; padding gets zeros.
    ///
    /// # Shapes
    ///
    /// - returns: `[batch, pos, d_model]`
    pub(crate) fn forward(&self, positions: &PositionIds, batch: usize) -> Tensor<3> {
        let [_, d_model] = self.w_pos.dims();
        let device = self.w_pos.device();
        let rows = positions.rows();
        let pos = rows.first().map_or(0, Vec::len);
        let ids: Vec<i64> = rows.iter().flatten().map(|&pos| pos as i64).collect();
        let ids = Tensor::<1, Int>::from_data(ids.as_slice(), &device);
        let embedded = self.w_pos.clone().select(0, ids).reshape([rows.len(), pos, d_model]);
        let embedded = match positions.padding() {
            None => embedded,
            Some(padding) => {
                let kept: Vec<f64> =
                    padding.iter().flatten().map(|&pad| if pad { 0.0 } else { 1.0 }).collect();
                let kept = TensorData::new(kept, [padding.len(), pos, 1]);
                embedded * Tensor::<3>::from_data(kept, (&device, self.w_pos.dtype()))
            }
        };
        embedded.expand([batch, pos, d_model])
    }
}
