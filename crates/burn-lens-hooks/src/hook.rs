//! A hook: where it applies and what it does there.

use std::{any::Any, collections::HashMap, fmt, sync::Arc};

use burn_lens_tensor::{AnyTensor, RankError, TypedTensor};

use crate::{HookPoint, Hooks, RunError, Selector};

/// What a hook is told besides the tensor.
#[derive(Debug)]
pub struct HookContext<'r> {
    /// The hook point that fired.
    pub point: HookPoint,
    /// The absolute position of the tensor's first token: 0, or in generation with a
    /// key-value cache the number of tokens already cached.
    pub pos_offset: usize,
    /// Values kept for this hook point between calls (TransformerLens's `hook.ctx`), until
    /// the run ends or, on a model with a [`HookRegistry`](crate::HookRegistry), until
    /// `clear_contexts`.
    pub values: &'r mut ContextValues,
}

/// Values that hooks keep at one hook point, by name.
#[derive(Default)]
pub struct ContextValues(HashMap<String, Box<dyn Any + Send>>);

impl ContextValues {
    /// Keeps `value` under `name`, replacing what was there.
    pub fn set<T: Any + Send>(&mut self, name: &str, value: T) {
        self.0.insert(name.to_owned(), Box::new(value));
    }

    /// The value under `name`, if there is one of that type.
    #[must_use]
    pub fn get<T: Any + Send>(&self, name: &str) -> Option<&T> {
        self.0.get(name)?.downcast_ref()
    }
}

impl fmt::Debug for ContextValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Why a hook's closure did not give a tensor.
pub(crate) enum HookFailure {
    Rank(RankError),
    Own(Box<dyn std::error::Error + Send + Sync>),
}

type HookOutcome = Result<Option<AnyTensor>, HookFailure>;
pub(crate) type ForwardFn<'a> = dyn FnMut(AnyTensor, &mut HookContext<'_>) -> HookOutcome + Send + 'a;
pub(crate) type GradFn = dyn Fn(HookPoint, AnyTensor) -> Result<Option<AnyTensor>, RankError> + Send + Sync;

pub(crate) type SpliceFn<'a> =
    dyn FnMut(AnyTensor, &mut Hooks<'_>) -> Result<Option<AnyTensor>, RunError> + Send + 'a;

pub(crate) enum Action<'a> {
    Forward(Box<ForwardFn<'a>>),
    Gradient(Arc<GradFn>),
    Splice(Splice, Box<SpliceFn<'a>>),
}

/// Where something is spliced in, and which hooks fire in it.
#[derive(Clone, Debug)]
pub(crate) struct Splice {
    pub(crate) host: HookPoint,
    pub(crate) fires: Vec<HookPoint>,
    /// Whether what it does at a position depends on that position alone.
    pub(crate) by_position: bool,
}

/// A function at some hook points: reads or edits the activation, or its gradient.
///
/// The tensor type of the closure's first parameter fixes the rank; at a point of another rank
/// the run fails with an error that names the point. Take
/// [`AnyTensor`](burn_lens_tensor::AnyTensor) to accept whatever comes.
///
/// ```
/// # use burn_lens_hooks::{Hook, HookContext};
/// # use burn_lens_tensor::burn::tensor::Tensor;
/// // Zero-ablate head 2 in every layer.
/// let ablate = Hook::edit("blocks.*.attn.hook_z", |z: Tensor<4>, _: &mut HookContext| {
///     let [batch, pos, _, d_head] = z.dims();
///     z.slice_fill([0..batch, 0..pos, 2..3, 0..d_head], 0.0)
/// });
/// # let _ = ablate;
/// ```
pub struct Hook<'a> {
    pub(crate) selector: Selector,
    pub(crate) action: Action<'a>,
    pub(crate) prepend: bool,
}

impl<'a> Hook<'a> {
    /// Reads the activation.
    pub fn read<T: TypedTensor>(
        at: impl Into<Selector>,
        mut f: impl FnMut(&T, &mut HookContext<'_>) + Send + 'a,
    ) -> Self {
        Self::forward(at, move |x, context| {
            f(&T::from_any(x).map_err(HookFailure::Rank)?, context);
            Ok(None)
        })
    }

    /// Replaces the activation by what `f` returns, which must have its shape, dtype and device.
    pub fn edit<T: TypedTensor>(
        at: impl Into<Selector>,
        mut f: impl FnMut(T, &mut HookContext<'_>) -> T + Send + 'a,
    ) -> Self {
        Self::forward(at, move |x, context| {
            let x = T::from_any(x).map_err(HookFailure::Rank)?;
            Ok(Some(f(x, context).into_any()))
        })
    }

    /// Replaces the activation where `f` returns one; an error ends the run, with the hook
    /// point named.
    pub fn try_edit<T: TypedTensor, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        at: impl Into<Selector>,
        mut f: impl FnMut(T, &mut HookContext<'_>) -> Result<Option<T>, E> + Send + 'a,
    ) -> Self {
        Self::forward(at, move |x, context| {
            let x = T::from_any(x).map_err(HookFailure::Rank)?;
            let edited = f(x, context).map_err(|error| HookFailure::Own(error.into()))?;
            Ok(edited.map(TypedTensor::into_any))
        })
    }

    /// Reads the gradient of the metric with respect to the activation, in the backward pass.
    pub fn read_grad<T: TypedTensor>(
        at: impl Into<Selector>,
        f: impl Fn(&T, HookPoint) + Send + Sync + 'static,
    ) -> Self {
        Self::gradient(at, move |point, grad| {
            f(&T::from_any(grad)?, point);
            Ok(None)
        })
    }

    /// Replaces that gradient by what `f` returns; everything earlier in the model sees the
    /// replacement.
    ///
    /// # Panics
    ///
    /// In a backward pass that the caller starts, if `f` takes or returns another rank or shape;
    /// where the library runs it (`CacheOptions::incl_bwd`) that is an error.
    pub fn edit_grad<T: TypedTensor>(
        at: impl Into<Selector>,
        f: impl Fn(T, HookPoint) -> T + Send + Sync + 'static,
    ) -> Self {
        Self::gradient(at, move |point, grad| Ok(Some(f(T::from_any(grad)?, point).into_any())))
    }

    /// Puts a computation of its own in at a hook point, behind the hooks there. It is given the
    /// activation and the run's hooks, calls [`Hooks::at`] at the points that it `fires`, and may
    /// give a tensor to go on with.
    ///
    /// Other hooks, and caches, can then name these points.
    pub fn splice(
        host: HookPoint,
        fires: Vec<HookPoint>,
        f: impl FnMut(AnyTensor, &mut Hooks<'_>) -> Result<Option<AnyTensor>, RunError> + Send + 'a,
    ) -> Self {
        let action = Action::Splice(Splice { host, fires, by_position: false }, Box::new(f));
        Self { selector: host.into(), action, prepend: false }
    }

    /// Says of a splice that what it does at a position depends on the activation there alone: neither
    /// on other positions, prompts or hook points, nor on earlier calls. Passes over a part of the
    /// positions can then have it. Other hooks stay what they are.
    #[must_use]
    pub fn by_position(mut self) -> Self {
        if let Action::Splice(splice, _) = &mut self.action {
            splice.by_position = true;
        }
        self
    }

    /// Puts this hook before all that are registered at the same point so far.
    #[must_use]
    pub fn prepend(mut self) -> Self {
        self.prepend = true;
        self
    }

    fn forward(
        at: impl Into<Selector>,
        f: impl FnMut(AnyTensor, &mut HookContext<'_>) -> HookOutcome + Send + 'a,
    ) -> Self {
        Self { selector: at.into(), action: Action::Forward(Box::new(f)), prepend: false }
    }

    fn gradient(
        at: impl Into<Selector>,
        f: impl Fn(HookPoint, AnyTensor) -> Result<Option<AnyTensor>, RankError> + Send + Sync + 'static,
    ) -> Self {
        Self { selector: at.into(), action: Action::Gradient(Arc::new(f)), prepend: false }
    }
}

impl Hook<'_> {
    pub(crate) fn spliced(&self) -> Option<&Splice> {
        match &self.action {
            Action::Splice(splice, _) => Some(splice),
            Action::Forward(_) | Action::Gradient(_) => None,
        }
    }
}

impl fmt::Debug for Hook<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.action {
            Action::Forward(_) => "forward",
            Action::Gradient(_) => "gradient",
            Action::Splice(..) => "splice",
        };
        write!(f, "Hook({kind} at {:?})", self.selector)
    }
}
