//! Which positions there are, and which may see which.

use std::collections::HashMap;

use burn::tensor::{Bool, Device, Tensor, TensorData};

/// The absolute position of each token of a pass, and which are padding.
#[derive(Clone, Debug)]
pub(crate) struct PositionIds {
    /// One row for each prompt, or a single one where all are alike.
    rows: Vec<Vec<usize>>,
    /// `[batch][pos]`, true for padding; `None` where there is none.
    padding: Option<Vec<Vec<bool>>>,
}

impl PositionIds {
    /// Positions `offset..offset + pos`, without padding.
    pub(crate) fn plain(offset: usize, pos: usize) -> Self {
        Self { rows: vec![(offset..offset + pos).collect()], padding: None }
    }

    /// Positions counted over tokens that are not padding.
    ///
    /// `mask` is `[batch][key_pos]`; the pass' tokens are the last `pos` of them.
    pub(crate) fn masked(mask: &[Vec<bool>], pos: usize) -> Self {
        let mut rows = Vec::with_capacity(mask.len());
        let mut padding = Vec::with_capacity(mask.len());
        for row in mask {
            let mut seen = 0usize;
            let ids: Vec<usize> = row
                .iter()
                .map(|&token| {
                    seen += usize::from(token);
                    seen.saturating_sub(1)
                })
                .collect();
            rows.push(ids[row.len() - pos..].to_vec());
            padding.push(row[row.len() - pos..].iter().map(|&token| !token).collect());
        }
        Self { rows, padding: Some(padding) }
    }

    pub(crate) fn rows(&self) -> &[Vec<usize>] {
        &self.rows
    }

    pub(crate) fn padding(&self) -> Option<&[Vec<bool>]> {
        self.padding.as_deref()
    }
}

/// What a query may not see.
#[derive(Clone, Debug)]
pub(crate) struct Mask {
    /// `[batch or 1, 1, query_pos, key_pos]`, true where the score becomes `-inf`.
    pub(crate) hidden: Tensor<4, Bool>,
    /// `[batch, 1, query_pos, 1]`, true for queries that see nothing at all (padding), whose
    /// pattern is zero.
    pub(crate) blind: Option<Tensor<4, Bool>>,
}

/// The masks of one pass, one for each window length that the model has.
#[derive(Debug, Default)]
pub(crate) struct Masks(HashMap<Option<usize>, Option<Mask>>);

impl Masks {
    /// Builds the masks for queries at the last `queries` of `keys` positions.
    ///
    /// `padding` is `[batch][key_pos]`, true for tokens.
    pub(crate) fn new(
        windows: &[Option<usize>],
        bidirectional: bool,
        queries: usize,
        keys: usize,
        tokens: Option<&[Vec<bool>]>,
        device: &Device,
    ) -> Self {
        let mut masks = HashMap::new();
        for &window in windows {
            masks
                .entry(window)
                .or_insert_with(|| build(window, bidirectional, queries, keys, tokens, device));
        }
        Self(masks)
    }

    pub(crate) fn get(&self, window: Option<usize>) -> Option<&Mask> {
        self.0.get(&window)?.as_ref()
    }
}

fn build(
    window: Option<usize>,
    bidirectional: bool,
    queries: usize,
    keys: usize,
    tokens: Option<&[Vec<bool>]>,
    device: &Device,
) -> Option<Mask> {
    let first = keys - queries;
    let sees = |query: usize, key: usize| {
        let near = window.is_none_or(|window| key + window > query);
        near && (bidirectional || key <= query)
    };
    let all_seen = (0..queries).all(|query| (0..keys).all(|key| sees(first + query, key)));
    if all_seen && tokens.is_none() {
        return None;
    }
    let batch = tokens.map_or(1, <[_]>::len);
    let mut hidden = Vec::with_capacity(batch * queries * keys);
    let mut blind = Vec::with_capacity(batch * queries);
    for row in 0..batch {
        for query in 0..queries {
            let start = hidden.len();
            hidden.extend(
                (0..keys)
                    .map(|key| !(sees(first + query, key) && tokens.is_none_or(|tokens| tokens[row][key]))),
            );
            blind.push(hidden[start..].iter().all(|&hidden| hidden));
        }
    }
    let any_blind = blind.contains(&true);
    Some(Mask {
        hidden: Tensor::from_data(TensorData::new(hidden, [batch, 1, queries, keys]), device),
        blind: any_blind.then(|| Tensor::from_data(TensorData::new(blind, [batch, 1, queries, 1]), device)),
    })
}
