//! What an intervention does to one activation.

use std::collections::HashMap;

use burn_lens::{
    burn::tensor::{Bool, Tensor, TensorData},
    hooks::{Axis, HookPoint},
    tensor::{AnyTensor, Slice, TypedTensor, numeric},
};

use super::{Change, error::Problem, spec::Place, texts::Texts, vector::Vector};

/// One intervention, ready to run.
pub(super) struct Edit {
    place: Place,
    change: Change,
    texts: Texts,
    /// Means of the first pass at each point, `[1, .., 1, ..]`, in the activation's rank.
    means: HashMap<HookPoint, AnyTensor>,
}

impl Edit {
    pub(super) fn new(place: Place, change: Change, texts: Texts) -> Self {
        Self { place, change, texts, means: HashMap::new() }
    }

    /// Refuses what does not fit `point`, whose axes have these lengths where the model fixes
    /// them.
    pub(super) fn check(&self, point: HookPoint, lens: &[Option<usize>]) -> Result<(), Problem> {
        if point.is_integer() {
            return Err(Problem::Integers(point));
        }
        for (key, what, slice, axis) in [
            ("head", "heads", &self.place.head, point.head_axis()),
            ("neuron", "neurons", &self.place.neuron, neuron_axis(point)),
        ] {
            let Some(slice) = slice else { continue };
            let axis = axis.ok_or(Problem::NoAxis { point, key, axis: key })?;
            let len = lens[axis].unwrap_or(0);
            slice.resolve(len).map_err(|source| Problem::Outside {
                point,
                key,
                slice: slice.to_string(),
                len,
                what,
                source,
            })?;
        }
        if let Some(pos) = &self.place.pos {
            if point.pos_axis().is_none() {
                return Err(Problem::NoAxis { point, key: "pos", axis: "position" });
            }
            self.texts.check(pos)?;
        }
        match &self.change {
            Change::Mean if self.texts.generating && point.axes().contains(&Axis::KeyPos) => {
                Err(Problem::MeanGrows(point))
            }
            Change::Add(vector) => self.check_vector(vector, point, lens),
            _ => Ok(()),
        }
    }

    fn check_vector(&self, vector: &Vector, point: HookPoint, lens: &[Option<usize>]) -> Result<(), Problem> {
        let chosen: Vec<Option<usize>> =
            (0..lens.len()).map(|axis| self.chosen(point, axis, lens[axis])).collect();
        if vector.fits(&chosen) {
            return Ok(());
        }
        let word = |axis: usize| {
            chosen[axis].map_or_else(|| point.axes()[axis].name().to_owned(), |len| len.to_string())
        };
        Err(Problem::VectorShape {
            tensor: vector.name.clone(),
            found: vector.shape.clone(),
            point,
            expected: (0..chosen.len()).map(word).collect(),
            last: word(chosen.len() - 1),
        })
    }

    /// How many places are chosen along `axis`, whose length is `len`.
    fn chosen(&self, point: HookPoint, axis: usize, len: Option<usize>) -> Option<usize> {
        if Some(axis) == point.batch_axis() {
            return Some(self.texts.batch());
        }
        if Some(axis) == point.pos_axis() {
            return self.texts.count(self.place.pos.as_ref().unwrap_or(&Slice::All));
        }
        if point.axes()[axis] == Axis::KeyPos {
            return self.texts.count(&Slice::All);
        }
        match (self.along(point, axis), len) {
            (Some(slice), Some(len)) => slice.resolve(len).ok().map(|indices| indices.len()),
            _ => len,
        }
    }

    /// The slice of heads or neurons, if `axis` runs over them.
    fn along(&self, point: HookPoint, axis: usize) -> Option<&Slice> {
        if Some(axis) == point.head_axis() {
            return self.place.head.as_ref();
        }
        if Some(axis) == neuron_axis(point) { self.place.neuron.as_ref() } else { None }
    }

    /// The activation after the intervention; `None` where it does not change.
    pub(super) fn apply(&mut self, x: AnyTensor, point: HookPoint, pos_offset: usize) -> Option<AnyTensor> {
        match x {
            AnyTensor::Float1(x) => self.edited(x, point, pos_offset).map(TypedTensor::into_any),
            AnyTensor::Float2(x) => self.edited(x, point, pos_offset).map(TypedTensor::into_any),
            AnyTensor::Float3(x) => self.edited(x, point, pos_offset).map(TypedTensor::into_any),
            AnyTensor::Float4(x) => self.edited(x, point, pos_offset).map(TypedTensor::into_any),
            AnyTensor::Float5(x) => self.edited(x, point, pos_offset).map(TypedTensor::into_any),
            _ => None, // refused by `check`
        }
    }

    fn edited<const D: usize>(
        &mut self,
        x: Tensor<D>,
        point: HookPoint,
        pos_offset: usize,
    ) -> Option<Tensor<D>>
    where
        Tensor<D>: TypedTensor,
    {
        // The mean is that of the first pass, whether or not anything of it is chosen.
        let mean = matches!(self.change, Change::Mean).then(|| self.mean(&x, point));
        let pass = Pass { edit: self, point, pos_offset, dims: x.dims() };
        let chosen = pass.chosen(&x);
        if matches!(chosen, Chosen::Nothing) {
            return None;
        }
        let changed = match &self.change {
            Change::Zero => x.zeros_like(),
            Change::Mean => mean?.expand(x.dims()),
            Change::Scale(factor) => x.clone() * *factor,
            Change::Add(vector) => {
                let (values, shape) = pass.addend(vector);
                let addend = TensorData::new(values, shape).convert_dtype(x.dtype());
                x.clone() + Tensor::<D>::from_data(addend, (&x.device(), x.dtype()))
            }
        };
        match chosen {
            Chosen::Nothing => None,
            Chosen::Everything => Some(changed),
            Chosen::Some(mask) => Some(x.mask_where(*mask, changed)),
        }
    }

    /// The mean over prompts and positions, padding left out, of the first pass.
    fn mean<const D: usize>(&mut self, x: &Tensor<D>, point: HookPoint) -> Tensor<D>
    where
        Tensor<D>: TypedTensor,
    {
        let known = self.means.get(&point).and_then(|mean| Tensor::<D>::from_any(mean.clone()).ok());
        known.unwrap_or_else(|| {
            let mean = mean_over_text(x, point, self.texts.real());
            self.means.insert(point, mean.clone().into_any());
            mean
        })
    }
}

fn neuron_axis(point: HookPoint) -> Option<usize> {
    point.axes().iter().position(|&axis| matches!(axis, Axis::DMlp | Axis::Feature))
}

/// # Shapes
///
/// - `real`: `[batch][pos]`
/// - returns: as `x`, with length 1 for batch and position
fn mean_over_text<const D: usize>(x: &Tensor<D>, point: HookPoint, real: Option<&[Vec<bool>]>) -> Tensor<D> {
    let (wide, dtype) = numeric::widened(x.clone());
    let axes = [point.batch_axis(), point.pos_axis()];
    let dims = x.dims();
    let (sum, count) = match real {
        None => (wide, axes.iter().flatten().map(|&axis| dims[axis]).product::<usize>()),
        Some(real) => {
            let padding: Vec<bool> = real.iter().flatten().map(|&real| !real).collect();
            let count = padding.iter().filter(|&&padding| !padding).count();
            let mask = mask_of(padding, kept(dims, &axes), &wide);
            (wide.mask_fill(mask.expand(dims), 0.0), count)
        }
    };
    let sum = axes.into_iter().flatten().fold(sum, Tensor::sum_dim);
    (sum / count as f64).cast(dtype)
}

/// `dims` with length 1 everywhere but at `axes`.
fn kept<const D: usize>(dims: [usize; D], axes: &[Option<usize>]) -> [usize; D] {
    std::array::from_fn(|axis| if axes.contains(&Some(axis)) { dims[axis] } else { 1 })
}

fn mask_of<const D: usize>(values: Vec<bool>, shape: [usize; D], like: &Tensor<D>) -> Tensor<D, Bool> {
    Tensor::from_data(TensorData::new(values, shape), &like.device().without_autodiff())
}

/// What of an activation is changed.
enum Chosen<const D: usize> {
    Nothing,
    Everything,
    Some(Box<Tensor<D, Bool>>),
}

/// One call of a hook.
struct Pass<'e, const D: usize> {
    edit: &'e Edit,
    point: HookPoint,
    pos_offset: usize,
    dims: [usize; D],
}

impl<const D: usize> Pass<'_, D> {
    fn chosen(&self, x: &Tensor<D>) -> Chosen<D> {
        let mut masks = Vec::new();
        if let (Some(_), Some(axis)) = (&self.edit.place.pos, self.point.pos_axis()) {
            let axes = [self.point.batch_axis(), Some(axis)];
            let rows = if axes[0].is_some() { self.edit.texts.batch() } else { 1 };
            let chosen: Vec<bool> = (0..rows)
                .flat_map(|row| (0..self.dims[axis]).map(move |column| (row, column)))
                .map(|(row, column)| self.position(row, column).is_some())
                .collect();
            if !chosen.contains(&true) {
                return Chosen::Nothing;
            }
            masks.push(mask_of(chosen, kept(self.dims, &axes), x));
        }
        for axis in 0..D {
            if let Some(slice) = self.edit.along(self.point, axis) {
                let mut chosen = vec![false; self.dims[axis]];
                for at in indices(slice, self.dims[axis]) {
                    chosen[at] = true;
                }
                masks.push(mask_of(chosen, kept(self.dims, &[Some(axis)]), x));
            }
        }
        let masks = masks.into_iter().map(|mask| mask.expand(self.dims));
        masks.reduce(Tensor::bool_and).map_or(Chosen::Everything, |mask| Chosen::Some(Box::new(mask)))
    }

    /// Where `column` of this pass stands among the positions chosen in text `row`.
    fn position(&self, row: usize, column: usize) -> Option<usize> {
        let slice = self.edit.place.pos.as_ref().unwrap_or(&Slice::All);
        self.edit.texts.place(slice, row, column + self.pos_offset)
    }

    /// What is added where: values and their shape, which broadcasts over the activation's.
    fn addend(&self, vector: &Vector) -> (Vec<f64>, [usize; D]) {
        let last = D - 1;
        let shape = if vector.is_plain() { kept(self.dims, &[Some(last)]) } else { self.dims };
        let mut values = vec![0.0; shape.iter().product()];
        let mut index = [0; D];
        for value in &mut values {
            let place: Option<Vec<usize>> = (0..D).map(|axis| self.place(axis, &index)).collect();
            if let Some(place) = place {
                *value = vector.at(&place);
            }
            step(&mut index, &shape);
        }
        (values, shape)
    }

    /// Where `index` stands along `axis` among what was chosen.
    fn place(&self, axis: usize, index: &[usize; D]) -> Option<usize> {
        let at = index[axis];
        if Some(axis) == self.point.pos_axis() {
            let row = self.point.batch_axis().map_or(0, |batch| index[batch]);
            // A plain vector is the same at every position; the mask says where it applies.
            return if self.edit.plain() { Some(0) } else { self.position(row, at) };
        }
        match self.edit.along(self.point, axis) {
            Some(_) if self.edit.plain() && axis != D - 1 => Some(0),
            Some(slice) => indices(slice, self.dims[axis]).into_iter().position(|index| index == at),
            None => Some(at),
        }
    }
}

impl Edit {
    /// Whether one vector is added everywhere.
    fn plain(&self) -> bool {
        matches!(&self.change, Change::Add(vector) if vector.is_plain())
    }
}

/// What `slice` chooses of an axis of length `len`; it was checked to fit.
fn indices(slice: &Slice, len: usize) -> Vec<usize> {
    slice.resolve(len).map(|indices| indices.to_vec()).unwrap_or_default()
}

/// The next index in row-major order.
fn step<const D: usize>(index: &mut [usize; D], shape: &[usize; D]) {
    for axis in (0..D).rev() {
        index[axis] += 1;
        if index[axis] < shape[axis] {
            return;
        }
        index[axis] = 0;
    }
}
