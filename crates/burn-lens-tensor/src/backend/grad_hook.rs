//! A hook on the gradient, as an operation of our own on burn's backends.
//!
//! burn has no backward hooks and `require_grad` on an intermediate panics, so reading *and
//! editing* a gradient in the middle of a graph takes an operation: the identity going
//! forward, a closure going backward. It costs nothing where autodiff does not track.

use std::sync::Arc;

use burn::{
    backend::{
        Backend, BackendTensor, Dispatch, DispatchKindConversion, DispatchTensor,
        autodiff::{
            Autodiff,
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};

type GradFn = dyn Fn(DispatchTensor) -> DispatchTensor + Send + Sync;

/// The closure, shareable with the graph.
#[derive(Clone)]
pub(super) struct GradHook(Arc<GradFn>);

impl std::fmt::Debug for GradHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GradHook")
    }
}

/// Backends whose primitives can be wrapped back into a dispatch tensor.
pub(crate) trait ToDispatch: Backend {
    /// Primitive to dispatch tensor.
    fn wrap(tensor: FloatTensor<Self>) -> DispatchTensor;
    /// Dispatch tensor to primitive.
    fn unwrap(tensor: DispatchTensor) -> FloatTensor<Self>;
}

impl<B: Backend> ToDispatch for B
where
    DispatchTensor: DispatchKindConversion<B>,
{
    fn wrap(tensor: FloatTensor<B>) -> DispatchTensor {
        <DispatchTensor as DispatchKindConversion<B>>::from_backend(BackendTensor::Float(tensor))
    }

    fn unwrap(tensor: DispatchTensor) -> FloatTensor<B> {
        match <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(tensor) {
            Ok(BackendTensor::Float(tensor)) => tensor,
            _ => panic!("a gradient hook must return a float tensor on the device that it was given"),
        }
    }
}

/// Operations that burn-lens adds to burn's backends.
#[backend_extension(
    Flex: cfg(feature = "cpu"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda")),
    Fusion: cfg(feature = "fusion"),
    Autodiff
)]
pub(crate) trait GradHookOps: Backend {
    /// The identity; on an autodiff backend its backward pass calls `hook`.
    #[fusion(default)]
    fn grad_hook(x: FloatTensor<Self>, hook: GradHook) -> FloatTensor<Self> {
        let _ = hook;
        x
    }
}

#[cfg(feature = "cpu")]
impl GradHookOps for burn::backend::Flex {}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl GradHookOps for burn_cubecl::CubeBackend {}

#[derive(Debug)]
struct HookBackward;

impl<B: ToDispatch> Backward<B, 1> for HookBackward {
    type State = GradHook;

    fn backward(self, ops: Ops<GradHook, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let grad = B::unwrap((ops.state.0)(B::wrap(grad)));
        if let Some(node) = parent {
            grads.register::<B>(node.id, grad);
        }
    }
}

impl<B, C> GradHookOps for Autodiff<B, C>
where
    B: GradHookOps + ToDispatch,
    C: CheckpointStrategy,
{
    fn grad_hook(x: FloatTensor<Self>, hook: GradHook) -> FloatTensor<Self> {
        let (primitive, guard) = x.into_parts();
        match HookBackward.prepare::<C>([guard]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(hook, primitive),
            OpsKind::UnTracked(prep) => prep.finish(primitive),
        }
    }
}

/// The identity, whose backward pass replaces the gradient `g` by `hook(g)`.
///
/// `hook` is called once for each backward pass, after the gradients of every use of the
/// result have been summed. Where autodiff does not track `x`, it is never called.
///
/// # Shapes
///
/// - `x`: any; returns the same, and `hook` must keep it
///
/// # Panics
///
/// In the backward pass, if `hook` returns a tensor of another device.
///
/// ```
/// # use burn_lens_tensor::{DeviceSpec, burn::tensor::Tensor, grad_hook};
/// # let device = DeviceSpec::cpu().open()?.autodiff();
/// let x = Tensor::<1>::from_floats([1.0, 2.0], &device).require_grad();
/// let y = grad_hook(x.clone() * 3.0, |g| g * 10.0);
/// let grads = y.sum().backward();
/// assert_eq!(x.grad(&grads).unwrap().into_data().to_vec::<f32>().unwrap(), [30.0, 30.0]);
/// # Ok::<(), burn_lens_tensor::DeviceError>(())
/// ```
#[must_use]
pub fn grad_hook<const D: usize>(
    x: Tensor<D>,
    hook: impl Fn(Tensor<D>) -> Tensor<D> + Send + Sync + 'static,
) -> Tensor<D> {
    let hook = GradHook(Arc::new(move |grad| hook(Tensor::<D>::from_dispatch(grad)).into_dispatch()));
    Tensor::from_dispatch(Dispatch::grad_hook(x.into_dispatch(), hook))
}
