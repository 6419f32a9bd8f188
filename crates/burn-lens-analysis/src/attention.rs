//! What a head attends to, in a few numbers.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, HookedModel};
use burn_lens_tensor::Slice;

use crate::{AnalysisError, error::to_host, resid::Residuals};

/// Means over prompts and query positions of one head's pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSummary {
    /// Its block.
    pub layer: usize,
    /// Its index.
    pub head: usize,
    /// `-Σ p log p` in nats: 0 where a single position is attended to.
    pub entropy: f64,
    /// Attention to the first position.
    pub to_first: f64,
    /// Attention to the position itself.
    pub to_self: f64,
    /// Attention to the position before; the first position has none and is left out.
    pub to_previous: f64,
    /// `Σ p · (query - key)`: how far back it looks, in positions.
    pub distance: f64,
}

/// Summarizes the pattern of every head. All positions must have been kept.
///
/// # Errors
///
/// If a pattern was not kept whole.
pub fn attention_summaries<M: HookedModel + ?Sized>(
    residuals: &Residuals<'_, M>,
) -> Result<Vec<HeadSummary>, AnalysisError> {
    let layers = 0..residuals.dims.n_layers;
    let groups: Vec<_> = layers.clone().map(|layer| vec![HookPoint::AttnPattern(layer)]).collect();
    residuals.need("attention summaries", &groups)?;
    let mut summaries = Vec::new();
    for layer in layers {
        let pattern: Tensor<4> = residuals.get(HookPoint::AttnPattern(layer), &Slice::All)?;
        let [batch, heads, queries, keys] = pattern.dims();
        if queries != keys {
            return Err(AnalysisError::Shape {
                what: "attn.hook_pattern",
                expected: "[batch, n_heads, pos, pos]: every position".to_owned(),
                found: pattern.dims().to_vec(),
            });
        }
        let values = to_host(pattern)?;
        for head in 0..heads {
            let prompts =
                (0..batch).map(|row| &values[(row * heads + head) * queries * keys..][..queries * keys]);
            summaries.push(summarize(layer, head, prompts, queries));
        }
    }
    Ok(summaries)
}

fn summarize<'a>(
    layer: usize,
    head: usize,
    prompts: impl Iterator<Item = &'a [f64]>,
    pos: usize,
) -> HeadSummary {
    let mut sum = HeadSummary {
        layer,
        head,
        entropy: 0.0,
        to_first: 0.0,
        to_self: 0.0,
        to_previous: 0.0,
        distance: 0.0,
    };
    let mut rows = 0.0f64;
    let mut later_rows = 0.0f64;
    for pattern in prompts {
        for (query, row) in pattern.chunks(pos).enumerate() {
            rows += 1.0;
            sum.entropy -= row.iter().filter(|&&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>();
            sum.to_first += row[0];
            sum.to_self += row[query];
            if query > 0 {
                later_rows += 1.0;
                sum.to_previous += row[query - 1];
            }
            sum.distance +=
                row.iter().enumerate().map(|(key, p)| p * (query as f64 - key as f64)).sum::<f64>();
        }
    }
    let mean = |total: f64, rows: f64| if rows == 0.0 { 0.0 } else { total / rows };
    HeadSummary {
        entropy: mean(sum.entropy, rows),
        to_first: mean(sum.to_first, rows),
        to_self: mean(sum.to_self, rows),
        to_previous: mean(sum.to_previous, later_rows),
        distance: mean(sum.distance, rows),
        ..sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_previous_token_head() {
        let pattern = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let summary = summarize(0, 1, [&pattern[..]].into_iter(), 3);
        assert_eq!((summary.to_previous, summary.entropy), (1.0, 0.0));
        assert!((summary.to_self - 1.0 / 3.0).abs() < 1e-12);
        assert!((summary.distance - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn uniform_attention_has_the_entropy_of_its_width() {
        let summary = summarize(0, 0, [&[0.5, 0.5, 0.5, 0.5][..]].into_iter(), 2);
        assert!((summary.entropy - 2.0f64.ln()).abs() < 1e-12);
    }
}
