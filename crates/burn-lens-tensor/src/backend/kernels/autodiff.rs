//! Gradients of the kernels.

use std::sync::Arc;

use burn::backend::{
    TensorMetadata,
    autodiff::{
        Autodiff,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

use super::KernelOps;
use crate::kernels::{Activation, RowOp};

#[derive(Debug)]
struct RowMapBackward;

impl<B: KernelOps> Backward<B, 1> for RowMapBackward {
    /// The operation, and its input or result.
    type State = (RowOp, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = parent {
            let (op, saved) = ops.state;
            grads.register::<B>(node.id, B::row_map_backward(saved, grad, op));
        }
    }
}

#[derive(Debug)]
struct GatedBackward;

impl<B: KernelOps> Backward<B, 2> for GatedBackward {
    /// The activation, and both factors before it.
    type State = (Activation, FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_parent, y_parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (act, x, y) = ops.state;
        if let Some(node) = x_parent {
            let through = B::float_mul(grad.clone(), y);
            grads.register::<B>(node.id, B::row_map_backward(x.clone(), through, RowOp::Activation(act)));
        }
        if let Some(node) = y_parent {
            grads.register::<B>(node.id, B::float_mul(grad, B::row_map(x, RowOp::Activation(act))));
        }
    }
}

#[derive(Debug)]
struct RmsBackward;

impl<B: KernelOps> Backward<B, 1> for RmsBackward {
    /// Input and result.
    type State = (FloatTensor<B>, FloatTensor<B>);

    /// `g x / (n · rms)`
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = parent {
            let (x, rms) = ops.state;
            let shape = x.shape();
            let width = shape[shape.num_dims() - 1] as f32;
            let factor = B::float_div_scalar(B::float_div(grad, rms), width.into());
            grads.register::<B>(node.id, B::float_mul(x, factor));
        }
    }
}

#[derive(Debug)]
struct NllBackward;

impl<B: KernelOps> Backward<B, 1> for NllBackward {
    /// Logits and targets.
    type State = (FloatTensor<B>, Arc<[usize]>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = parent {
            let (logits, targets) = ops.state;
            grads.register::<B>(node.id, B::row_nll_backward(logits, grad, targets));
        }
    }
}

impl<B: KernelOps, C: CheckpointStrategy> KernelOps for Autodiff<B, C> {
    fn row_map(x: FloatTensor<Self>, op: RowOp) -> FloatTensor<Self> {
        let (x, guard) = x.into_parts();
        match RowMapBackward.prepare::<C>([guard]).compute_bound().stateful() {
            OpsKind::Tracked(prep) if op.gradient_from_result() => {
                let y = B::row_map(x, op.clone());
                prep.finish((op, y.clone()), y)
            }
            OpsKind::Tracked(prep) => prep.finish((op.clone(), x.clone()), B::row_map(x, op)),
            OpsKind::UnTracked(prep) => prep.finish(B::row_map(x, op)),
        }
    }

    /// Gradients of gradients are not computed.
    fn row_map_backward(saved: FloatTensor<Self>, grad: FloatTensor<Self>, op: RowOp) -> FloatTensor<Self> {
        let grad = B::row_map_backward(saved.into_primitive(), grad.into_primitive(), op);
        FloatTensor::<Self>::new(grad)
    }

    fn gated_map(x: FloatTensor<Self>, y: FloatTensor<Self>, act: Activation) -> FloatTensor<Self> {
        let ((x, x_guard), (y, y_guard)) = (x.into_parts(), y.into_parts());
        match GatedBackward.prepare::<C>([x_guard, y_guard]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((act, x.clone(), y.clone()), B::gated_map(x, y, act)),
            OpsKind::UnTracked(prep) => prep.finish(B::gated_map(x, y, act)),
        }
    }

    fn row_rms(x: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        let (x, guard) = x.into_parts();
        match RmsBackward.prepare::<C>([guard]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let rms = B::row_rms(x.clone(), eps);
                prep.finish((x, rms.clone()), rms)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::row_rms(x, eps)),
        }
    }

    fn row_nll(x: FloatTensor<Self>, targets: Arc<[usize]>) -> FloatTensor<Self> {
        let (x, guard) = x.into_parts();
        match NllBackward.prepare::<C>([guard]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let nll = B::row_nll(x.clone(), Arc::clone(&targets));
                prep.finish((x, targets), nll)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::row_nll(x, targets)),
        }
    }

    /// Gradients of gradients are not computed.
    fn row_nll_backward(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        targets: Arc<[usize]>,
    ) -> FloatTensor<Self> {
        FloatTensor::<Self>::new(B::row_nll_backward(x.into_primitive(), grad.into_primitive(), targets))
    }
}
