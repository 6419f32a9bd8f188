//! Keys and values of earlier passes, so that generation computes each position once.

use burn_lens_hooks::RunError;

use crate::components::LayerKeyValues;

/// The keys (after rotation) and values of every layer, and which positions are padding.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerKeyValues>,
    len: usize,
    /// How many prompts, once there are any.
    batch: Option<usize>,
    /// `[batch][key_pos]`, true for tokens; `None` while there is no padding.
    mask: Option<Vec<Vec<bool>>>,
}

impl KvCache {
    /// An empty cache for a model of `n_layers` blocks.
    #[must_use]
    pub fn new(n_layers: usize) -> Self {
        Self { layers: vec![LayerKeyValues::default(); n_layers], len: 0, batch: None, mask: None }
    }

    /// How many positions it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Refuses a cache of another model or batch.
    pub(crate) fn check(&self, n_layers: usize, batch: usize) -> Result<(), RunError> {
        if self.layers.len() != n_layers {
            let layers = self.layers.len();
            return Err(RunError::Options(format!(
                "the key-value cache is for {layers} layers, but the model has {n_layers}"
            )));
        }
        match self.batch {
            Some(known) if known != batch => Err(RunError::Options(format!(
                "the key-value cache holds {known} prompts, but the input has {batch}"
            ))),
            _ => Ok(()),
        }
    }

    pub(crate) fn layer(&mut self, layer: usize) -> &mut LayerKeyValues {
        &mut self.layers[layer]
    }

    /// Notes `pos` further positions and returns the mask over all, if any is padding.
    pub(crate) fn extend_mask(
        &mut self,
        mask: Option<Vec<Vec<bool>>>,
        batch: usize,
        pos: usize,
    ) -> Option<Vec<Vec<bool>>> {
        if mask.is_some() || self.mask.is_some() {
            let past = self.mask.take().unwrap_or_else(|| vec![vec![true; self.len]; batch]);
            let new = mask.unwrap_or_else(|| vec![vec![true; pos]; batch]);
            self.mask = Some(past.into_iter().zip(new).map(|(past, new)| [past, new].concat()).collect());
        }
        self.batch = Some(batch);
        self.len += pos;
        self.mask.clone()
    }
}
