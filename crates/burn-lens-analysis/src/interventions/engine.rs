//! Sweeps of interventions that compute only what an intervention can change.
//!
//! What is reused, and why it is exact:
//!
//! - **Layers.** The stream that enters the first changed block is that of the base run, and so is
//!   what that block computes before the change.
//! - **Positions.** With causal attention nothing before the first changed position changes; later
//!   positions need its keys and values, which are those of the base run. Values that are the base
//!   run's own change nothing at all.
//! - **Readout.** The last block, the final norm and the unembedding are computed only for what the
//!   metric reads; a logit needs one column of the unembedding.
//! - **Batching.** Cells under way at the same block are stacked along the batch axis, those that
//!   start later joining, up to a memory budget.
//!
//! Dictionaries that are installed on the model, position by position
//! ([`Hook::by_position`](burn_lens_hooks::Hook::by_position)), are in these passes, too. Whatever this
//! does not cover (interventions outside the blocks, models without [`HookedModel::partial`], other
//! hooks that are installed on the model) is run in full.

use std::time::Duration;

use burn_lens_hooks::{Frame, HookedModel, Input, ReturnType, RunOptions, Wiring};

use super::{
    Intervention, Metric, OnProgress, Sweep, SweepResult, SweepState, plan::Prepared, readout::Readout,
    spliced::Spliced,
};
use crate::AnalysisError;

/// What may be reused of the base run. All of it, unless something is to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each part is switched off alone")]
pub struct Reuse {
    /// Blocks before the first change.
    pub layers: bool,
    /// Positions before the first change.
    pub positions: bool,
    /// Positions and logits that the metric does not read.
    pub readout: bool,
    /// Cells are stacked.
    pub batching: bool,
}

impl Default for Reuse {
    fn default() -> Self {
        Self { layers: true, positions: true, readout: true, batching: true }
    }
}

/// How sweeps are run.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// What may be reused.
    pub reuse: Reuse,
    /// About how many bytes the activations of stacked cells may take.
    pub memory: usize,
    /// How many cells, drawn by `seed`, are also computed in full and compared.
    pub verify: usize,
    /// The largest difference that `verify` lets pass, relative to the largest value.
    pub tolerance: f64,
    /// Draws the cells that are verified.
    pub seed: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { reuse: Reuse::default(), memory: 256 << 20, verify: 0, tolerance: 1e-5, seed: 0 }
    }
}

/// What a sweep will take, known before it starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// How many cells there are.
    pub cells: usize,
    /// How many of them change nothing, and take the base run's value.
    pub unchanged: usize,
    /// How many are run in full.
    pub full: usize,
    /// The work in whole forward passes; a plain loop takes one for each cell.
    pub forwards: f64,
    /// The time that this many of the base run's passes take.
    pub time: Duration,
    /// Bytes of activations held at once, besides the base run's.
    pub bytes: usize,
}

/// Runs sweeps over one base run.
pub struct Engine<'m, M: ?Sized> {
    pub(super) model: &'m M,
    pub(super) input: Input,
    pub(super) run: RunOptions,
    pub(super) readout: Readout,
    pub(super) options: EngineOptions,
}

/// How a sweep ended.
#[derive(Clone, Debug)]
pub enum SweepOutcome {
    /// With every cell.
    Done(SweepResult),
    /// Interrupted; [`Prepared::run`] goes on from here.
    Interrupted(SweepState),
}

impl<'m, M: HookedModel + ?Sized> Engine<'m, M> {
    /// Interventions on runs of `model` on `input`, measured by `metric`.
    ///
    /// Of `run`, the attention mask and the labels are used.
    ///
    /// # Errors
    ///
    /// If the metric's tokens or positions do not fit.
    pub fn new(
        model: &'m M,
        input: impl Into<Input>,
        run: &RunOptions,
        metric: &Metric,
        options: EngineOptions,
    ) -> Result<Self, AnalysisError> {
        let input = input.into();
        if run.start_at_layer.is_some() || run.stop_at_layer.is_some() {
            let reason = "it takes whole runs: leave start_at_layer and stop_at_layer out".to_owned();
            return Err(AnalysisError::Refused { what: "a sweep", reason });
        }
        let readout = Readout::new(model, &input, run, metric)?;
        let run = RunOptions { return_type: ReturnType::Logits, loss_per_token: false, ..run.clone() };
        Ok(Self { model, input, run, readout, options })
    }

    /// Makes the base run and says what the sweep will take.
    ///
    /// # Errors
    ///
    /// If an intervention does not fit the model or its prompts.
    pub fn prepare<'e>(&'e self, sweep: &'e Sweep) -> Result<Prepared<'e, 'm, M>, AnalysisError> {
        sweep.check()?;
        Prepared::new(self, sweep)
    }

    /// Runs a sweep to its end.
    ///
    /// # Errors
    ///
    /// If an intervention does not fit, or a verified cell differs.
    pub fn sweep(&self, sweep: &Sweep) -> Result<SweepResult, AnalysisError> {
        let mut on_progress = |_: super::SweepProgress<'_>| std::ops::ControlFlow::Continue(());
        match self.prepare(sweep)?.run(None, &mut on_progress)? {
            SweepOutcome::Done(result) => Ok(result),
            SweepOutcome::Interrupted(_) => unreachable!("nothing interrupts it"),
        }
    }

    /// The metric of each prompt in one run with these interventions.
    ///
    /// # Errors
    ///
    /// As [`Engine::sweep`].
    pub fn measure(&self, interventions: &[Intervention]) -> Result<Vec<f64>, AnalysisError> {
        let axis = super::SweepAxis::counted("run", 1);
        let result = self.sweep(&Sweep::list(axis, vec![interventions.to_vec()]))?;
        Ok(result.cells.into_iter().next().unwrap_or_default())
    }

    /// What is spliced into blocks that can be run alone; `None` where they cannot.
    pub(super) fn reusable(&self) -> Option<(Wiring, Spliced)> {
        let [batch, pos] = self.input.batch_pos();
        let attention_mask = self.run.attention_mask.clone();
        let frame = Frame { batch, pos, first_pos: 0, first_read: 0, attention_mask };
        let wiring = self.model.wiring().filter(|_| self.readout.reads_stream())?;
        let spliced = Spliced::of(self.model, &wiring)?;
        let has_blocks = self.model.partial(&frame).is_ok_and(|pass| pass.is_some());
        has_blocks.then_some((wiring, spliced))
    }

    /// The first position that is read at the end.
    pub(super) fn first_read(&self) -> usize {
        if self.options.reuse.readout { self.readout.first } else { 0 }
    }
}

impl<M: HookedModel + ?Sized> Prepared<'_, '_, M> {
    /// Runs the sweep, from where `state` is if one is given.
    ///
    /// # Errors
    ///
    /// If the state is of another sweep, a run fails, or a verified cell differs.
    pub fn run(
        &self,
        state: Option<SweepState>,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<SweepOutcome, AnalysisError> {
        let mut state = match state {
            None => SweepState { fingerprint: self.fingerprint, cells: vec![None; self.sweep.cells.len()] },
            Some(state) if state.fingerprint == self.fingerprint => state,
            Some(_) => {
                let reason =
                    "it was saved by another sweep: other cells, prompts, metric or model".to_owned();
                return Err(AnalysisError::Refused { what: "resuming a sweep", reason });
            }
        };
        for (at, value) in self.known() {
            state.cells[at].get_or_insert(value);
        }
        for chunk in self.chunks(&state) {
            let values = self.run_chunk(&chunk)?;
            for (cell, value) in chunk.cells.iter().zip(values) {
                state.cells[*cell] = Some(value);
            }
            let (done, total) = (state.done(), state.cells.len());
            let progress = super::SweepProgress { done, total, state: &state };
            if on_progress(progress).is_break() && done < total {
                return Ok(SweepOutcome::Interrupted(state));
            }
        }
        let cells: Vec<Vec<f64>> = state.cells.into_iter().map(Option::unwrap_or_default).collect();
        self.verify(&cells)?;
        Ok(SweepOutcome::Done(SweepResult { axes: self.sweep.axes.clone(), cells, base: self.base.clone() }))
    }
}
