//! The signs that the members of a cluster share.

use serde::Serialize;

use super::Rows;

/// An input whose sign most members of a cluster share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Literal {
    /// Which input.
    pub input: usize,
    /// Whether it is at or above 0.
    pub positive: bool,
    /// The share of members with that sign.
    pub share: f64,
    /// The share of all rows with that sign, to compare with.
    pub base: f64,
}

/// The literals of a cluster: inputs of which at least `threshold` (above one half) of the
/// members have one sign. 0 counts as positive. The strongest come first, by how far their
/// share is above that of all rows.
///
/// The definition is ours: the notebook that this follows calls a function that it never defines.
#[must_use]
pub fn dominant_literals(inputs: &Rows, members: &[usize], threshold: f64) -> Vec<Literal> {
    let all: Vec<usize> = (0..inputs.len()).collect();
    let positive = |rows: &[usize], input: usize| {
        let count = rows.iter().filter(|&&row| inputs.row(row)[input] >= 0.0).count();
        count as f64 / rows.len().max(1) as f64
    };
    let mut literals = Vec::new();
    for input in 0..inputs.width() {
        let (share, base) = (positive(members, input), positive(&all, input));
        for literal in [
            Literal { input, positive: true, share, base },
            Literal { input, positive: false, share: 1.0 - share, base: 1.0 - base },
        ] {
            if !members.is_empty() && literal.share >= threshold.max(0.5 + f64::EPSILON) {
                literals.push(literal);
            }
        }
    }
    literals.sort_by(|a, b| (b.share - b.base).total_cmp(&(a.share - a.base)));
    literals
}
