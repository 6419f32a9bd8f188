//! Sums whose value does not depend on the order of their terms.
//!
//! A sum of `f64` depends on its order in the last bits, and so on how tokens were split into
//! batches and shards. Here a sum is an unevaluated pair `high + low`, with the rounding error of
//! each addition kept in `low` (Knuth's two-sum; Neumaier 1974): about 106 bits, so that sums in
//! different orders differ by far less than the rounding to `f64` at the end.

/// `high + low`
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PairSum {
    /// The rounded sum.
    pub(super) high: f64,
    /// What rounding lost.
    pub(super) low: f64,
}

impl PairSum {
    /// Adds a number.
    #[inline]
    pub(super) fn add(&mut self, x: f64) {
        let (sum, error) = two_sum(self.high, x);
        self.high = sum;
        self.low += error;
    }

    /// Adds another sum.
    pub(super) fn merge(&mut self, other: Self) {
        self.add(other.high);
        self.low += other.low;
    }

    #[cfg(test)]
    fn value(self) -> f64 {
        self.high + self.low
    }
}

/// `a + b` rounded, and what rounding lost; exact for all finite numbers that do not overflow.
#[expect(clippy::inline_always, reason = "compiled with the vector instructions of its caller")]
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// Many sums at once, as two arrays.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PairSums {
    /// The rounded sums.
    pub(super) high: Vec<f64>,
    /// What rounding lost.
    pub(super) low: Vec<f64>,
}

impl PairSums {
    /// Zeros.
    #[must_use]
    pub(super) fn zeros(len: usize) -> Self {
        Self { high: vec![0.0; len], low: vec![0.0; len] }
    }

    /// The value of one.
    #[must_use]
    pub(super) fn value(&self, at: usize) -> f64 {
        self.high[at] + self.low[at]
    }

    /// Adds other sums, one by one.
    ///
    /// # Panics
    ///
    /// If there are more or fewer.
    pub(super) fn merge(&mut self, other: &Self) {
        assert_eq!(self.high.len(), other.high.len(), "sums of the same things");
        for (at, (&high, &low)) in other.high.iter().zip(&other.low).enumerate() {
            let mut sum = PairSum { high: self.high[at], low: self.low[at] };
            sum.merge(PairSum { high, low });
            (self.high[at], self.low[at]) = (sum.high, sum.low);
        }
    }
}

/// `sums += a · x`, element by element. The products of two `f32` are exact in `f64`.
#[expect(clippy::inline_always, reason = "compiled with the vector instructions of its caller")]
#[inline(always)]
pub(super) fn add_scaled(high: &mut [f64], low: &mut [f64], a: f32, x: &[f32]) {
    let a = f64::from(a);
    for ((high, low), &x) in high.iter_mut().zip(low).zip(x) {
        let (sum, error) = two_sum(*high, a * f64::from(x));
        *high = sum;
        *low += error;
    }
}

/// `sums += x²`, element by element.
pub(super) fn add_squares(high: &mut [f64], low: &mut [f64], x: &[f32]) {
    for ((high, low), &x) in high.iter_mut().zip(low).zip(x) {
        let (sum, error) = two_sum(*high, f64::from(x) * f64::from(x));
        *high = sum;
        *low += error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_where_plain_sums_differ() {
        let terms: Vec<f64> =
            (0..10_000_u32).map(|i| f64::from(i.wrapping_mul(2_654_435_761)) * 1e-3 + 0.1).collect();
        let sum = |terms: &mut dyn Iterator<Item = &f64>| {
            let mut sum = PairSum::default();
            terms.for_each(|&x| sum.add(x));
            sum
        };
        let (forward, backward) = (sum(&mut terms.iter()), sum(&mut terms.iter().rev()));
        assert_eq!(forward.value(), backward.value());
        assert_ne!(terms.iter().sum::<f64>(), terms.iter().rev().sum::<f64>());
        let (mut halves, rest) = (sum(&mut terms[..3333].iter()), sum(&mut terms[3333..].iter()));
        halves.merge(rest);
        assert_eq!(halves.value(), forward.value());
    }

    #[test]
    fn cancellation_leaves_what_is_there() {
        let mut sum = PairSum::default();
        for x in [1e100, 1.0, -1e100] {
            sum.add(x);
        }
        assert_eq!(sum.value(), 1.0);
    }
}
