//! Passes that start in the middle: blocks one at a time, over the last positions of prompts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use burn::tensor::Tensor;
use burn_lens_hooks::{BlockEntry, Frame, Hooks, KeyValues, PartialPass, RunError};

use crate::{
    HookedTransformer,
    components::LayerKeyValues,
    forward::{Pass, read_mask},
};

/// The blocks of `model` over the positions of a frame.
pub(crate) struct Partial<'m> {
    model: &'m HookedTransformer,
    frame: Frame,
    /// `[batch][pos]`
    mask: Option<Vec<Vec<bool>>>,
    /// Every position of the prompts once, for keys and values of the first ones.
    whole: Pass,
    /// What `copies` of the prompts share.
    passes: Mutex<HashMap<usize, Arc<Passes>>>,
}

struct Passes {
    /// The positions of the frame.
    frame: Pass,
    /// Those that are read at the end.
    reads: Pass,
}

impl<'m> Partial<'m> {
    pub(crate) fn new(model: &'m HookedTransformer, frame: &Frame) -> Result<Self, RunError> {
        let Frame { batch, pos, first_pos, first_read, attention_mask } = frame;
        let bidirectional = model.config.attention.bidirectional;
        if first_pos > first_read || first_read >= pos || (bidirectional && *first_pos > 0) {
            return Err(RunError::Options(format!(
                "a pass from position {first_pos} that is read from position {first_read} does not fit {pos} \
                 positions{}",
                if bidirectional { " of a bidirectional model" } else { "" }
            )));
        }
        let mask = attention_mask.as_ref().map(|mask| read_mask(mask, *batch, *pos)).transpose()?;
        let whole = model.pass_over(mask.as_deref(), 0, *pos);
        Ok(Self { model, frame: frame.clone(), mask, whole, passes: Mutex::default() })
    }

    fn passes(&self, rows: usize) -> Arc<Passes> {
        let copies = if self.mask.is_some() { rows / self.frame.batch } else { 1 };
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        let made = passes.entry(copies).or_insert_with(|| {
            let mask = self
                .mask
                .as_ref()
                .map(|mask| (0..copies).flat_map(|_| mask.iter().cloned()).collect::<Vec<_>>());
            let over = |first: usize| self.model.pass_over(mask.as_deref(), first, self.frame.pos - first);
            Arc::new(Passes { frame: over(self.frame.first_pos), reads: over(self.frame.first_read) })
        });
        Arc::clone(made)
    }

    /// The earlier keys and values, once for each copy of the prompts.
    fn past(&self, past: Option<&KeyValues>, rows: usize) -> Option<LayerKeyValues> {
        let (first, copies) = (self.frame.first_pos, rows / self.frame.batch);
        let KeyValues { keys, values } = past.filter(|_| first > 0)?;
        let repeated = |x: &Tensor<4>| {
            let x = x.clone().narrow(2, 0, first);
            if copies == 1 { x } else { x.repeat_dim(0, copies) }
        };
        Some(LayerKeyValues::of(repeated(keys), repeated(values)))
    }
}

impl PartialPass for Partial<'_> {
    fn key_values(&self, layer: usize, resid_pre: &Tensor<3>) -> KeyValues {
        let [keys, values] = self.model.blocks[layer].keys_and_values(resid_pre.clone(), &self.whole);
        KeyValues { keys, values }
    }

    fn block(
        &self,
        layer: usize,
        entry: BlockEntry,
        past: Option<&KeyValues>,
        hooks: &mut Hooks<'_>,
    ) -> Tensor<3> {
        let block = &self.model.blocks[layer];
        hooks.set_pos_offset(self.frame.first_pos);
        match entry {
            BlockEntry::ResidPre(resid) => {
                let rows = resid.dims()[0];
                let mut past = self.past(past, rows);
                block.forward(hooks, resid, &self.passes(rows).frame, past.as_mut())
            }
            BlockEntry::AttnZ { resid_pre, z } => block.forward_from_z(hooks, resid_pre, z),
            BlockEntry::ResidMid(resid) => block.forward_from_mid(hooks, resid),
        }
    }

    fn block_at_reads(&self, layer: usize, resid_pre: Tensor<3>, past: Option<&KeyValues>) -> Tensor<3> {
        let rows = resid_pre.dims()[0];
        let (passes, mut past) = (self.passes(rows), self.past(past, rows));
        self.model.blocks[layer].forward_tail(resid_pre, &passes.frame, &passes.reads, past.as_mut())
    }

    fn final_norm(&self, resid: Tensor<3>) -> Tensor<3> {
        self.model.ln_final.apply(resid)
    }
}
