//! The `k` pre-activations largest by magnitude, with their signs: activations can be negative.
//!
//! Source: "AbsTopK: Rethinking Sparse Autoencoders For Bidirectional Features" (2025).

use super::SaeKind;
use crate::affine::Activation;

pub(super) static ABSTOPK: SaeKind = SaeKind {
    name: "abstopk",
    formula: "the k of p (· ‖W_dec‖, where rescaled) with the largest |p|",
    build: |plan| {
        let activation = Activation::AbsTopK(plan.top()?);
        plan.affine("abstopk", activation)
    },
};
