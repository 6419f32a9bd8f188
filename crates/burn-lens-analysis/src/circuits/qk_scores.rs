//! What heads attend to, from their weights: the token itself, its own position, the one before.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookedModel, ModelDims, NormPlacement, Param};
use burn_lens_linalg::{FactoredMatrix, Values};
use burn_lens_tensor::Norm;

use super::{Circuits, folding::weight};
use crate::{AnalysisError, error::to_host};

/// What each head attends to by its QK circuit alone, in standard deviations: how far the score of
/// the place in question lies above the mean score of all that the head can attend to. 0 for a head
/// that does not care.
///
/// Rows and columns are embeddings behind the norm that heads read through, without its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct QkScores {
    /// The same token, among all tokens: `[n_layers, n_heads]`.
    pub duplicate_token: Values,
    /// Its own position, among those before it, by learned positions alone; `None` in models without.
    pub self_attention: Option<Values>,
    /// The position before, likewise.
    pub previous_token: Option<Values>,
}

impl<M: HookedModel + ?Sized> Circuits<'_, M> {
    /// What each head attends to by its weights alone: see [`QkScores`].
    ///
    /// Of tokens, with `F = X QK (X − mean X)ᵀ` over the embeddings `X`: `tr F / ‖F‖`, the mean over
    /// destinations of the score of the same token above the mean, in units of the root mean variance
    /// over sources; `F` itself is never formed. Of positions, the same with the scores of each
    /// destination over the sources that it sees.
    ///
    /// # Errors
    ///
    /// If the model does not give its weights, or one is not finite.
    pub fn qk_scores(&self) -> Result<QkScores, AnalysisError> {
        let x = self.normalized(self.w_e()?);
        let centered = x.clone() - x.clone().mean_dim(0);
        let full = self.qk()?.matmul_left(x)?.matmul(centered.transpose())?.named("QK between embeddings");
        let (traces, norms) = (full.trace()?, full.norm()?);
        let scores =
            traces.data().iter().zip(norms.data()).map(|(&trace, &norm)| ratio(trace, norm)).collect();
        let duplicate_token = Values::new(traces.shape().to_vec(), scores);
        let by_position = |distance| -> Result<Option<Values>, AnalysisError> {
            if self.model.param(Param::PosEmbed).is_none() {
                return Ok(None);
            }
            let x = self.normalized(weight(self.model, Param::PosEmbed)?);
            let scores = self.qk()?.matmul_left(x.clone())?.matmul(x.transpose())?;
            self.by_distance(&scores, distance).map(Some)
        };
        Ok(QkScores { duplicate_token, self_attention: by_position(0)?, previous_token: by_position(1)? })
    }

    /// Rows of the stream as heads read them, but for the norm's weights.
    fn normalized(&self, rows: Tensor<2>) -> Tensor<2> {
        match self.model.wiring() {
            Some(wiring) if wiring.placement != NormPlacement::Post => {
                Norm { kind: wiring.norm, eps: wiring.eps, w: None, b: None }.apply(rows)
            }
            _ => rows,
        }
    }

    /// The scores of sources `distance` before their destination, of matrices `[.., pos, pos]`.
    fn by_distance(&self, scores: &FactoredMatrix, distance: usize) -> Result<Values, AnalysisError> {
        let ModelDims { n_layers, n_heads, .. } = self.dims;
        let causal = self.model.wiring().is_none_or(|wiring| wiring.causal);
        let mut found = Vec::with_capacity(n_layers * n_heads);
        for layer in 0..n_layers {
            for head in 0..n_heads {
                let rows = to_host(scores.dense_at(&[layer, head]))?;
                found.push(excess(&rows, scores.ldim(), distance, causal));
            }
        }
        Ok(Values::new(vec![n_layers, n_heads], found))
    }
}

/// Over the rows of scores `[n, n]` that see more than one column: the mean of the score `distance`
/// before the diagonal above the row's mean, in units of the root mean variance of a row.
fn excess(scores: &[f64], n: usize, distance: usize, causal: bool) -> f64 {
    let (mut above, mut variance) = (0.0, 0.0);
    for row in distance.max(1)..n {
        let seen = &scores[row * n..row * n + if causal { row + 1 } else { n }];
        let mean = seen.iter().sum::<f64>() / seen.len() as f64;
        above += seen[row - distance] - mean;
        variance += seen.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / seen.len() as f64;
    }
    let rows = n.saturating_sub(distance.max(1)) as f64;
    ratio(above / rows, (variance / rows).sqrt())
}

fn ratio(value: f64, unit: f64) -> f64 {
    if unit > 0.0 { value / unit } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_scores() {
        // Row 1 sees (0, 2), row 2 sees (0, 0, 3): means 1 and 1, variances 1 and 2.
        let scores = [9.0, 9.0, 9.0, 0.0, 2.0, 9.0, 0.0, 0.0, 3.0];
        assert!((excess(&scores, 3, 0, true) - 1.5 / 1.5f64.sqrt()).abs() < 1e-12);
        assert!((excess(&scores, 3, 1, true) + 1.0 / 1.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(excess(&[1.0; 9], 3, 1, true), 0.0);
    }
}
