//! Histograms and quantiles of activations.

use serde::{Deserialize, Serialize};

/// Counts in bins of equal width.
///
/// ```
/// use burn_lens_sae::features::Histogram;
/// let histogram = Histogram::of(&[0.0, 1.0, 1.0, 4.0], 4);
/// assert_eq!(histogram.heights, [1, 2, 0, 1]);
/// assert_eq!(histogram.bar_values(), [0.5, 1.5, 2.5, 3.5]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The lower end of the first bin; the smallest value.
    pub low: f64,
    /// The upper end of the last bin; the largest value. Values equal to it are in the last bin.
    pub high: f64,
    /// How many values are in each bin; empty where there are none.
    pub heights: Vec<u64>,
}

impl Histogram {
    /// The histogram of `values` in `n_bins` bins from the smallest to the largest. Values that
    /// are not finite are left out. Equal values are one bin, as wide as rounding at that value.
    #[must_use]
    pub fn of(values: &[f32], n_bins: usize) -> Self {
        let finite = || values.iter().copied().filter(|value| value.is_finite()).map(f64::from);
        let Some((low, high)) = finite().fold(None, |range: Option<(f64, f64)>, x| {
            Some(range.map_or((x, x), |(low, high)| (low.min(x), high.max(x))))
        }) else {
            return Self::default();
        };
        if low == high || n_bins == 0 {
            let half = (low.abs() * f64::from(f32::EPSILON)).max(f64::from(f32::MIN_POSITIVE));
            return Self { low: low - half, high: low + half, heights: vec![finite().count() as u64] };
        }
        let mut heights = vec![0; n_bins];
        for value in finite() {
            let bin = ((value - low) / (high - low) * n_bins as f64) as usize;
            heights[bin.min(n_bins - 1)] += 1;
        }
        Self { low, high, heights }
    }

    /// The middle of each bin.
    #[must_use]
    pub fn bar_values(&self) -> Vec<f64> {
        let width = self.bin_width();
        (0..self.heights.len()).map(|bin| self.low + (bin as f64 + 0.5) * width).collect()
    }

    /// The width of a bin.
    #[must_use]
    pub fn bin_width(&self) -> f64 {
        (self.high - self.low) / self.heights.len().max(1) as f64
    }

    /// About five round numbers in the range: multiples of 1, 2 or 5 times a power of ten.
    #[must_use]
    pub fn ticks(&self) -> Vec<f64> {
        const WANTED: f64 = 5.0;
        let range = self.high - self.low;
        if self.heights.is_empty() || range <= 0.0 {
            return Vec::new();
        }
        let raw = range / WANTED;
        let power = 10f64.powf(raw.log10().floor());
        let step = power * [1.0, 2.0, 5.0, 10.0].into_iter().find(|&m| m * power >= raw).unwrap_or(10.0);
        let (first, last) = ((self.low / step).ceil(), (self.high / step).floor());
        if !first.is_finite() || last < first {
            return Vec::new();
        }
        // A multiple, not a running sum: 0 is 0, and 0.3 is the nearest number to 0.3.
        (0..=(last - first) as u64).map(|at| round_like((first + at as f64) * step, step)).collect()
    }
}

/// `x` to the digits that `step` has.
fn round_like(x: f64, step: f64) -> f64 {
    let digits = (-step.log10().floor()).max(0.0) as usize;
    format!("{x:.digits$}").parse::<f64>().map_or(x, |rounded| if rounded == 0.0 { 0.0 } else { rounded })
}

/// The distribution of a feature's activations that are not zero, at some points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Shares, rising from 0 to 1.
    pub shares: Vec<f64>,
    /// The activation below or at which that share of the active tokens lies.
    pub values: Vec<f32>,
}

impl Quantiles {
    /// The shares that are kept: finer towards the top, where examples are.
    const SHARES: [f64; 23] = [
        0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85,
        0.9, 0.95, 0.99, 0.999, 1.0,
    ];

    /// The quantiles of values in rising order, linear between them as in NumPy. None of no values.
    #[must_use]
    pub fn of_sorted(sorted: &[f32]) -> Self {
        if sorted.is_empty() {
            return Self::default();
        }
        let at = |share: f64| {
            let place = share * (sorted.len() - 1) as f64;
            let (below, rest) = (place.floor() as usize, place.fract());
            let (low, high) =
                (f64::from(sorted[below]), f64::from(sorted[(below + 1).min(sorted.len() - 1)]));
            (low + rest * (high - low)) as f32
        };
        Self { shares: Self::SHARES.to_vec(), values: Self::SHARES.map(at).to_vec() }
    }

    /// The value at a share from 0 to 1, linear between the points kept; 0 of no values.
    #[must_use]
    pub fn value_at(&self, share: f64) -> f32 {
        let above = self.shares.partition_point(|&kept| kept < share);
        match above {
            0 => self.values.first().copied().unwrap_or(0.0),
            _ if above == self.values.len() => self.values.last().copied().unwrap_or(0.0),
            _ => {
                let rest = (share - self.shares[above - 1]) / (self.shares[above] - self.shares[above - 1]);
                let (low, high) = (f64::from(self.values[above - 1]), f64::from(self.values[above]));
                (low + rest * (high - low)) as f32
            }
        }
    }

    /// The share of values below `value`, linear between the points kept.
    #[must_use]
    pub fn share_below(&self, value: f32) -> f64 {
        let above = self.values.partition_point(|&kept| kept < value);
        match above {
            0 => 0.0,
            _ if above == self.values.len() => 1.0,
            _ => {
                let (low, high) = (f64::from(self.values[above - 1]), f64::from(self.values[above]));
                let rest = if high > low { (f64::from(value) - low) / (high - low) } else { 0.0 };
                self.shares[above - 1] + rest * (self.shares[above] - self.shares[above - 1])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let ticks = |low, high| Histogram { low, high, heights: vec![1] }.ticks();
        // Where the original divided by zero, where sae_vis made 100,000 ticks, and where both
        // made one for each integer.
        assert_eq!(ticks(-0.1, 0.29), [-0.1, 0.0, 0.1, 0.2]);
        assert_eq!(ticks(0.0, 5000.0), [0.0, 1000.0, 2000.0, 3000.0, 4000.0, 5000.0]);
        assert_eq!(ticks(0.0, 0.8), [0.0, 0.2, 0.4, 0.6, 0.8]);
        assert_eq!(ticks(-7.0, -2.0), [-7.0, -6.0, -5.0, -4.0, -3.0, -2.0]);
        assert!(ticks(1.0, 1.0).is_empty());
    }

    #[test]
    fn equal_values_are_one_honest_bin() {
        let histogram = Histogram::of(&[3.0; 7], 40);
        assert_eq!(histogram.heights, [7]);
        assert!(histogram.low < 3.0 && 3.0 < histogram.high && histogram.bin_width() < 1e-5);
        assert!(Histogram::of(&[0.0], 5).low < 0.0);
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        let histogram = Histogram::of(&[f32::NAN, 1.0, f32::INFINITY, 2.0], 2);
        assert_eq!((histogram.low, histogram.high, histogram.heights), (1.0, 2.0, vec![1, 1]));
        assert_eq!(Histogram::of(&[f32::NAN], 2), Histogram::default());
    }

    #[test]
    fn quantiles_are_those_of_numpy_and_invert() {
        let quantiles = Quantiles::of_sorted(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!((quantiles.values[0], quantiles.values[10], quantiles.values[22]), (1.0, 2.5, 4.0));
        assert_eq!([0.5, 1.0, 2.5, 4.0, 5.0].map(|x| quantiles.share_below(x)), [0.0, 0.0, 0.5, 1.0, 1.0]);
    }
}
