//! Runs of which only the last positions are read.
//!
//! Behind the last block nothing looks back at earlier positions, so that block needs of them only
//! keys and values, and the final norm nothing.

use burn_lens_hooks::{HookPoint, ReturnType, RunOptions};
use burn_lens_tensor::{Indices, Slice};

use crate::{HookedTransformer, forward::Layers};

impl HookedTransformer {
    /// For how many of `pos` positions, the last ones, the last block has to be computed, where that is
    /// not all of them: logits are asked for at these alone, and nothing is to happen at an activation
    /// of that block or behind it.
    pub(crate) fn tail(
        &self,
        options: &RunOptions,
        layers: &Layers,
        pos: usize,
        wants: impl Fn(HookPoint) -> bool,
    ) -> Option<usize> {
        let only_logits = options.return_type == ReturnType::Logits && !options.loss_per_token;
        let last = self.config.n_layers.checked_sub(1)?;
        if !only_logits || layers.stopped || layers.start > last || options.logits_pos == Slice::All {
            return None;
        }
        // What does not fit is reported where the positions are taken.
        let Ok(Indices::Range(first, end)) = options.logits_pos.resolve(pos) else { return None };
        if end != pos || first == 0 || first >= end {
            return None;
        }
        let is_behind = |point: &HookPoint| {
            point.layer() == Some(last)
                || matches!(point, HookPoint::LnFinalScale | HookPoint::LnFinalNormalized)
        };
        let firing = self.fires();
        let mut behind = firing.always.iter().chain(&firing.optional).copied().filter(is_behind);
        (!behind.any(wants)).then_some(pos - first)
    }
}
