//! An intervention as data: where, what, on which prompts.

use std::{fmt, sync::Arc};

use burn::tensor::Tensor;
use burn_lens_hooks::{ActivationCache, Axis, HookPoint};
use burn_lens_tensor::{AnyTensor, Slice};

use crate::AnalysisError;

/// The values of another activation at the same hook.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "a cell has a few")]
pub enum Values {
    /// Those of another run, which must have as many prompts and positions.
    Run(Arc<ActivationCache>),
    /// A tensor of the activation's rank; axes of length 1 serve every prompt, position or head.
    Tensor(AnyTensor),
    /// One number everywhere: 0 ablates, `-inf` at `hook_attn_scores` knocks attention out.
    Fill(f64),
}

/// A function of the chosen part of an activation, which must keep its shape.
pub type EditFn = dyn Fn(AnyTensor) -> AnyTensor + Send + Sync;

/// What happens to the chosen part of an activation.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "a cell has a few")]
pub enum Edit {
    /// It becomes these values.
    Replace(Values),
    /// `factor · values` is added.
    Add(Values, f64),
    /// It is multiplied.
    Scale(f64),
    /// Its part in the span of the orthonormal columns of `[d, k]` becomes that of the values.
    Subspace(Values, Tensor<2>),
    /// Any function of it.
    Apply(Arc<EditFn>),
}

impl fmt::Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replace(Values::Fill(value)) => return write!(f, "Replace({value})"),
            Self::Scale(factor) => return write!(f, "Scale({factor})"),
            Self::Replace(_) => "Replace",
            Self::Add(..) => "Add",
            Self::Subspace(..) => "Subspace",
            Self::Apply(_) => "Apply",
        })
    }
}

/// One change to one activation.
///
/// ```
/// # use burn_lens_analysis::interventions::{Edit, Intervention, Values};
/// # use burn_lens_hooks::HookPoint;
/// // Head 2 of layer 1 writes nothing from the fourth position on.
/// let ablate = Intervention::new(HookPoint::AttnZ(1), Edit::Replace(Values::Fill(0.0)))
///     .heads("2".parse()?)
///     .pos("3:".parse()?);
/// # let _ = ablate;
/// # Ok::<(), burn_lens_tensor::SliceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Intervention {
    /// The activation.
    pub at: HookPoint,
    /// What happens to it.
    pub edit: Edit,
    /// Which prompts.
    pub rows: Slice,
    /// Which positions; destinations of scores and pattern.
    pub pos: Slice,
    /// Which heads.
    pub heads: Slice,
    /// Which sources of scores and pattern.
    pub sources: Slice,
    /// Which entries of the last axis: neurons, features, dimensions.
    pub units: Slice,
}

impl Intervention {
    /// At every prompt, position, head and unit of an activation.
    #[must_use]
    pub fn new(at: HookPoint, edit: Edit) -> Self {
        let all = || Slice::All;
        Self { at, edit, rows: all(), pos: all(), heads: all(), sources: all(), units: all() }
    }

    /// The activation becomes that of another run.
    #[must_use]
    pub fn patch(at: HookPoint, from: &Arc<ActivationCache>) -> Self {
        Self::new(at, Edit::Replace(Values::Run(Arc::clone(from))))
    }

    /// The activation becomes zero.
    #[must_use]
    pub fn zero(at: HookPoint) -> Self {
        Self::new(at, Edit::Replace(Values::Fill(0.0)))
    }

    /// At these prompts only.
    #[must_use]
    pub fn rows(self, rows: Slice) -> Self {
        Self { rows, ..self }
    }

    /// At these positions only.
    #[must_use]
    pub fn pos(self, pos: Slice) -> Self {
        Self { pos, ..self }
    }

    /// At these heads only.
    #[must_use]
    pub fn heads(self, heads: Slice) -> Self {
        Self { heads, ..self }
    }

    /// At these sources of scores and pattern only.
    #[must_use]
    pub fn sources(self, sources: Slice) -> Self {
        Self { sources, ..self }
    }

    /// At these entries of the last axis only.
    #[must_use]
    pub fn units(self, units: Slice) -> Self {
        Self { units, ..self }
    }

    /// The indices chosen along each axis of an activation of `shape`.
    pub(super) fn region(&self, shape: &[usize]) -> Result<Vec<Vec<usize>>, AnalysisError> {
        let axes = self.at.axes();
        let has = |wanted: &[Axis]| axes.iter().any(|axis| wanted.contains(axis));
        let refuse = |what: &str, slice: &Slice, present: bool| {
            if present || *slice == Slice::All {
                return Ok(());
            }
            let reason = format!("`{}` has no {what} axis, but {what} {slice} was chosen", self.at);
            Err(AnalysisError::Refused { what: "an intervention", reason })
        };
        refuse("head", &self.heads, has(&[Axis::Head, Axis::KvHead]))?;
        refuse("source", &self.sources, has(&[Axis::KeyPos]))?;
        refuse("position", &self.pos, has(&[Axis::Pos, Axis::QueryPos]))?;
        refuse("unit", &self.units, !has(&[Axis::KeyPos]))?;
        let mut region = Vec::new();
        for (axis, &len) in axes.iter().zip(shape) {
            let (name, slice) = match axis {
                Axis::Batch => ("prompts", &self.rows),
                Axis::Pos | Axis::QueryPos => ("positions", &self.pos),
                Axis::Head | Axis::KvHead => ("heads", &self.heads),
                Axis::KeyPos => ("sources", &self.sources),
                _ => ("units", &self.units),
            };
            let indices = slice.resolve(len).map_err(|source| AnalysisError::Slice { axis: name, source })?;
            region.push(indices.to_vec());
        }
        Ok(region)
    }
}
