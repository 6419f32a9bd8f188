//! The `k` largest pre-activations, of those the positive ones: fewer than `k` can be active.
//!
//! Source: Gao et al. (2024), "Scaling and evaluating sparse autoencoders".

use super::SaeKind;
use crate::affine::Activation;

pub(super) static TOPK: SaeKind = SaeKind {
    name: "topk",
    formula: "relu of the k largest of p (· ‖W_dec‖, where rescaled)",
    build: |plan| {
        let activation = Activation::TopK(plan.top()?);
        plan.affine("topk", activation)
    },
};
