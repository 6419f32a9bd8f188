//! The hooks of one run: what a model's forward pass calls at each point.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use burn_lens_tensor::{
    AnyTensor, FloatType, Slice, SliceError, TypedTensor,
    burn::tensor::{Device, Tensor},
    grad_hook,
};
use indexmap::IndexMap;

use crate::{
    CacheOptions, HookPoint, HookRegistry, RunError,
    hook::{Action, ContextValues, ForwardFn, GradFn, Hook, HookContext, HookFailure, SpliceFn},
    kept::{Derived, Kept},
    registry::Installed,
    selector::Firing,
};

enum Slot<'a> {
    Own(Box<ForwardFn<'a>>),
    Shared(Arc<Mutex<Box<ForwardFn<'static>>>>),
}

enum SpliceSlot<'a> {
    Own(Box<SpliceFn<'a>>),
    Shared(Arc<Mutex<Box<SpliceFn<'static>>>>),
}

/// What to keep of a run.
#[derive(Debug)]
pub(crate) struct Sink {
    pub points: HashSet<HookPoint>,
    pub pos_slice: Slice,
    pub device: Option<Device>,
    pub dtype: Option<FloatType>,
    pub values: IndexMap<HookPoint, Kept>,
}

/// Gradients as they arrive in the backward pass.
pub(crate) type GradSink = Arc<Mutex<HashMap<HookPoint, AnyTensor>>>;

/// The hooks of one run. A model calls [`Hooks::at`] at each of its hook points.
///
/// With nothing asked for, `at` is a single branch and hands the tensor straight back, so an
/// unhooked model runs at full speed.
#[derive(Default)]
pub struct Hooks<'a> {
    /// False when there is nothing to do at any point.
    active: bool,
    slots: Vec<Slot<'a>>,
    forward: HashMap<HookPoint, Vec<usize>>,
    gradient: HashMap<HookPoint, Vec<Arc<GradFn>>>,
    splices: HashMap<HookPoint, Vec<SpliceSlot<'a>>>,
    sink: Option<Sink>,
    grads: Option<(HashSet<HookPoint>, GradSink)>,
    /// The first failure inside a backward pass, where nothing can be returned.
    grad_error: Arc<Mutex<Option<RunError>>>,
    contexts: HashMap<HookPoint, ContextValues>,
    pos_offset: usize,
    error: Option<RunError>,
}

impl<'a> Hooks<'a> {
    /// No hooks: every point is the identity.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// `hooks` and those installed in `registry`, resolved against what the model fires.
    ///
    /// Installed hooks come first, then `hooks`, each in order; prepended ones go to the front.
    ///
    /// # Errors
    ///
    /// If a selector names a hook that the model cannot fire.
    pub fn resolve(
        hooks: Vec<Hook<'a>>,
        registry: Option<&HookRegistry>,
        firing: &Firing,
    ) -> Result<Self, RunError> {
        let mut run = Self::default();
        let firing = &spliced(firing.clone(), registry, &hooks)?;
        if let Some(registry) = registry {
            for (selector, action, prepend) in registry.installed() {
                // An installed hook is valid for the model; where this run does not reach it, it waits.
                let points = match selector.resolve(firing) {
                    Err(_) if !firing.unreached.is_empty() => continue,
                    points => points?,
                };
                match action {
                    Installed::Forward(f) => run.add_forward(&points, Slot::Shared(f), prepend),
                    Installed::Gradient(f) => run.add_gradient(&points, &f, prepend)?,
                    Installed::Splice(_, f) => run.add_splice(&points, SpliceSlot::Shared(f)),
                }
            }
        }
        for hook in hooks {
            let points = hook.selector.resolve(firing)?;
            match hook.action {
                Action::Forward(f) => run.add_forward(&points, Slot::Own(f), hook.prepend),
                Action::Gradient(f) => run.add_gradient(&points, &f, hook.prepend)?,
                Action::Splice(_, f) => run.add_splice(&points, SpliceSlot::Own(f)),
            }
        }
        run.contexts = registry.map(HookRegistry::take_contexts).unwrap_or_default();
        Ok(run)
    }

    fn add_forward(&mut self, points: &[HookPoint], slot: Slot<'a>, prepend: bool) {
        self.active = true;
        self.slots.push(slot);
        let index = self.slots.len() - 1;
        for &point in points {
            let list = self.forward.entry(point).or_default();
            list.insert(if prepend { 0 } else { list.len() }, index);
        }
    }

    fn add_gradient(&mut self, points: &[HookPoint], f: &Arc<GradFn>, prepend: bool) -> Result<(), RunError> {
        self.active = true;
        for &point in points {
            if point.is_integer() {
                return Err(RunError::CannotFire {
                    point,
                    reason: "integers have no gradient".to_owned(),
                    nearest: Vec::new(),
                });
            }
            let list = self.gradient.entry(point).or_default();
            list.insert(if prepend { 0 } else { list.len() }, Arc::clone(f));
        }
        Ok(())
    }

    fn add_splice(&mut self, points: &[HookPoint], slot: SpliceSlot<'a>) {
        self.active = true;
        // The selector of a splice is one point.
        if let [point] = points {
            self.splices.entry(*point).or_default().push(slot);
        }
    }

    pub(crate) fn keep(&mut self, sink: Sink) {
        self.active = true;
        self.sink = Some(sink);
    }

    pub(crate) fn keep_grads(&mut self, points: HashSet<HookPoint>) -> GradSink {
        self.active = true;
        let sink = GradSink::default();
        self.grads = Some((points, Arc::clone(&sink)));
        sink
    }

    /// Takes what was kept, after the run.
    pub(crate) fn take_kept(&mut self) -> IndexMap<HookPoint, Kept> {
        self.sink.as_mut().map(|sink| std::mem::take(&mut sink.values)).unwrap_or_default()
    }

    /// Returns the first error that a hook of the forward pass met, and gives the registry its
    /// contexts back.
    ///
    /// # Errors
    ///
    /// That first error.
    pub fn finish(&mut self, registry: Option<&HookRegistry>) -> Result<(), RunError> {
        if let Some(registry) = registry {
            registry.put_contexts(std::mem::take(&mut self.contexts));
        }
        self.error.take().map_or(Ok(()), Err)
    }

    /// Returns the first error that a gradient hook met.
    ///
    /// # Errors
    ///
    /// That first error.
    pub fn finish_backward(&self) -> Result<(), RunError> {
        self.grad_error.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    /// The absolute position of the first token of this pass, for hooks to see.
    pub fn set_pos_offset(&mut self, offset: usize) {
        self.pos_offset = offset;
    }

    /// That position.
    #[must_use]
    pub fn pos_offset(&self) -> usize {
        self.pos_offset
    }

    /// Whether a hook has failed; the rest of the pass need not be computed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.error.is_some()
    }

    /// Whether anything is to happen at `point`: what decides if an optional activation is
    /// computed at all.
    #[must_use]
    pub fn wants(&self, point: HookPoint) -> bool {
        self.may_change(point) || self.keeps(point)
    }

    /// Whether what follows `point` may depend on what happens there, and not on the activation alone: what decides if
    /// it can be computed before the hooks of `point` are called.
    #[must_use]
    pub fn may_change(&self, point: HookPoint) -> bool {
        self.active
            && (self.forward.contains_key(&point)
                || self.splices.contains_key(&point)
                || self.gradient.contains_key(&point)
                || self.grads.as_ref().is_some_and(|(points, _)| points.contains(&point)))
    }

    fn keeps(&self, point: HookPoint) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.points.contains(&point))
    }

    /// Whether `point` is only kept, and can be computed for whoever asks from what is kept at `from`, whole and as it is.
    #[must_use]
    pub fn may_derive(&self, point: HookPoint, from: HookPoint) -> bool {
        !self.may_change(point)
            && self.sink.as_ref().is_some_and(|sink| {
                let whole = sink.pos_slice == Slice::All && sink.device.is_none() && sink.dtype.is_none();
                whole && sink.points.contains(&point) && sink.points.contains(&from)
            })
    }

    /// In place of the activation at `point`, where [`Hooks::may_derive`] says so: keeps how to compute it from the one
    /// at `from`, which has been there already.
    pub fn derive(
        &mut self,
        point: HookPoint,
        from: HookPoint,
        compute: impl Fn(Tensor<4>) -> Tensor<4> + Send + Sync + 'static,
    ) {
        if let Some(sink) = &mut self.sink
            && self.error.is_none()
        {
            sink.values.insert(point, Kept::Derived(Derived { from, compute: Arc::new(compute) }));
        }
    }

    /// The activation at `point`, after its hooks.
    #[inline]
    pub fn at<T: TypedTensor>(&mut self, point: HookPoint, x: T) -> T {
        if self.active { self.fire(point, x).0 } else { x }
    }

    /// As [`Hooks::at`], and whether the result is another tensor than `x`.
    #[inline]
    pub fn at_changed<T: TypedTensor>(&mut self, point: HookPoint, x: T) -> (T, bool) {
        if self.active { self.fire(point, x) } else { (x, false) }
    }

    #[inline(never)]
    fn fire<T: TypedTensor>(&mut self, point: HookPoint, x: T) -> (T, bool) {
        if self.error.is_some() || !self.wants(point) {
            return (x, false);
        }
        match self.fire_any(point, x.clone().into_any()) {
            Ok((any, changed)) => match T::from_any(any) {
                Ok(x) => (x, changed),
                Err(source) => {
                    self.error = Some(RunError::HookRank { point, source });
                    (x, false)
                }
            },
            Err(error) => {
                self.error = Some(error);
                (x, false)
            }
        }
    }

    fn fire_any(&mut self, point: HookPoint, mut x: AnyTensor) -> Result<(AnyTensor, bool), RunError> {
        let mut changed = false;
        for index in self.forward.get(&point).cloned().unwrap_or_default() {
            let mut context = HookContext {
                point,
                pos_offset: self.pos_offset,
                values: self.contexts.entry(point).or_default(),
            };
            let outcome = match &mut self.slots[index] {
                Slot::Own(f) => f(x.clone(), &mut context),
                Slot::Shared(f) => {
                    let mut f = f.lock().unwrap_or_else(PoisonError::into_inner);
                    f(x.clone(), &mut context)
                }
            };
            match outcome {
                Ok(None) => {}
                Ok(Some(edited)) => {
                    check_replacement(point, &x, &edited)?;
                    x = edited;
                    changed = true;
                }
                Err(HookFailure::Rank(source)) => return Err(RunError::HookRank { point, source }),
                Err(HookFailure::Own(source)) => return Err(RunError::HookFailed { point, source }),
            }
        }
        if let Some(tracked) = self.track(point, &x) {
            x = tracked;
            changed = true;
        }
        if let Some(sink) = self.sink.as_mut().filter(|sink| sink.points.contains(&point)) {
            let value = sink.prepared(point, x.clone())?;
            sink.values.insert(point, Kept::Stored(value));
        }
        // Taken out while they run: they call the hooks themselves.
        let Some(mut splices) = self.splices.remove(&point) else { return Ok((x, changed)) };
        for splice in &mut splices {
            let outcome = match splice {
                SpliceSlot::Own(f) => f(x.clone(), self),
                SpliceSlot::Shared(f) => {
                    let f = Arc::clone(f);
                    let mut f = f.lock().unwrap_or_else(PoisonError::into_inner);
                    f(x.clone(), self)
                }
            };
            if let Some(edited) = outcome? {
                check_replacement(point, &x, &edited)?;
                x = edited;
                changed = true;
            }
        }
        self.splices.insert(point, splices);
        Ok((x, changed))
    }

    /// `x` with the gradient hooks of `point` on it, if there are any.
    ///
    /// Where nothing before `point` is tracked, `x` becomes a leaf of the graph: only what lies
    /// behind the first gradient hook is differentiated.
    fn track(&self, point: HookPoint, x: &AnyTensor) -> Option<AnyTensor> {
        let hooks = self.gradient.get(&point).cloned().unwrap_or_default();
        let sink =
            self.grads.as_ref().filter(|(points, _)| points.contains(&point)).map(|(_, sink)| sink.clone());
        if (hooks.is_empty() && sink.is_none()) || !x.is_float() {
            return None;
        }
        let error = Arc::clone(&self.grad_error);
        // Where the backward pass is the caller's own, nobody is left to take an error.
        let ours = sink.is_some() || self.grads.is_some();
        let report = move |failure: RunError| {
            assert!(ours, "{failure}");
            error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        };
        let on_grad = move |mut grad: AnyTensor| {
            for hook in &hooks {
                match hook(point, grad.clone()) {
                    Ok(None) => {}
                    Ok(Some(edited)) => match check_replacement(point, &grad, &edited) {
                        Ok(()) => grad = edited,
                        Err(failure) => report(failure),
                    },
                    Err(source) => report(RunError::HookRank { point, source }),
                }
            }
            if let Some(sink) = &sink {
                sink.lock().unwrap_or_else(PoisonError::into_inner).insert(point, grad.clone());
            }
            grad
        };
        Some(with_grad_hook(x.clone(), on_grad))
    }
}

/// What fires where something is spliced in.
pub(crate) fn spliced(
    firing: Firing,
    registry: Option<&HookRegistry>,
    hooks: &[Hook<'_>],
) -> Result<Firing, RunError> {
    let installed = registry.map(HookRegistry::installed).unwrap_or_default();
    let installed = installed.iter().filter_map(|(_, action, _)| match action {
        Installed::Splice(splice, _) => Some(splice),
        Installed::Forward(_) | Installed::Gradient(_) => None,
    });
    firing.with_splices(installed.chain(hooks.iter().filter_map(Hook::spliced)))
}

fn with_grad_hook(x: AnyTensor, f: impl Fn(AnyTensor) -> AnyTensor + Send + Sync + 'static) -> AnyTensor {
    macro_rules! hooked {
        ($t:expr) => {{
            let t = if $t.is_tracked() { $t } else { $t.without_autodiff().autodiff().require_grad() };
            grad_hook(t, move |grad| match TypedTensor::from_any(f(grad.clone().into())) {
                Ok(edited) => edited,
                Err(_) => grad, // the shape was checked by the caller, so the rank is the same
            })
            .into()
        }};
    }
    match x {
        AnyTensor::Float1(t) => hooked!(t),
        AnyTensor::Float2(t) => hooked!(t),
        AnyTensor::Float3(t) => hooked!(t),
        AnyTensor::Float4(t) => hooked!(t),
        AnyTensor::Float5(t) => hooked!(t),
        int => int,
    }
}

impl Sink {
    pub(crate) fn new(points: &[HookPoint], options: &CacheOptions) -> Self {
        Self {
            points: points.iter().copied().collect(),
            pos_slice: options.pos_slice.clone(),
            device: options.device.clone(),
            dtype: options.dtype,
            values: IndexMap::new(),
        }
    }

    /// The positions to keep, copied: a view would keep the whole activation alive.
    fn positions(&self, x: AnyTensor, axis: usize) -> Result<AnyTensor, SliceError> {
        if self.pos_slice == Slice::All {
            return Ok(x);
        }
        let kept = self.pos_slice.resolve(x.shape()[axis])?.to_vec();
        x.slice_axis(axis, &Slice::List(kept.into_iter().map(usize::cast_signed).collect()))
    }

    /// `x` sliced, cast and moved as the options ask, off the autodiff graph.
    pub(crate) fn prepared(&self, point: HookPoint, x: AnyTensor) -> Result<AnyTensor, RunError> {
        let mut x = x.detach();
        if let Some(axis) = point.pos_axis() {
            x = self.positions(x, axis).map_err(|source| RunError::Slice { point, source })?;
        }
        if let Some(dtype) = self.dtype {
            x = x.cast(dtype);
        }
        if let Some(device) = &self.device {
            x = x.to_device(device);
        }
        Ok(x)
    }
}

fn check_replacement(point: HookPoint, old: &AnyTensor, new: &AnyTensor) -> Result<(), RunError> {
    if old.shape() != new.shape() {
        return Err(RunError::HookShape { point, expected: old.shape(), found: new.shape() });
    }
    if old.dtype() != new.dtype() {
        let (expected, found) = (format!("{:?}", old.dtype()), format!("{:?}", new.dtype()));
        return Err(RunError::HookDtype { point, expected, found });
    }
    // An edit may turn autodiff on; the hardware must stay the same.
    let (expected, found) = (old.device().without_autodiff(), new.device().without_autodiff());
    if expected != found {
        let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
        return Err(RunError::HookDtype { point, expected, found });
    }
    Ok(())
}

impl std::fmt::Debug for Hooks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hooks({} functions at {} points)", self.slots.len(), self.forward.len())
    }
}
