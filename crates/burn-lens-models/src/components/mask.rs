//! Which positions there are, and which may see which.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Bool, Device, Tensor, TensorData};
use burn_lens_tensor::kernels::Sight;

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

/// What each query sees, as numbers; as tensors only where an operation asks for them.
#[derive(Clone, Debug)]
pub(crate) struct Mask {
    pub(crate) sight: Sight,
    batch: usize,
    queries: usize,
    keys: usize,
    device: Device,
    tensors: OnceLock<MaskTensors>,
}

#[derive(Clone, Debug)]
struct MaskTensors {
    hidden: Option<Tensor<4, Bool>>,
    blind: Option<Tensor<4, Bool>>,
}

impl Mask {
    /// `[batch or 1, 1, query_pos, key_pos]`, true where the score becomes `-inf`; `None` where
    /// every query sees every key.
    pub(crate) fn hidden(&self) -> Option<&Tensor<4, Bool>> {
        self.tensors().hidden.as_ref()
    }

    /// `[batch or 1, 1, query_pos, 1]`, true for queries that see nothing at all (padding),
    /// whose pattern is zero; `None` where there are none.
    pub(crate) fn blind(&self) -> Option<&Tensor<4, Bool>> {
        self.tensors().blind.as_ref()
    }

    fn tensors(&self) -> &MaskTensors {
        self.tensors.get_or_init(|| {
            let (batch, queries, keys) = (self.batch, self.queries, self.keys);
            let rows = || (0..batch).flat_map(|row| (0..queries).map(move |query| (row, query)));
            let sees = |row, query, key| self.sight.sees(row, query, key, keys);
            let hidden: Vec<bool> =
                rows().flat_map(|(row, query)| (0..keys).map(move |key| !sees(row, query, key))).collect();
            let blind: Vec<bool> = rows().map(|(row, query)| self.sight.is_blind(row, query, keys)).collect();
            let tensor = |values: Vec<bool>, width: usize| {
                let any = values.contains(&true);
                let data = TensorData::new(values, [batch, 1, queries, width]);
                any.then(|| Tensor::from_data(data, &self.device))
            };
            MaskTensors { hidden: tensor(hidden, keys), blind: tensor(blind, 1) }
        })
    }
}

/// The masks of one pass, one for each window length that the model has.
#[derive(Debug)]
pub(crate) struct Masks(Vec<Mask>);

impl Masks {
    /// Masks for queries at the last `queries` of `keys` positions.
    ///
    /// `padding` is `[batch][key_pos]`, true for tokens.
    pub(crate) fn new(
        windows: &[Option<usize>],
        bidirectional: bool,
        [queries, keys]: [usize; 2],
        tokens: Option<&[Vec<bool>]>,
        device: &Device,
    ) -> Self {
        let batch = tokens.map_or(1, <[_]>::len);
        let tokens: Option<Arc<[bool]>> = tokens.map(|tokens| tokens.concat().into());
        let mut masks: Vec<Mask> = Vec::new();
        for &window in windows {
            if masks.iter().any(|mask| mask.sight.window == window) {
                continue;
            }
            let sight =
                Sight { first: keys - queries, causal: !bidirectional, window, tokens: tokens.clone() };
            let tensors = OnceLock::new();
            masks.push(Mask { sight, batch, queries, keys, device: device.clone(), tensors });
        }
        Self(masks)
    }

    pub(crate) fn get(&self, window: Option<usize>) -> &Mask {
        let found = self.0.iter().find(|mask| mask.sight.window == window);
        found.expect("there is a mask for the window of every layer")
    }
}
