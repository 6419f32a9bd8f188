//! `relu(p)` where `p` is above a threshold of the feature's own: what BatchTopK and Matryoshka
//! dictionaries are saved as, too.
//!
//! Source: Rajamanoharan et al. (2024), "Jumping Ahead".

use super::SaeKind;

pub(super) static JUMPRELU: SaeKind = SaeKind {
    name: "jumprelu",
    formula: "relu(p) · 1[p > threshold]",
    build: |mut plan| {
        let activation = plan.jumprelu()?;
        plan.affine("jumprelu", activation)
    },
};
