//! The tokens that features are looked for in.

use std::ops::Range;

use burn_lens_tensor::burn::tensor::{Device, Int, Tensor, TensorData};

use super::FeatureError;

/// Prompts of one length, some of their positions perhaps padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTable {
    n_positions: usize,
    tokens: Vec<u32>,
    /// Empty where nothing is padding.
    real: Vec<bool>,
}

impl TokenTable {
    /// A table of these prompts; `attention_mask` is 0 at padding.
    ///
    /// # Errors
    ///
    /// If there are none, their lengths differ, the mask has another shape, or a token is negative.
    pub fn new(prompts: &[Vec<i64>], attention_mask: Option<&[Vec<i64>]>) -> Result<Self, FeatureError> {
        let n_positions = prompts.first().map_or(0, Vec::len);
        if n_positions == 0 {
            return Err(FeatureError::NoTokens { n_prompts: prompts.len(), n_positions });
        }
        let uneven = |what: &str, rows: &[Vec<i64>]| match rows
            .iter()
            .position(|row| row.len() != n_positions)
        {
            None if rows.len() == prompts.len() => Ok(()),
            None => Err(format!("{what} has {} rows, and there are {} prompts", rows.len(), prompts.len())),
            Some(row) => {
                Err(format!("row {row} of {what} has {} positions, row 0 has {n_positions}", rows[row].len()))
            }
        };
        uneven("the tokens", prompts).map_err(FeatureError::Tokens)?;
        attention_mask
            .map_or(Ok(()), |mask| uneven("the attention mask", mask))
            .map_err(FeatureError::Tokens)?;
        let mut tokens = Vec::with_capacity(prompts.len() * n_positions);
        for (at, &id) in prompts.iter().flatten().enumerate() {
            let place = || format!("prompt {}, position {}", at / n_positions, at % n_positions);
            tokens.push(
                u32::try_from(id)
                    .map_err(|_| FeatureError::Tokens(format!("token {id} at {} is no id", place())))?,
            );
        }
        let real: Vec<bool> = attention_mask.into_iter().flatten().flatten().map(|&one| one != 0).collect();
        Ok(Self::from_parts(n_positions, tokens, real))
    }

    pub(super) fn from_parts(n_positions: usize, tokens: Vec<u32>, real: Vec<bool>) -> Self {
        Self { n_positions, tokens, real: if real.contains(&false) { real } else { Vec::new() } }
    }

    /// How many prompts there are.
    #[must_use]
    pub fn n_prompts(&self) -> usize {
        self.tokens.len() / self.n_positions
    }

    /// How long they are.
    #[must_use]
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// The tokens of some prompts, one after the other.
    #[must_use]
    pub fn tokens(&self, prompts: Range<usize>) -> &[u32] {
        &self.tokens[prompts.start * self.n_positions..prompts.end * self.n_positions]
    }

    /// Whether a token, counted from the first of the first prompt, is none of the padding.
    #[must_use]
    pub fn is_real(&self, row: usize) -> bool {
        self.real.get(row).copied().unwrap_or(true)
    }

    /// Some prompts, followed by the last of them as often as it takes for `n_rows` tokens.
    pub(super) fn filled(&self, prompts: Range<usize>, n_rows: usize) -> Self {
        let n = self.n_positions;
        let n_prompts = prompts.len().max(n_rows.div_ceil(n));
        let rows = (0..n_prompts).flat_map(|at| {
            let prompt = (prompts.start + at).min(prompts.end - 1);
            prompt * n..(prompt + 1) * n
        });
        let (tokens, real) = rows.map(|row| (self.tokens[row], self.is_real(row))).unzip();
        // The mask is kept even if these prompts have no padding: models mask or do not, all alike.
        Self { n_positions: n, tokens, real: if self.real.is_empty() { Vec::new() } else { real } }
    }

    /// Some prompts as the input of a model.
    ///
    /// # Shapes
    ///
    /// - returns two of `[prompt, pos]`: the tokens and, where anything is padding, the mask
    #[must_use]
    pub fn input(&self, prompts: Range<usize>, device: &Device) -> (Tensor<2, Int>, Option<Tensor<2, Int>>) {
        let shape = [prompts.len(), self.n_positions];
        let matrix = |values: Vec<i64>| Tensor::from_data(TensorData::new(values, shape), device);
        let rows = prompts.start * self.n_positions..prompts.end * self.n_positions;
        let mask =
            (!self.real.is_empty()).then(|| self.real[rows].iter().map(|&real| i64::from(real)).collect());
        (matrix(self.tokens(prompts).iter().map(|&id| i64::from(id)).collect()), mask.map(matrix))
    }

    /// A number that changes with any token, to tell token sets apart.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let words = [self.n_positions as u64].into_iter();
        let words = words.chain(self.tokens.iter().map(|&token| u64::from(token)));
        hash(words.chain(self.real.iter().map(|&real| u64::from(real))))
    }
}

/// FNV-1a of words, byte by byte.
pub(super) fn hash(words: impl Iterator<Item = u64>) -> u64 {
    words
        .flat_map(u64::to_le_bytes)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_table_is_refused_with_the_place() {
        for (prompts, mask, expected) in [
            (vec![], None, "0 prompts"),
            (vec![vec![]], None, "0 positions"),
            (vec![vec![1, 2], vec![3]], None, "row 1 of the tokens has 1"),
            (vec![vec![1, -2]], None, "token -2 at prompt 0, position 1"),
            (vec![vec![1, 2]], Some(vec![vec![1]]), "row 0 of the attention mask has 1"),
            (vec![vec![1, 2]], Some(vec![]), "the attention mask has 0 rows"),
        ] {
            let error = TokenTable::new(&prompts, mask.as_deref()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
