//! Activations kept from one run, by name.

use std::collections::BTreeMap;

use burn_lens_tensor::{
    AnyTensor, FloatType, Slice, TypedTensor,
    burn::tensor::{Device, TensorData},
    nearest,
};
use indexmap::IndexMap;

use crate::{
    HookPoint, RunError,
    act_name::parse_act_name,
    kept::{self, Kept},
};

/// Suffix of a gradient's name: `blocks.0.hook_resid_pre_grad`.
const GRAD: &str = "_grad";

/// How an activation is asked for: a full name, a short name (`pattern3`, `resid_pre3`), a
/// typed [`HookPoint`], or `(name, layer)` and `(name, layer, type)` with negative layers.
#[derive(Clone, Debug)]
pub enum CacheKey {
    /// A typed hook point.
    Point(HookPoint),
    /// A full or short name.
    Name(String),
    /// Name, layer (negative from the end) and, if needed, type: `("scale", -1, "ln1")`.
    Parts(String, isize, Option<String>),
}

impl From<HookPoint> for CacheKey {
    fn from(point: HookPoint) -> Self {
        Self::Point(point)
    }
}

impl From<&str> for CacheKey {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<(&str, isize)> for CacheKey {
    fn from((name, layer): (&str, isize)) -> Self {
        Self::Parts(name.to_owned(), layer, None)
    }
}

impl From<(&str, isize, &str)> for CacheKey {
    fn from((name, layer, kind): (&str, isize, &str)) -> Self {
        Self::Parts(name.to_owned(), layer, Some(kind.to_owned()))
    }
}

/// The activations of one run, in firing order.
///
/// Values are shared with the run, not copied, and no later edit changes them. Where the device has kernels for the float
/// type, a pattern beside whole scores is not stored: each time that somebody asks for it, it is computed from them, to the
/// same bits.
#[derive(Clone, Debug, Default)]
pub struct ActivationCache {
    values: IndexMap<HookPoint, Kept>,
    grads: IndexMap<HookPoint, AnyTensor>,
    n_layers: usize,
    has_batch_dim: bool,
}

impl ActivationCache {
    /// A cache of `values`, of a model with `n_layers` blocks.
    #[must_use]
    pub fn new(values: IndexMap<HookPoint, AnyTensor>, n_layers: usize) -> Self {
        let values = values.into_iter().map(|(point, value)| (point, Kept::Stored(value))).collect();
        Self::of_kept(values, n_layers)
    }

    pub(crate) fn of_kept(values: IndexMap<HookPoint, Kept>, n_layers: usize) -> Self {
        Self { values, grads: IndexMap::new(), n_layers, has_batch_dim: true }
    }

    /// Adds gradients of the metric with respect to the activations.
    #[must_use]
    pub fn with_grads(mut self, grads: IndexMap<HookPoint, AnyTensor>) -> Self {
        self.grads = grads;
        self
    }

    fn point(&self, key: &CacheKey) -> Result<HookPoint, RunError> {
        Ok(match key {
            CacheKey::Point(point) => *point,
            CacheKey::Name(name) => parse_act_name(name, None, None, self.n_layers)?,
            CacheKey::Parts(name, layer, kind) => {
                parse_act_name(name, Some(*layer), kind.as_deref(), self.n_layers)?
            }
        })
    }

    /// The activation under `key`. A name that ends in `_grad` gives its gradient.
    ///
    /// # Errors
    ///
    /// If no hook has that name, or it was not kept.
    pub fn get(&self, key: impl Into<CacheKey>) -> Result<AnyTensor, RunError> {
        let key = key.into();
        if let CacheKey::Name(name) = &key
            && let Some(name) = name.strip_suffix(GRAD)
        {
            return self.grad(name);
        }
        let point = self.point(&key)?;
        kept::value(&self.values, point).ok_or_else(|| not_cached(self.values.keys(), point, ""))
    }

    /// The gradient of the metric with respect to the activation under `key`.
    ///
    /// # Errors
    ///
    /// As [`ActivationCache::get`].
    pub fn grad(&self, key: impl Into<CacheKey>) -> Result<AnyTensor, RunError> {
        let point = self.point(&key.into())?;
        self.grads.get(&point).cloned().ok_or_else(|| not_cached(self.grads.keys(), point, GRAD))
    }

    /// The activation under `key` as a tensor of known rank.
    ///
    /// # Errors
    ///
    /// As [`ActivationCache::get`], or if it is of another rank.
    pub fn tensor<T: TypedTensor>(&self, key: impl Into<CacheKey>) -> Result<T, RunError> {
        let key = key.into();
        let any = self.get(key.clone())?;
        let point = self.point(&key);
        T::from_any(any).map_err(|source| match point {
            Ok(point) => RunError::HookRank { point, source },
            Err(error) => error,
        })
    }

    /// Adds or replaces an activation, for instance one derived from others.
    pub fn insert(&mut self, point: HookPoint, value: AnyTensor) {
        self.store(|from| from == point);
        self.values.insert(point, Kept::Stored(value));
    }

    /// Whether an activation was kept.
    #[must_use]
    pub fn contains(&self, point: HookPoint) -> bool {
        self.values.contains_key(&point)
    }

    /// How many activations it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How many blocks the model has.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        self.n_layers
    }

    /// Whether activations still have their batch axis.
    #[must_use]
    pub fn has_batch_dim(&self) -> bool {
        self.has_batch_dim
    }

    /// The hook points, in firing order.
    pub fn keys(&self) -> impl Iterator<Item = HookPoint> + '_ {
        self.values.keys().copied()
    }

    /// The activations, in firing order.
    pub fn iter(&self) -> impl Iterator<Item = (HookPoint, AnyTensor)> + '_ {
        self.keys().filter_map(|point| Some((point, kept::value(&self.values, point)?)))
    }

    /// The gradients, in firing order.
    pub fn grads(&self) -> impl Iterator<Item = (HookPoint, AnyTensor)> + '_ {
        self.grads.iter().map(|(&point, value)| (point, value.clone()))
    }

    /// The bytes that it takes; what is computed on demand takes none.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        let stored = self.values.values().filter_map(|kept| match kept {
            Kept::Stored(value) => Some(value),
            Kept::Derived(_) => None,
        });
        stored.chain(self.grads.values()).map(AnyTensor::num_bytes).sum()
    }

    /// Everything stored.
    fn materialized(mut self) -> Self {
        self.store(|_| true);
        self
    }

    /// Stores what is computed from activations that `from` takes.
    fn store(&mut self, from: impl Fn(HookPoint) -> bool) {
        let derived = |kept: &Kept| matches!(kept, Kept::Derived(derived) if from(derived.from));
        let points: Vec<_> =
            self.values.iter().filter(|(_, kept)| derived(kept)).map(|(&at, _)| at).collect();
        for point in points {
            if let Some(value) = kept::value(&self.values, point) {
                self.values.insert(point, Kept::Stored(value));
            }
        }
    }

    /// Every tensor that is stored, changed.
    fn map(self, f: impl Fn(HookPoint, AnyTensor) -> Result<AnyTensor, RunError>) -> Result<Self, RunError> {
        let change = |(point, kept)| match kept {
            Kept::Stored(x) => Ok((point, Kept::Stored(f(point, x)?))),
            derived @ Kept::Derived(_) => Ok((point, derived)),
        };
        let values = self.values.into_iter().map(change).collect::<Result<_, RunError>>()?;
        let grads = self.grads.into_iter().map(|(point, x)| Ok((point, f(point, x)?)));
        Ok(Self { values, grads: grads.collect::<Result<_, RunError>>()?, ..self })
    }

    /// Moves every tensor to `device`.
    #[must_use]
    pub fn to(self, device: &Device) -> Self {
        self.each(|x| x.to_device(device))
    }

    /// Casts every float tensor.
    #[must_use]
    pub fn cast(self, dtype: FloatType) -> Self {
        self.each(|x| x.cast(dtype))
    }

    fn each(self, f: impl Fn(AnyTensor) -> AnyTensor) -> Self {
        let mut all = self.materialized();
        let stored = all.values.values_mut().filter_map(|kept| match kept {
            Kept::Stored(value) => Some(value),
            Kept::Derived(_) => None,
        });
        for value in stored.chain(all.grads.values_mut()) {
            *value = f(value.clone());
        }
        all
    }

    /// Removes the batch axis of every activation.
    ///
    /// # Errors
    ///
    /// If there is more than one prompt.
    pub fn remove_batch_dim(self) -> Result<Self, RunError> {
        if !self.has_batch_dim {
            return Ok(self);
        }
        let cache = self.map(|point, x| match point.batch_axis() {
            None => Ok(x),
            Some(axis) if x.shape()[axis] == 1 => {
                x.remove_axis(axis).map_err(|source| RunError::HookRank { point, source })
            }
            Some(axis) => Err(RunError::BatchNotOne { batch: x.shape()[axis] }),
        })?;
        Ok(Self { has_batch_dim: false, ..cache })
    }

    /// The activations of some prompts. An index removes the batch axis, as in TransformerLens.
    ///
    /// # Errors
    ///
    /// If the batch axis is gone already (unless everything is kept), or the slice does not fit.
    pub fn apply_slice_to_batch_dim(self, slice: &Slice) -> Result<Self, RunError> {
        if *slice == Slice::All {
            return Ok(self);
        }
        if !self.has_batch_dim {
            return Err(RunError::Options("this cache has no batch axis to slice".to_owned()));
        }
        let cache = self.materialized().map(|point, x| match point.batch_axis() {
            None => Ok(x),
            Some(axis) => x.slice_axis(axis, slice).map_err(|source| RunError::Slice { point, source }),
        })?;
        if slice.is_index() { cache.remove_batch_dim() } else { Ok(cache) }
    }

    /// Reads everything back to the host under exact names, gradients with `_grad` behind
    /// theirs: what `burn-lens-io` writes to a safetensors file.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn to_tensors(&self) -> Result<Vec<(String, TensorData)>, RunError> {
        let values = self.iter().map(|(point, value)| (point.to_string(), value));
        let grads = self.grads().map(|(point, value)| (format!("{point}{GRAD}"), value));
        values.chain(grads).map(|(name, value)| Ok((name, value.into_data()?))).collect()
    }

    /// A cache from named tensors, the inverse of [`ActivationCache::to_tensors`].
    ///
    /// # Errors
    ///
    /// If a name is not a hook's, or a rank is impossible.
    pub fn from_tensors(
        tensors: BTreeMap<String, TensorData>,
        n_layers: usize,
        device: &Device,
    ) -> Result<Self, RunError> {
        let (mut values, mut grads) = (IndexMap::new(), IndexMap::new());
        let mut has_batch_dim = true;
        for (name, data) in tensors {
            let (target, plain) = match name.strip_suffix(GRAD) {
                Some(plain) => (&mut grads, plain),
                None => (&mut values, name.as_str()),
            };
            let point: HookPoint = plain.parse()?;
            let value =
                AnyTensor::from_data(data, device).map_err(|source| RunError::HookRank { point, source })?;
            if value.rank() + 1 == point.axes().len() {
                has_batch_dim = false;
            }
            target.insert(point, value);
        }
        for map in [&mut values, &mut grads] {
            map.sort_by_key(|point, _| firing_order(*point));
        }
        Ok(Self { has_batch_dim, ..Self::new(values, n_layers).with_grads(grads) })
    }
}

/// Embedding, blocks, final norm and unembedding.
fn firing_order(point: HookPoint) -> (usize, usize, HookPoint) {
    let group = match point {
        HookPoint::LnFinalScale
        | HookPoint::LnFinalNormalized
        | HookPoint::UnembedIn
        | HookPoint::UnembedOut
        | HookPoint::ReadOut => 2,
        _ => usize::from(point.layer().is_some()),
    };
    (group, point.layer().unwrap_or(0), point)
}

fn not_cached<'a>(kept: impl Iterator<Item = &'a HookPoint>, point: HookPoint, suffix: &str) -> RunError {
    let name = format!("{point}{suffix}");
    let nearest = nearest(&name, kept.map(|point| format!("{point}{suffix}")));
    RunError::NotCached { name, nearest }
}
