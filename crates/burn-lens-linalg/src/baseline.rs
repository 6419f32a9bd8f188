//! What random matrices and spaces would give, in closed form.

/// The root mean square of the composition score of two matrices whose orientations to each other
/// are random: `1/√d`, whatever their singular values.
///
/// For `L` and `R` fixed and `Q` a random rotation, `E ‖L Q R‖² = ‖L‖² ‖R‖² / d`. Matrices that were
/// centered over `d` (as layer norm does to what reads, and `center_writing_weights` to what writes)
/// live in `d − 1` dimensions.
///
/// ```
/// assert_eq!(burn_lens_linalg::baseline::composition(256), 0.0625);
/// ```
#[must_use]
pub fn composition(d: usize) -> f64 {
    1.0 / (d as f64).sqrt()
}

/// Mean and standard deviation of the **square** of the composition score of two matrices with
/// singular values `l` and `r`, in a random orientation to each other: how far from
/// [`composition`] a score must be to mean something.
///
/// With `P = LᵀL`, `S = RRᵀ` and `Q` uniform on the rotations of `d` dimensions, `E tr(P Q S Qᵀ)²` is
/// `[p₁²((d+1)s₁² − 2s₂) + 2p₂(d s₂ − s₁²)] / (d(d−1)(d+2))` with the power sums `pᵢ = tr Pⁱ`, `sᵢ = tr Sⁱ`.
///
/// `None` where a matrix is 0 or `d` is below 2.
#[must_use]
pub fn composition_square(l: &[f64], r: &[f64], d: usize) -> Option<(f64, f64)> {
    let sum = |s: &[f64], power: i32| s.iter().map(|s| s.powi(power)).sum::<f64>();
    let (p1, s1) = (sum(l, 2), sum(r, 2));
    if d < 2 || p1 <= 0.0 || s1 <= 0.0 {
        return None;
    }
    let (p2, s2) = (sum(l, 4) / p1.powi(2), sum(r, 4) / s1.powi(2));
    let d = d as f64;
    let second = ((d + 1.0 - 2.0 * s2) + 2.0 * p2 * (d * s2 - 1.0)) / (d * (d - 1.0) * (d + 2.0));
    let mean = 1.0 / d;
    Some((mean, (second - mean * mean).max(0.0).sqrt()))
}

/// The mean of `cos² θ` over the principal angles of two random spaces of dimensions `m` and `n` in
/// `d`: `max(m, n) / d`, because `E ‖QₐᵀQ_b‖² = m n / d`.
///
/// ```
/// assert_eq!(burn_lens_linalg::baseline::overlap(64, 64, 768), 64.0 / 768.0);
/// ```
#[must_use]
pub fn overlap(m: usize, n: usize, d: usize) -> f64 {
    m.max(n) as f64 / d as f64
}
