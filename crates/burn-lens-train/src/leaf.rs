//! A tensor in training: a leaf of an autodiff graph, and what the optimizer knows of it.

use burn::{
    optim::{AdamW, AdamWState, Optimizer as _},
    tensor::{Gradients, Tensor},
};

#[derive(Clone)]
pub(crate) struct Leaf<const D: usize> {
    /// Tracked.
    pub(crate) value: Tensor<D>,
    pub(crate) state: Option<AdamWState<D>>,
}

impl<const D: usize> Leaf<D> {
    pub(crate) fn new(tensor: Tensor<D>) -> Self {
        Self { value: tracked(tensor), state: None }
    }

    /// Takes a step against its gradient, if it has one, multiplied by `scale`.
    pub(crate) fn step(&mut self, optimizer: &AdamW, rate: f64, (grads, scale): (&Gradients, f64)) {
        let Some(grad) = self.value.grad(grads) else { return };
        let grad = if scale < 1.0 { grad * scale } else { grad };
        let value = self.value.clone().without_autodiff();
        let (value, state) = optimizer.step(rate, value, grad, self.state.take());
        (self.value, self.state) = (tracked(value), state);
    }

    /// The sum of squares `[1]` of its gradient.
    pub(crate) fn squares(&self, grads: &Gradients) -> Option<Tensor<1>> {
        self.value.grad(grads).map(|grad| grad.square().sum())
    }
}

/// A tensor that gradients are wanted of.
pub(crate) fn tracked<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.without_autodiff().autodiff().require_grad()
}
