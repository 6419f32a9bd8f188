//! The inner loops over the vocabulary. They are inlined always, to be compiled with the vector
//! instructions of their caller.

/// `e^x` to about 2 units in the last place, for `x ≤ 88`; 0 below -87. Without branches and
/// calls, so that a loop over it runs on whole vectors.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it rounds to whole numbers: the last bit of its mantissa is 1.
    const ROUNDER: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.0, 88.0);
    let rounded = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let whole = rounded - ROUNDER;
    let rest = (clamped - whole * LN2_HIGH) - whole * LN2_LOW;
    // Taylor's series to the seventh power: |rest| ≤ ln(2)/2, so what is left out is below 2e-9.
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * rest + coefficient;
    }
    // The low bits of `rounded` are the whole number: moved into the exponent, `2^whole`.
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { sum * power }
}

/// `Σ e^(x + y − shift)`, in `f64` over pieces summed in `f32`.
#[inline(always)]
pub(super) fn sum_exp(x: &[f32], y: &[f32], shift: f32) -> f64 {
    /// Short enough that `f32` loses nothing that counts.
    const PIECE: usize = 64;
    /// As many sums side by side as the widest vectors have lanes.
    const LANES: usize = 16;
    let mut total = 0.0;
    for (x, y) in x.chunks(PIECE).zip(y.chunks(PIECE)) {
        let mut sums = [0.0_f32; LANES];
        let (x_lanes, y_lanes) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
        let rest = x_lanes.remainder().iter().zip(y_lanes.remainder());
        let rest: f32 = rest.map(|(x, y)| exp(x + y - shift)).sum();
        for (x, y) in x_lanes.zip(y_lanes) {
            for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
                *sum += exp(x + y - shift);
            }
        }
        total += f64::from(sums.iter().sum::<f32>() + rest);
    }
    total
}

/// The smallest and largest of some numbers; NaN is neither.
#[inline(always)]
pub(super) fn range(x: &[f32]) -> (f32, f32) {
    const LANES: usize = 16;
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let lanes = x.chunks_exact(LANES);
    let rest = lanes.remainder();
    for x in lanes {
        for ((low, high), &x) in low.iter_mut().zip(&mut high).zip(x) {
            *low = if x < *low { x } else { *low };
            *high = if x > *high { x } else { *high };
        }
    }
    let low = low.iter().chain(rest).copied().fold(f32::INFINITY, f32::min);
    (low, high.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max))
}

/// The largest `x + y`.
#[inline(always)]
pub(super) fn largest_sum(x: &[f32], y: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut high = [f32::NEG_INFINITY; LANES];
    let (x_lanes, y_lanes) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest = x_lanes.remainder().iter().zip(y_lanes.remainder()).map(|(x, y)| x + y);
    let rest = rest.fold(f32::NEG_INFINITY, f32::max);
    for (x, y) in x_lanes.zip(y_lanes) {
        for ((high, x), y) in high.iter_mut().zip(x).zip(y) {
            let sum = x + y;
            *high = if sum > *high { sum } else { *high };
        }
    }
    high.into_iter().fold(rest, f32::max)
}

/// The `k` largest numbers seen, with their places; of equal ones those seen first.
#[derive(Clone, Debug, Default)]
pub(super) struct Largest {
    k: usize,
    /// Falling.
    pub(super) found: Vec<(u32, f32)>,
}

impl Largest {
    pub(super) fn new(k: usize) -> Self {
        Self { k, found: Vec::with_capacity(k + 1) }
    }

    /// Whether a number would be among them.
    #[inline]
    pub(super) fn takes(&self, x: f32) -> bool {
        self.k > 0 && (self.found.len() < self.k || self.found.last().is_some_and(|&(_, last)| x > last))
    }

    #[inline]
    pub(super) fn offer(&mut self, place: u32, x: f32) {
        if x.is_finite() && self.takes(x) {
            let at = self.found.partition_point(|&(_, other)| other >= x);
            self.found.insert(at, (place, x));
            self.found.truncate(self.k);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_that_of_the_library() {
        for at in -8700..=8800_i16 {
            let x = f32::from(at) / 100.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found - expected).abs() <= 3e-7 * expected, "{x}: {found} {expected}");
        }
        assert_eq!((exp(-1e30), exp(0.0)), (0.0, 1.0));
    }

    #[test]
    fn sums_and_ranges_of_any_length() {
        for n in [0_u16, 1, 15, 16, 17, 63, 64, 65, 200] {
            let x: Vec<f32> = (0..n).map(|at| f32::from(at % 13) - 6.0).collect();
            let y: Vec<f32> = (0..n).map(|at| f32::from(at % 7) * 0.1).collect();
            let expected: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(x + y - 1.0).exp()).sum();
            assert!((sum_exp(&x, &y, 1.0) - expected).abs() <= 1e-6 * expected);
            let most = x.iter().zip(&y).map(|(x, y)| x + y).fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest_sum(&x, &y), most);
            let (low, high) = range(&x);
            assert_eq!(low, x.iter().copied().fold(f32::INFINITY, f32::min));
            assert_eq!(high, x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }

    #[test]
    fn the_largest_are_kept_in_order() {
        let mut largest = Largest::new(3);
        for (place, x) in [1.0, 5.0, f32::NAN, 3.0, 5.0, f32::INFINITY, 0.0].into_iter().enumerate() {
            largest.offer(place as u32, x);
        }
        assert_eq!(largest.found, [(1, 5.0), (4, 5.0), (3, 3.0)]);
    }
}
