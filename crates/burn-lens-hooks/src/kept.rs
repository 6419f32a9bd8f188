//! One activation as a cache holds it: stored, or how to compute it from another one.

use std::{fmt, sync::Arc};

use burn_lens_tensor::{AnyTensor, burn::tensor::Tensor};
use indexmap::IndexMap;

use crate::HookPoint;

/// An activation of a cache.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the large one; a box would be an allocation for each"
)]
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    Stored(AnyTensor),
    Derived(Derived),
}

/// An activation with a batch axis and three more, computed where somebody asks for it from one that is stored.
#[derive(Clone)]
pub(crate) struct Derived {
    /// Which one, always [`Kept::Stored`].
    pub(crate) from: HookPoint,
    pub(crate) compute: Arc<dyn Fn(Tensor<4>) -> Tensor<4> + Send + Sync>,
}

impl Derived {
    fn value(&self, from: &AnyTensor) -> AnyTensor {
        match from.clone() {
            AnyTensor::Float4(x) => (self.compute)(x).into(),
            // The batch axis of one prompt has been removed.
            AnyTensor::Float3(x) => (self.compute)(x.unsqueeze::<4>()).squeeze_dim::<3>(0).into(),
            other => other,
        }
    }
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {}", self.from)
    }
}

/// The activation at `point`.
pub(crate) fn value(values: &IndexMap<HookPoint, Kept>, point: HookPoint) -> Option<AnyTensor> {
    match values.get(&point)? {
        Kept::Stored(x) => Some(x.clone()),
        Kept::Derived(derived) => match values.get(&derived.from)? {
            Kept::Stored(from) => Some(derived.value(from)),
            Kept::Derived(_) => None,
        },
    }
}
