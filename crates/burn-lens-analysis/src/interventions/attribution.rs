//! Attribution patching: what every cell of a sweep would do, to first order, from one forward and
//! one backward pass.
//!
//! For an intervention that turns `x` into `y` the estimate of the metric's change is
//! `(y - x) · ∂metric/∂x`. Source: Nanda (2023), `Attribution patching`.

use std::collections::BTreeSet;

use burn_lens_hooks::{ActivationCache, CacheOptions, Hook, HookPoint, HookedModel, Input, RunError};

use super::{
    Engine, Sweep, SweepResult,
    apply::{Bound, Differences},
};
use crate::{AnalysisError, error::to_host};

impl<M: HookedModel + ?Sized> Engine<'_, M> {
    /// Estimates every cell of a sweep from the gradients of the base run. Values are those of the
    /// base run plus the estimated changes, so that they compare with an exact sweep.
    ///
    /// # Errors
    ///
    /// If an intervention does not fit the model, or the metric has no gradient.
    pub fn attribute(&self, sweep: &Sweep) -> Result<SweepResult, AnalysisError> {
        sweep.check()?;
        let points: BTreeSet<HookPoint> = sweep.cells.iter().flatten().flatten().map(|i| i.at).collect();
        if let Some(point) = points.iter().find(|point| matches!(point, HookPoint::AttnScores(_))) {
            let reason = format!("`{point}` is -inf where masked; use `hook_pattern`");
            return Err(AnalysisError::Refused { what: "attribution patching", reason });
        }
        let (cache, base) = self.gradients(&self.input, points.into_iter().collect(), Vec::new())?;
        let mut differences = Differences::default();
        let mut estimate = |cell: &[super::Intervention]| -> Result<Vec<f64>, AnalysisError> {
            let mut values = base.clone();
            for one in cell {
                let bound = Bound::new(one, &cache, &mut differences)?;
                for part in bound.slopes(&cache.get(one.at)?, &cache.grad(one.at)?)? {
                    let changes = to_host(part.1)?;
                    for (row, change) in part.0.zip(changes) {
                        // A metric of one value for all prompts has their sum.
                        let at = if values.len() == 1 { 0 } else { row };
                        values[at] += change;
                    }
                }
            }
            Ok(values)
        };
        let cells = sweep.cells.iter().map(|cell| match cell {
            None => Ok(Vec::new()),
            Some(cell) => estimate(cell),
        });
        let cells = cells.collect::<Result<_, AnalysisError>>()?;
        Ok(SweepResult { axes: sweep.axes.clone(), cells, base })
    }

    /// The activations of a run, the gradients of the sum over prompts of the metric, and the metric.
    pub(super) fn gradients(
        &self,
        input: &Input,
        points: Vec<HookPoint>,
        hooks: Vec<Hook<'_>>,
    ) -> Result<(ActivationCache, Vec<f64>), AnalysisError> {
        if !self.readout.has_gradient() {
            let reason = "a rank has no gradient; take the logit, its difference or a probability".to_owned();
            return Err(AnalysisError::Refused { what: "this metric", reason });
        }
        let readout = self.readout.clone();
        let metric = move |output: &burn_lens_hooks::Output| -> Result<_, RunError> {
            Ok(readout.tracked(&output.clone().into_logits()?).sum())
        };
        let options = CacheOptions::names(points).incl_bwd_of(metric);
        let (output, cache) = self.model.run(input, &self.run, hooks, &options)?;
        Ok((cache, self.readout.of_logits(&output.into_logits()?)?))
    }
}
