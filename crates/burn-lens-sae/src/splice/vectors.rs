//! Activations as the vectors that a dictionary reads, and back.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, RunError};
use burn_lens_tensor::{AnyTensor, TypedTensor};

/// An activation as vectors, and where they were in it.
pub(crate) struct Vectors {
    /// `[batch, pos, d]`, heads side by side.
    pub(crate) x: Tensor<3>,
    at: Place,
}

enum Place {
    /// They are the activation.
    All,
    /// `[head, d_head]`
    Heads([usize; 2]),
    /// One head of `[batch, pos, head, d_head]`.
    Head(Box<Tensor<4>>, usize),
}

impl Vectors {
    /// The vectors of an activation, or of one of its heads, which it must have.
    pub(crate) fn of(x: AnyTensor, point: HookPoint, head: Option<usize>) -> Result<Self, RunError> {
        match (x, head) {
            (AnyTensor::Float4(x), Some(head)) => Ok(Self {
                x: x.clone().narrow(2, head, 1).squeeze_dim(2),
                at: Place::Head(Box::new(x), head),
            }),
            (AnyTensor::Float4(x), None) => {
                let [batch, pos, head, width] = x.dims();
                Ok(Self { x: x.reshape([batch, pos, head * width]), at: Place::Heads([head, width]) })
            }
            (x, _) => {
                let x = Tensor::<3>::from_any(x).map_err(|source| RunError::HookRank { point, source })?;
                Ok(Self { x, at: Place::All })
            }
        }
    }

    /// The activation with these vectors in the place of those that were taken from it.
    pub(crate) fn restored(&self, x: Tensor<3>) -> AnyTensor {
        match &self.at {
            Place::Head(whole, head) => among(whole, *head, x).into(),
            _ => self.alone(x),
        }
    }

    /// These vectors in the shape of the activation, with zeros for other heads.
    pub(crate) fn alone(&self, x: Tensor<3>) -> AnyTensor {
        let [batch, pos, _] = x.dims();
        match &self.at {
            Place::All => x.into(),
            Place::Heads([head, width]) => x.reshape([batch, pos, *head, *width]).into(),
            Place::Head(whole, head) => among(&whole.zeros_like(), *head, x).into(),
        }
    }
}

fn among(whole: &Tensor<4>, head: usize, x: Tensor<3>) -> Tensor<4> {
    let [batch, pos, _, width] = whole.dims();
    whole.clone().slice_assign([0..batch, 0..pos, head..head + 1, 0..width], x.unsqueeze_dim(2))
}
