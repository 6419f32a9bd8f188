//! Running the cells of one chunk: block by block, the cells that start later joining.

use std::sync::Arc;

use burn::tensor::Tensor;
use burn_lens_hooks::{
    BlockEntry, Frame, Hook, HookPoint, HookedModel, Hooks, KeyValues, PartialPass, RunError,
};
use burn_lens_tensor::AnyTensor;

use super::{
    Intervention,
    apply::{Bound, Differences, Shift},
    plan::{Chunk, Entry, Planned, Prepared},
};
use crate::AnalysisError;

/// Cells under way: the stream that enters the next block, cell by cell.
struct Flight {
    resid: Tensor<3>,
    cells: Vec<usize>,
}

/// Cells that go through a block together.
struct Stack {
    entry: BlockEntry,
    cells: Vec<usize>,
    /// Only what is read at the end is computed.
    at_reads: bool,
}

/// What the blocks of one chunk share.
struct Wave<'p> {
    pass: &'p dyn PartialPass,
    first_pos: usize,
    first_read: usize,
}

impl<M: HookedModel + ?Sized> Prepared<'_, '_, M> {
    /// The metric of each prompt, for each cell of a chunk.
    pub(super) fn run_chunk(&self, chunk: &Chunk) -> Result<Vec<Vec<f64>>, AnalysisError> {
        let engine = self.engine;
        let [batch, pos] = self.shape;
        let first_pos = chunk.first_pos;
        let read = engine.first_read();
        let first_read = read.max(first_pos);
        let attention_mask = engine.run.attention_mask.clone();
        let frame = Frame { batch, pos, first_pos, first_read, attention_mask };
        let partial = if chunk.full { None } else { engine.model.partial(&frame)? };
        let Some(pass) = partial else {
            let cells = chunk.cells.iter().filter_map(|&at| self.sweep.cells[at].as_deref());
            return cells.map(|cell| self.full(cell)).collect();
        };
        let wave = Wave { pass: &*pass, first_pos, first_read };
        let flight = self.fly(chunk, &wave)?;
        let normed = pass.final_norm(flight.resid);
        let copies = flight.cells.len();
        let normed = if read < first_read {
            // What the metric reads before the first change.
            let last: Tensor<3> = self.cache.tensor(HookPoint::ResidPost(self.dims.n_layers - 1))?;
            let before = pass.final_norm(last.narrow(1, read, first_read - read));
            Tensor::cat(vec![before.repeat_dim(0, copies), normed], 1)
        } else {
            normed
        };
        let values = if engine.options.reuse.readout {
            engine.readout.of_stream(normed)?
        } else {
            engine.readout.of_whole_stream(&normed)?
        };
        let place = |cell: &usize| flight.cells.iter().position(|other| other == cell);
        let ordered = chunk.cells.iter().map(|cell| place(cell).map(|at| values[at].clone()));
        Ok(ordered.map(Option::unwrap_or_default).collect())
    }

    /// The stream behind the last block, from `first_read` on.
    fn fly(&self, chunk: &Chunk, wave: &Wave<'_>) -> Result<Flight, AnalysisError> {
        let n_layers = self.dims.n_layers;
        let first = chunk.cells.iter().map(|&at| self.planned(at).first_layer).min().unwrap_or(0);
        let mut flight: Option<Flight> = None;
        for layer in first..n_layers {
            let starts = |&at: &usize| self.planned(at).first_layer == layer;
            let entering: Vec<usize> = chunk.cells.iter().copied().filter(starts).collect();
            let past = match wave.first_pos {
                0 => None,
                _ => Some(self.past(layer, wave.pass)?),
            };
            let last = layer + 1 == n_layers;
            let (mut parts, mut cells) = (Vec::new(), Vec::new());
            for stack in self.stacks(layer, flight.take(), &entering, wave)? {
                parts.push(self.through(layer, &stack, past.as_deref(), wave, last)?);
                cells.extend(stack.cells);
            }
            let resid = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) };
            flight = Some(Flight { resid, cells });
        }
        Ok(flight.expect("a chunk holds cells, and a model blocks"))
    }

    /// One stack through one block.
    fn through(
        &self,
        layer: usize,
        stack: &Stack,
        past: Option<&KeyValues>,
        wave: &Wave<'_>,
        last: bool,
    ) -> Result<Tensor<3>, AnalysisError> {
        if stack.at_reads
            && let BlockEntry::ResidPre(resid) = &stack.entry
        {
            return Ok(wave.pass.block_at_reads(layer, resid.clone(), past));
        }
        let hooks = self.hooks(layer, &stack.cells, wave.first_pos);
        let model = self.engine.model;
        let registry = model.registry().filter(|_| self.spliced.has_layer(layer));
        let mut hooks = if hooks.is_empty() && registry.is_none() {
            Hooks::none()
        } else {
            Hooks::resolve(hooks, registry, &model.firing())?
        };
        let post = wave.pass.block(layer, stack.entry.clone(), past, &mut hooks);
        hooks.finish(registry)?;
        if !last {
            return Ok(post);
        }
        let skip = wave.first_read - wave.first_pos;
        let pos = post.dims()[1];
        Ok(post.narrow(1, skip, pos - skip))
    }

    /// The cells at `layer`, grouped by where in the block they start.
    fn stacks(
        &self,
        layer: usize,
        flight: Option<Flight>,
        entering: &[usize],
        wave: &Wave<'_>,
    ) -> Result<Vec<Stack>, AnalysisError> {
        let by = |entry: Entry| -> Vec<usize> {
            entering.iter().copied().filter(|&at| self.planned(at).entry == entry).collect()
        };
        let mut stacks = Vec::new();
        let pre = by(Entry::Pre);
        let last = layer + 1 == self.dims.n_layers;
        let hooked = self.spliced.has_layer(layer);
        let edited =
            |at: usize| hooked || self.planned(at).bounds.iter().any(|b| b.point.layer() == Some(layer));
        match flight {
            Some(flight)
                if last && wave.first_read > wave.first_pos && !flight.cells.iter().any(|&at| edited(at)) =>
            {
                stacks.push(Stack {
                    entry: BlockEntry::ResidPre(flight.resid),
                    cells: flight.cells,
                    at_reads: true,
                });
                if !pre.is_empty() {
                    let entry =
                        BlockEntry::ResidPre(self.base_rows(HookPoint::ResidPre(layer), pre.len(), wave)?);
                    stacks.push(Stack { entry, cells: pre, at_reads: false });
                }
            }
            flight if flight.is_some() || !pre.is_empty() => {
                let (mut parts, mut cells) = (Vec::new(), Vec::new());
                if let Some(flight) = flight {
                    parts.push(flight.resid);
                    cells.extend(flight.cells);
                }
                if !pre.is_empty() {
                    parts.push(self.base_rows(HookPoint::ResidPre(layer), pre.len(), wave)?);
                    cells.extend(pre);
                }
                let resid = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) };
                stacks.push(Stack { entry: BlockEntry::ResidPre(resid), cells, at_reads: false });
            }
            _ => {}
        }
        let (z, mid) = (by(Entry::Z), by(Entry::Mid));
        if !z.is_empty() {
            let resid_pre = self.base_rows(self.spliced.entering(layer), z.len(), wave)?;
            let mixed: Tensor<4> = self.cache.tensor(HookPoint::AttnZ(layer))?;
            let mixed = mixed.narrow(1, wave.first_pos, self.shape[1] - wave.first_pos);
            let entry = BlockEntry::AttnZ { resid_pre, z: mixed.repeat_dim(0, z.len()) };
            stacks.push(Stack { entry, cells: z, at_reads: false });
        }
        if !mid.is_empty() {
            let entry = BlockEntry::ResidMid(self.base_rows(HookPoint::ResidMid(layer), mid.len(), wave)?);
            stacks.push(Stack { entry, cells: mid, at_reads: false });
        }
        Ok(stacks)
    }

    /// A stream of the base run over the frame's positions, once for each cell.
    fn base_rows(
        &self,
        point: HookPoint,
        copies: usize,
        wave: &Wave<'_>,
    ) -> Result<Tensor<3>, AnalysisError> {
        let resid: Tensor<3> = self.cache.tensor(point)?;
        Ok(resid.narrow(1, wave.first_pos, self.shape[1] - wave.first_pos).repeat_dim(0, copies))
    }

    /// The base run's keys and values of one block.
    fn past(&self, layer: usize, pass: &dyn PartialPass) -> Result<Arc<KeyValues>, AnalysisError> {
        if let Some(known) = self.key_values.borrow().get(&layer) {
            return Ok(Arc::clone(known));
        }
        let resid: Tensor<3> = self.cache.tensor(self.spliced.entering(layer))?;
        let made = Arc::new(pass.key_values(layer, &resid));
        self.key_values.borrow_mut().insert(layer, Arc::clone(&made));
        Ok(made)
    }

    /// What the cells of a stack change in one block, a hook for each activation.
    fn hooks(&self, layer: usize, cells: &[usize], first_pos: usize) -> Vec<Hook<'_>> {
        let mut edits: Vec<(HookPoint, Vec<(usize, &Bound)>)> = Vec::new();
        for (place, &at) in cells.iter().enumerate() {
            for bound in self.planned(at).bounds.iter().filter(|bound| bound.point.layer() == Some(layer)) {
                match edits.iter_mut().find(|(point, _)| *point == bound.point) {
                    Some((_, list)) => list.push((place, bound)),
                    None => edits.push((bound.point, vec![(place, bound)])),
                }
            }
        }
        let batch = self.shape[0];
        edits
            .into_iter()
            .map(|(point, list)| stacked_hook(point, list, Shift { row: batch, pos: first_pos }))
            .collect()
    }

    fn planned(&self, at: usize) -> &Planned {
        self.planned[at].as_ref().expect("chunks hold planned cells alone")
    }

    /// The metric of each prompt in a whole run with these interventions.
    pub(super) fn full(&self, cell: &[Intervention]) -> Result<Vec<f64>, AnalysisError> {
        let mut differences = Differences::default();
        let bounds = cell.iter().map(|one| Bound::new(one, &self.cache, &mut differences));
        let bounds = bounds.collect::<Result<Vec<_>, _>>()?;
        let hooks = bounds.iter().map(whole_hook).collect();
        let output = self.engine.model.run_with_hooks(&self.engine.input, &self.engine.run, hooks)?;
        self.engine.readout.of_logits(&output.into_logits()?)
    }
}

fn whole_hook(bound: &Bound) -> Hook<'_> {
    Hook::try_edit(bound.point, move |x: AnyTensor, _| bound.apply(x, Shift { row: 0, pos: 0 }).map(Some))
}

/// Edits of several cells at one activation; `shift.row` is how many prompts a cell has.
fn stacked_hook(point: HookPoint, list: Vec<(usize, &Bound)>, shift: Shift) -> Hook<'_> {
    Hook::try_edit(point, move |mut x: AnyTensor, _| -> Result<Option<AnyTensor>, RunError> {
        for (place, bound) in &list {
            x = bound.apply(x, Shift { row: place * shift.row, pos: shift.pos })?;
        }
        Ok(Some(x))
    })
}
