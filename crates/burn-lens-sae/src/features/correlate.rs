//! Correlations, from sums.

use super::{Correlated, SparseRows, threads};

/// The sums of one column of activations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Moments {
    /// `Σ x`
    pub(super) sum: f64,
    /// `Σ x²`
    pub(super) squares: f64,
}

impl Moments {
    /// `n Σx² − (Σx)²`, `n²` times the variance; 0 where it is no more than rounding.
    fn spread(self, n: f64) -> f64 {
        /// Relative to `n Σx²`, from which it is subtracted: some thousand roundings.
        const ROUNDING: f64 = 1e-12;
        let spread = n * self.squares - self.sum * self.sum;
        if spread > ROUNDING * n * self.squares { spread } else { 0.0 }
    }

    /// Pearson's correlation and the cosine of two columns, of whose products the sum is known.
    /// `None` where one of them does not vary: then there is no correlation.
    pub(super) fn correlated(self, other: Self, products: f64, n: u64) -> Option<(f64, f64)> {
        let n = n as f64;
        let (spread, other_spread) = (self.spread(n), other.spread(n));
        if spread <= 0.0 || other_spread <= 0.0 {
            return None;
        }
        // The roots apart: their product does not overflow where both are large.
        let pearson = (n * products - self.sum * other.sum) / (spread.sqrt() * other_spread.sqrt());
        let cosine = products / (self.squares.sqrt() * other.squares.sqrt());
        (pearson.is_finite() && cosine.is_finite())
            .then_some((pearson.clamp(-1.0, 1.0), cosine.clamp(-1.0, 1.0)))
    }
}

/// The `k` pairs with the largest correlation; equal ones by index, those without one left out.
pub(super) fn strongest(
    pairs: impl IntoIterator<Item = (usize, Option<(f64, f64)>)>,
    k: usize,
) -> Vec<Correlated> {
    let mut best: Vec<Correlated> = Vec::with_capacity(k + 1);
    for (index, pair) in pairs {
        let Some((pearson, cosine)) = pair else { continue };
        if best.len() == k && best.last().is_none_or(|last| pearson <= last.pearson) {
            continue;
        }
        let at = best.partition_point(|other| other.pearson >= pearson);
        best.insert(at, Correlated { index, pearson, cosine });
        best.truncate(k);
    }
    best
}

/// Which features are at hand, and where.
#[derive(Clone, Debug)]
pub(super) struct Slots(Vec<u32>);

impl Slots {
    const NONE: u32 = u32::MAX;

    /// Slots in the order of `features`, of `n` that there are.
    pub(super) fn new(features: &[usize], n: usize) -> Self {
        let mut slots = vec![Self::NONE; n];
        for (slot, &feature) in features.iter().enumerate() {
            slots[feature] = slot as u32;
        }
        Self(slots)
    }

    /// The slot of a feature.
    pub(super) fn of(&self, feature: u32) -> Option<usize> {
        self.0.get(feature as usize).filter(|&&slot| slot != Self::NONE).map(|&slot| slot as usize)
    }
}

/// `Σ a_f b_g` of some features `f` with all features `g`.
#[derive(Clone, Debug)]
pub(super) struct Products {
    n_other: usize,
    sums: Vec<f64>,
}

impl Products {
    /// Zeros, for `count` features with `n_other`.
    pub(super) fn zeros(count: usize, n_other: usize) -> Self {
        Self { n_other, sums: vec![0.0; count * n_other] }
    }

    /// Whether nothing is to be summed.
    pub(super) fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// Adds the products at some tokens, token by token in order.
    pub(super) fn add(
        &mut self,
        rows: &[usize],
        (a, slots): (&SparseRows, &Slots),
        b: &SparseRows,
        n_threads: usize,
    ) {
        let n_other = self.n_other;
        let count = self.sums.len() / n_other.max(1);
        let ranges = threads::divide(std::iter::repeat_n(1, count), n_threads);
        let parts = threads::split(&mut self.sums, n_other, &ranges);
        threads::run(ranges.into_iter().zip(parts).collect(), |(range, sums)| {
            for &row in rows {
                let (indices, values) = a.row(row);
                let (others, other_values) = b.row(row);
                for (&index, &value) in indices.iter().zip(values) {
                    let Some(slot) = slots.of(index).filter(|slot| range.contains(slot)) else { continue };
                    let sums = &mut sums[(slot - range.start) * n_other..][..n_other];
                    for (&other, &other_value) in others.iter().zip(other_values) {
                        sums[other as usize] += f64::from(value) * f64::from(other_value);
                    }
                }
            }
        });
    }

    /// The sums of one feature.
    pub(super) fn of(&self, slot: usize) -> &[f64] {
        &self.sums[slot * self.n_other..][..self.n_other]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(x: &[f64]) -> Moments {
        Moments { sum: x.iter().sum(), squares: x.iter().map(|x| x * x).sum() }
    }

    #[test]
    fn constant_columns_have_no_correlation() {
        for constant in [0.0, 1.0, 100.1, 1e-30] {
            let x = vec![constant; 1000];
            let y: Vec<f64> = (0..1000).map(f64::from).collect();
            let products = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            assert_eq!(moments(&x).correlated(moments(&y), products, 1000), None, "{constant}");
        }
    }

    #[test]
    fn a_rare_feature_and_a_neuron_far_from_zero() {
        // Where running sums in f32 were off by 2.5 % (n = 1e6, density 1e-4, mean 100).
        let n = 1_000_000_u32;
        let rare = |i: u32| if i.is_multiple_of(10_000) { 1.0 } else { 0.0 };
        let neuron =
            |i: u32| 100.0 + f64::from(i.wrapping_mul(2_654_435_761) >> 16) / 65536.0 + 0.01 * rare(i);
        let (x, y): (Vec<f64>, Vec<f64>) = (0..n).map(|i| (rare(i), neuron(i))).unzip();
        let products = x.iter().zip(&y).map(|(x, y)| x * y).sum();
        let (pearson, _) = moments(&x).correlated(moments(&y), products, u64::from(n)).unwrap();
        let (mx, my) = (moments(&x).sum / f64::from(n), moments(&y).sum / f64::from(n));
        let centered = |x: &[f64], mx: f64, y: &[f64], my: f64| -> f64 {
            x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum()
        };
        let expected =
            centered(&x, mx, &y, my) / (centered(&x, mx, &x, mx) * centered(&y, my, &y, my)).sqrt();
        assert!((pearson - expected).abs() < 1e-7, "{pearson} {expected}");
    }

    #[test]
    fn large_norms_do_not_overflow() {
        // Two columns that are 1e152 at one token of a thousand: the product of their spreads is 1e614.
        let x = Moments { sum: 1e152, squares: 1e304 };
        let (pearson, cosine) = x.correlated(x, 1e304, 1000).unwrap();
        assert!((pearson - 1.0).abs() < 1e-12 && (cosine - 1.0).abs() < 1e-12, "{pearson} {cosine}");
    }

    #[test]
    fn small_activations_correlate_as_large_ones() {
        // A constant in the denominator would pull these towards 0.
        let x: Vec<f64> = (0..100).map(|at| f64::from(at % 7)).collect();
        let y: Vec<f64> = (0..100).map(|at| f64::from(at % 5)).collect();
        let of = |scale: f64| {
            let x: Vec<f64> = x.iter().map(|x| x * scale).collect();
            let products = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            moments(&x).correlated(moments(&y), products, 100).unwrap()
        };
        let (plain, small) = (of(1.0), of(1e-12));
        assert!((plain.0 - small.0).abs() < 1e-12 && (plain.1 - small.1).abs() < 1e-12);
    }

    #[test]
    fn the_strongest_come_first_and_ties_by_index() {
        let pairs = [0.1, 0.9, 0.9, -0.5, 0.3].map(|pearson| Some((pearson, 0.0)));
        let pairs = pairs.into_iter().chain([None]).enumerate();
        assert_eq!(strongest(pairs, 3).iter().map(|pair| pair.index).collect::<Vec<_>>(), [1, 2, 4]);
        assert!(strongest([(0, Some((0.1, 0.0)))], 0).is_empty());
    }

    #[test]
    fn products_of_all_pairs() {
        let rows = |rows: &[&[(u32, f32)]]| {
            let mut sparse = SparseRows::default();
            for row in rows {
                sparse.push_row(row.iter().copied());
            }
            sparse
        };
        let a = rows(&[&[(1, 2.0), (2, 3.0)], &[], &[(2, 1.0)]]);
        let b = rows(&[&[(0, 5.0)], &[(0, 7.0)], &[(0, 1.0), (1, 4.0)]]);
        for n_threads in [1, 2, 5] {
            let mut products = Products::zeros(2, 2);
            products.add(&[0, 1, 2], (&a, &Slots::new(&[2, 1], 3)), &b, n_threads);
            assert_eq!((products.of(1), products.of(0)), (&[10.0, 0.0][..], &[16.0, 4.0][..]));
        }
    }
}
