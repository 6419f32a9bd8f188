//! ALiBi: a bias on attention scores that is linear in the distance.
//!
//! Source: Press et al. (2022). Head counts that are not a power of two follow their reference
//! code (and Hugging Face), which TransformerLens does not.

use std::sync::{Arc, OnceLock};

use burn::tensor::{DType, Device, Tensor, TensorData};

/// The bias of one pass, built once, and only where an operation asks for the tensor.
#[derive(Debug)]
pub(crate) struct Alibi {
    /// One for each head.
    pub(crate) slopes: Arc<[f32]>,
    n_heads: usize,
    queries: usize,
    keys: usize,
    bias: OnceLock<Tensor<4>>,
}

impl Alibi {
    /// For queries at the last `queries` of `keys` positions.
    pub(crate) fn new(n_heads: usize, [queries, keys]: [usize; 2]) -> Self {
        let slopes = slopes(n_heads).into_iter().map(|slope| slope as f32).collect();
        Self { slopes, n_heads, queries, keys, bias: OnceLock::new() }
    }

    /// `[1, n_heads, query_pos, key_pos]`
    pub(crate) fn bias(&self, device: &Device, dtype: DType) -> Tensor<4> {
        self.bias.get_or_init(|| bias(self.n_heads, self.queries, self.keys, device, dtype)).clone()
    }
}

/// The slope of each head.
fn slopes(n_heads: usize) -> Vec<f64> {
    let of_power = |n: usize| {
        let base = 2f64.powf(-8.0 / n as f64);
        (1..=n).map(move |head| base.powi(i32::try_from(head).unwrap_or(i32::MAX)))
    };
    let below = 1 << n_heads.max(1).ilog2();
    of_power(below).chain(of_power(2 * below).step_by(2)).take(n_heads).collect()
}

/// `slope · (key - query)`.
///
/// # Shapes
///
/// - returns: `[1, n_heads, query_pos, key_pos]`, for queries at the last `query_pos` positions
fn bias(n_heads: usize, queries: usize, keys: usize, device: &Device, dtype: DType) -> Tensor<4> {
    let first = keys - queries;
    let mut values = Vec::with_capacity(n_heads * queries * keys);
    for slope in slopes(n_heads) {
        for query in first..keys {
            values.extend((0..keys).map(|key| slope * (key as f64 - query as f64)));
        }
    }
    Tensor::from_data(TensorData::new(values, [1, n_heads, queries, keys]), (device, dtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_a_power_of_two() {
        assert_eq!(slopes(4), [0.25, 0.0625, 0.015_625, 0.003_906_25]);
    }

    #[test]
    fn slopes_of_other_counts_interleave() {
        let six = slopes(6);
        assert_eq!(&six[..4], &slopes(4)[..]);
        assert_eq!(&six[4..], &[0.5, 0.125]);
    }
}
