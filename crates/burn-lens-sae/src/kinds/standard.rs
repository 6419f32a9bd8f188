//! `relu(p)`.

use super::SaeKind;
use crate::affine::Activation;

pub(super) static STANDARD: SaeKind =
    SaeKind { name: "standard", formula: "relu(p)", build: |plan| plan.affine("standard", Activation::Relu) };
