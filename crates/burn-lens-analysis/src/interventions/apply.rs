//! An intervention bound to a base run: resolved places, values of the right shape, and what it
//! can reach.

use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Range,
    sync::Arc,
};

use burn::tensor::Tensor;
use burn_lens_hooks::{ActivationCache, HookPoint, RunError};
use burn_lens_tensor::{AnyTensor, FloatType, TypedTensor};

use super::{Edit, Intervention, Values};
use crate::{AnalysisError, error::to_host};

/// An intervention whose places are known.
pub(super) struct Bound {
    pub(super) point: HookPoint,
    edit: BoundEdit,
    /// For each axis, the runs of neighboring indices.
    runs: Vec<Vec<Range<usize>>>,
    batch_axis: usize,
    pos_axis: Option<usize>,
    /// The first position that it changes; `None` where it changes nothing.
    pub(super) first_pos: Option<usize>,
}

#[expect(clippy::large_enum_variant, reason = "a cell has a few")]
enum BoundEdit {
    Fill(f64),
    Replace(AnyTensor),
    Add(AnyTensor, f64),
    AddScalar(f64),
    Scale(f64),
    Subspace(AnyTensor, Tensor<2>),
    Apply(Arc<super::EditFn>),
}

/// Where one cell's prompts and positions lie in a stacked activation.
#[derive(Clone, Copy)]
pub(super) struct Shift {
    pub(super) row: usize,
    pub(super) pos: usize,
}

/// Which positions and heads differ between the base run and another one, by hook.
#[derive(Default)]
pub(super) struct Differences(HashMap<(HookPoint, usize), Map>);

/// `[a, b]`, the two inner axes of an activation of rank 4; `[a, 1]` for rank 3.
struct Map {
    differs: Vec<bool>,
    width: usize,
}

impl Bound {
    /// # Errors
    ///
    /// If a place lies outside the activation, or values are of another shape.
    pub(super) fn new(
        intervention: &Intervention,
        base: &ActivationCache,
        differences: &mut Differences,
    ) -> Result<Self, AnalysisError> {
        let point = intervention.at;
        let activation = base.get(point)?;
        let shape = activation.shape();
        let region = intervention.region(&shape)?;
        let (edit, compare) = match &intervention.edit {
            Edit::Scale(factor) => (BoundEdit::Scale(*factor), None),
            Edit::Apply(f) => (BoundEdit::Apply(Arc::clone(f)), None),
            Edit::Replace(Values::Fill(value)) => (BoundEdit::Fill(*value), None),
            Edit::Add(Values::Fill(value), factor) => (BoundEdit::AddScalar(value * factor), None),
            Edit::Subspace(Values::Fill(_), _) => {
                let reason =
                    "a subspace is set to the values of a run or a tensor, not to a number".to_owned();
                return Err(AnalysisError::Refused { what: "an intervention", reason });
            }
            Edit::Replace(values) => (BoundEdit::Replace(whole(point, values, &activation)?), Some(values)),
            Edit::Add(values, factor) => (BoundEdit::Add(whole(point, values, &activation)?, *factor), None),
            Edit::Subspace(values, basis) => {
                let width = shape.last().copied().unwrap_or(0);
                if basis.dims()[0] != width {
                    return Err(AnalysisError::Shape {
                        what: "the basis of a subspace",
                        expected: format!("[{width}, k], as the last axis of `{point}`"),
                        found: basis.dims().to_vec(),
                    });
                }
                (BoundEdit::Subspace(whole(point, values, &activation)?, basis.clone()), None)
            }
        };
        let (batch_axis, pos_axis) = axes(point)?;
        let positions = pos_axis.map(|axis| region[axis].clone());
        let first_pos = match compare {
            Some(Values::Run(other)) => differences.first(point, base, other, &region)?,
            _ => Some(positions.and_then(|list| list.into_iter().min()).unwrap_or(0)),
        };
        let runs = region.into_iter().map(runs).collect();
        Ok(Self { point, edit, runs, batch_axis, pos_axis, first_pos })
    }

    /// `x` with this cell's part changed.
    pub(super) fn apply(&self, x: AnyTensor, shift: Shift) -> Result<AnyTensor, RunError> {
        let shape = x.shape();
        let mut x = x;
        for from in product(&self.runs) {
            let mut from = from;
            if let Some(axis) = self.pos_axis {
                // What lies before is not computed here, and not changed.
                from[axis].start = from[axis].start.max(shift.pos);
                if from[axis].is_empty() {
                    continue;
                }
            }
            let mut to = from.clone();
            let moved = |range: &mut Range<usize>, by: isize| {
                *range = range.start.strict_add_signed(by)..range.end.strict_add_signed(by);
            };
            moved(&mut to[self.batch_axis], shift.row.cast_signed());
            if let Some(axis) = self.pos_axis {
                moved(&mut to[axis], -shift.pos.cast_signed());
            }
            x = match x {
                AnyTensor::Float3(t) => self.at(t, &to, &from)?.into_any(),
                AnyTensor::Float4(t) => self.at(t, &to, &from)?.into_any(),
                other => return Err(unsupported(self.point, &other.shape())),
            };
        }
        debug_assert_eq!(shape, x.shape(), "an edit keeps the shape");
        Ok(x)
    }

    fn at<const D: usize>(
        &self,
        x: Tensor<D>,
        to: &[Range<usize>],
        from: &[Range<usize>],
    ) -> Result<Tensor<D>, RunError>
    where
        Tensor<D>: TypedTensor,
    {
        let to: [Range<usize>; D] = std::array::from_fn(|axis| to[axis].clone());
        let from: [Range<usize>; D] = std::array::from_fn(|axis| from[axis].clone());
        let part = x.clone().slice(to.clone());
        Ok(x.slice_assign(to, self.edited(part, &from)?))
    }

    /// What becomes of a part, which lies at `from` in the base run.
    fn edited<const D: usize>(&self, old: Tensor<D>, from: &[Range<usize>; D]) -> Result<Tensor<D>, RunError>
    where
        Tensor<D>: TypedTensor,
    {
        let rank = |source| RunError::HookRank { point: self.point, source };
        let read = |values: &AnyTensor| -> Result<Tensor<D>, RunError> {
            Ok(Tensor::<D>::from_any(values.clone()).map_err(rank)?.slice(from.clone()))
        };
        Ok(match &self.edit {
            BoundEdit::Fill(value) => old.full_like(*value),
            BoundEdit::Replace(values) => read(values)?,
            BoundEdit::Add(values, factor) => old + read(values)? * *factor,
            BoundEdit::AddScalar(value) => old + *value,
            BoundEdit::Scale(factor) => old * *factor,
            BoundEdit::Subspace(values, basis) => {
                let along = |x: Tensor<D>| x.matmul(basis.clone().unsqueeze());
                let moved = along(read(values)? - old.clone());
                old + moved.matmul(basis.clone().transpose().unsqueeze())
            }
            BoundEdit::Apply(f) => {
                let (expected, new) = (old.dims().to_vec(), f(old.into_any()));
                if new.shape() != expected {
                    return Err(RunError::HookShape { point: self.point, expected, found: new.shape() });
                }
                Tensor::from_any(new).map_err(rank)?
            }
        })
    }

    /// `Σ (edited - x) · grad` over all but the prompts, for each part that it changes: which prompts,
    /// and their sums.
    pub(super) fn slopes(
        &self,
        x: &AnyTensor,
        grad: &AnyTensor,
    ) -> Result<Vec<(Range<usize>, Tensor<1>)>, RunError> {
        let parts = product(&self.runs);
        let rows = |part: &[Range<usize>]| part[self.batch_axis].clone();
        parts
            .iter()
            .map(|part| {
                let sums = match (x, grad) {
                    (AnyTensor::Float3(x), AnyTensor::Float3(grad)) => self.slope(x, grad, part)?,
                    (AnyTensor::Float4(x), AnyTensor::Float4(grad)) => self.slope(x, grad, part)?,
                    (other, _) => return Err(unsupported(self.point, &other.shape())),
                };
                Ok((rows(part), sums))
            })
            .collect()
    }

    fn slope<const D: usize>(
        &self,
        x: &Tensor<D>,
        grad: &Tensor<D>,
        part: &[Range<usize>],
    ) -> Result<Tensor<1>, RunError>
    where
        Tensor<D>: TypedTensor,
    {
        let part: [Range<usize>; D] = std::array::from_fn(|axis| part[axis].clone());
        let old = x.clone().slice(part.clone());
        let change = self.edited(old.clone(), &part)? - old;
        let product = change * grad.clone().slice(part);
        let rows = product.dims()[0];
        let rest = product.dims().iter().product::<usize>() / rows.max(1);
        Ok(product.reshape([rows, rest]).sum_dim(1).reshape([rows]))
    }
}

/// The axes over prompts and positions.
fn axes(point: HookPoint) -> Result<(usize, Option<usize>), AnalysisError> {
    match point.batch_axis() {
        Some(axis) if !point.is_integer() => Ok((axis, point.pos_axis())),
        _ => Err(unsupported(point, &[]).into()),
    }
}

fn unsupported(point: HookPoint, shape: &[usize]) -> RunError {
    RunError::Options(format!("interventions at `{point}` (shape {shape:?}) are not supported"))
}

/// Values in the shape of the whole activation.
fn whole(point: HookPoint, values: &Values, like: &AnyTensor) -> Result<AnyTensor, AnalysisError> {
    let tensor = match values {
        Values::Run(cache) => cache.get(point)?,
        Values::Tensor(tensor) => tensor.clone(),
        Values::Fill(_) => return Err(unsupported(point, &[]).into()),
    };
    let (shape, found) = (like.shape(), tensor.shape());
    let fits = found.len() == shape.len()
        && found.iter().zip(&shape).all(|(&found, &len)| found == len || found == 1);
    if !fits {
        let expected = format!("{shape:?}, as `{point}` in the base run (1 serves a whole axis)");
        return Err(AnalysisError::Shape { what: "the values of an intervention", expected, found });
    }
    let tensor = match FloatType::from_dtype(like.dtype()) {
        Some(float) => tensor.cast(float),
        None => tensor,
    };
    let tensor = tensor.to_device(&like.device());
    Ok(match tensor {
        AnyTensor::Float3(t) => t.expand([shape[0], shape[1], shape[2]]).into_any(),
        AnyTensor::Float4(t) => t.expand([shape[0], shape[1], shape[2], shape[3]]).into_any(),
        other => return Err(unsupported(point, &other.shape()).into()),
    })
}

impl Differences {
    /// The first position of `region` at which another run differs from the base run, in the
    /// heads of `region`.
    fn first(
        &mut self,
        point: HookPoint,
        base: &ActivationCache,
        other: &Arc<ActivationCache>,
        region: &[Vec<usize>],
    ) -> Result<Option<usize>, AnalysisError> {
        let key = (point, Arc::as_ptr(other).addr());
        let map = match self.0.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => {
                let base = base.get(point)?;
                let other = whole(point, &Values::Run(Arc::clone(other)), &base)?;
                free.insert(Map::new(base, other)?)
            }
        };
        let pos_axis = point.pos_axis().unwrap_or(1);
        let heads = match (region.len(), pos_axis) {
            (3, _) => vec![0],
            (_, 1) => region[2].clone(),
            _ => region[1].clone(),
        };
        let differs = |pos: usize, head: usize| {
            let (row, column) = if pos_axis == 1 { (pos, head) } else { (head, pos) };
            map.differs[row * map.width + column]
        };
        let positions = &region[pos_axis];
        Ok(positions.iter().copied().filter(|&pos| heads.iter().any(|&head| differs(pos, head))).min())
    }
}

impl Map {
    fn new(base: AnyTensor, other: AnyTensor) -> Result<Self, AnalysisError> {
        // -inf less -inf, at masked scores, is not a number: not equal to zero, so it counts as a
        // difference, which costs time and changes no result.
        let (values, width) = match (base, other) {
            (AnyTensor::Float3(a), AnyTensor::Float3(b)) => {
                (to_host((a - b).abs().max_dim(2).max_dim(0))?, 1)
            }
            (AnyTensor::Float4(a), AnyTensor::Float4(b)) => {
                let width = a.dims()[2];
                (to_host((a - b).abs().max_dim(3).max_dim(0))?, width)
            }
            (other, _) => return Err(unsupported(HookPoint::Tokens, &other.shape()).into()),
        };
        Ok(Self { differs: values.into_iter().map(|value| value != 0.0).collect(), width })
    }
}

/// The runs of neighboring indices.
fn runs(indices: Vec<usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for index in indices {
        match runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

/// Every combination of one run for each axis.
fn product(axes: &[Vec<Range<usize>>]) -> Vec<Vec<Range<usize>>> {
    axes.iter().fold(vec![Vec::new()], |boxes, runs| {
        boxes
            .iter()
            .flat_map(|start| runs.iter().map(move |run| [start.clone(), vec![run.clone()]].concat()))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_become_boxes() {
        assert_eq!(runs(vec![0, 1, 2, 5, 4]), [0..3, 5..6, 4..5]);
        let boxes = product(&[runs(vec![0, 1]), runs(vec![1, 4])]);
        assert_eq!(boxes, [[0..2, 1..2], [0..2, 4..5]]);
    }
}
