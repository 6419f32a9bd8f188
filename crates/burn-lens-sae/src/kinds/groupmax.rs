//! The largest pre-activation of each of `k` groups of neighbouring features, if positive.
//!
//! Source: EleutherAI's sparsify, `fused_encoder.py`.

use super::SaeKind;
use crate::affine::Activation;

pub(super) static GROUPMAX: SaeKind = SaeKind {
    name: "groupmax",
    formula: "relu(p) where p is the largest of its group, one of k",
    build: |plan| {
        let k = plan.k()?;
        if plan.config.d_sae % k != 0 {
            let expected = format!("a divisor of the number of features, {}", plan.config.d_sae);
            return Err(plan.settings.wrong("k", &k.into(), &expected));
        }
        plan.affine("groupmax", Activation::GroupMax(k))
    },
};
