//! What a run will do, before it runs: shapes, products, what is kept, how much memory.

mod meter;
mod walk;

use burn_lens_hooks::{Axis, HookPoint, HookedModel as _, RunError, RunOptions};
use burn_lens_tensor::{Slice, kernels};

use crate::HookedTransformer;
use walk::Walk;

/// A run to plan.
#[derive(Clone, Debug)]
pub struct PlannedRun<'a> {
    /// Prompts and positions.
    pub size: [usize; 2],
    /// What the run computes at its end, and where it stops.
    pub options: &'a RunOptions,
    /// The activations to keep.
    pub kept: &'a [HookPoint],
    /// The positions to keep of them.
    pub kept_pos: &'a Slice,
    /// The activations that hooks look at or change.
    pub hooked: &'a [HookPoint],
}

impl PlannedRun<'_> {
    /// Whether the cache computes the pattern of a layer from scores in place of storing both.
    fn derives_pattern(&self, layer: usize, attention: &AttentionPath) -> bool {
        let points = [HookPoint::AttnScores(layer), HookPoint::AttnPattern(layer)];
        *attention != AttentionPath::Composed
            && *self.kept_pos == Slice::All
            && points.iter().all(|point| self.kept.contains(point) && !self.hooked.contains(point))
    }
}

/// How attention is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttentionPath {
    /// Block by block; scores and pattern are never stored.
    Fused,
    /// With whole scores and patterns, because a hook or the cache asks for these layers'.
    Stored {
        /// The layers.
        layers: Vec<usize>,
    },
    /// With whole scores and patterns, because the device or the float type has no kernel.
    Composed,
}

/// One part of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPart {
    /// What it is.
    pub name: String,
    /// The shape of what it gives.
    pub shape: Vec<usize>,
    /// Multiplications and additions of its matrix products.
    pub flops: u64,
}

/// One activation that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedKeep {
    /// Which.
    pub point: HookPoint,
    /// Its shape in the cache.
    pub shape: Vec<usize>,
    /// What it takes: nothing where the cache computes it from another one.
    pub bytes: u64,
}

/// What a run will do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Parts in the order in which they run, blocks summed; the last one may compute queries, outputs and
    /// neurons only where logits are read.
    pub parts: Vec<PlannedPart>,
    /// The blocks that run, `start..stop`.
    pub layers: [usize; 2],
    /// Whether the run ends with the residual stream.
    pub stopped: bool,
    /// How attention is computed.
    pub attention: AttentionPath,
    /// What is kept.
    pub kept: Vec<PlannedKeep>,
    /// The size of the weights.
    pub weights_bytes: u64,
    /// The most memory that activations take at one time, those kept and the result among them. Of half types what one
    /// operation reads and gives in `f32` comes on top.
    pub peak_bytes: u64,
}

impl Plan {
    /// Multiplications and additions of all matrix products.
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.parts.iter().map(|part| part.flops).sum()
    }

    /// The size of everything that is kept.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kept.iter().map(|kept| kept.bytes).sum()
    }
}

impl HookedTransformer {
    /// Plans a run without running anything. Prompts are taken to have no padding, and memory is
    /// that of a run without gradients.
    ///
    /// # Errors
    ///
    /// If the options do not fit the model.
    pub fn plan(&self, run: &PlannedRun<'_>) -> Result<Plan, RunError> {
        let layers = self.layers_of(run.options)?;
        let [batch, pos] = run.size;
        if batch == 0 || pos == 0 {
            return Err(RunError::EmptyInput { shape: vec![batch, pos] });
        }
        let seen = |layer: &usize| {
            let points = [HookPoint::AttnScores(*layer), HookPoint::AttnPattern(*layer)];
            points.iter().any(|point| run.kept.contains(point) || run.hooked.contains(point))
        };
        let stored: Vec<usize> = (layers.start..layers.stop).filter(seen).collect();
        let attention = match (kernels::available_rounded(&self.device, self.dtype), stored.is_empty()) {
            (false, _) => AttentionPath::Composed,
            (true, true) => AttentionPath::Fused,
            (true, false) => AttentionPath::Stored { layers: stored },
        };
        let planned = |&point: &HookPoint| self.planned_keep(point, run, &attention);
        let kept = run.kept.iter().map(planned).collect::<Result<_, _>>()?;
        let weights: usize = self
            .parameters()
            .iter()
            .filter(|(param, _)| !(self.config.tied && *param == crate::Param::WU))
            .map(|(_, tensor)| tensor.num_bytes())
            .sum();
        let walk = Walk::new(self, run, [layers.start, layers.stop], layers.stopped, &attention)?;
        let peak_bytes = walk.peak();
        Ok(Plan {
            parts: walk.parts(),
            layers: [layers.start, layers.stop],
            stopped: layers.stopped,
            attention,
            kept,
            weights_bytes: weights as u64,
            peak_bytes,
        })
    }

    fn planned_keep(
        &self,
        point: HookPoint,
        run: &PlannedRun<'_>,
        attention: &AttentionPath,
    ) -> Result<PlannedKeep, RunError> {
        let [batch, pos] = run.size;
        let kept = run.kept_pos.resolve(pos).map_err(|source| RunError::Slice { point, source })?.len();
        let dims = self.dims();
        let len = |&axis: &Axis| match axis {
            Axis::Batch => batch,
            Axis::KeyPos => pos,
            Axis::Pos | Axis::QueryPos => kept,
            axis => dims.len_of(axis).unwrap_or(1),
        };
        let shape: Vec<usize> = point.axes().iter().map(len).collect();
        let derived = matches!(point, HookPoint::AttnPattern(layer) if run.derives_pattern(layer, attention));
        let bytes = if derived { 0 } else { shape.iter().product::<usize>() * self.dtype.size() };
        Ok(PlannedKeep { point, shape, bytes: bytes as u64 })
    }
}
