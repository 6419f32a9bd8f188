//! Complex numbers, as far as eigenvalues need them.

use std::fmt;

/// `re + im·i`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Complex {
    /// The real part.
    pub re: f64,
    /// The imaginary part.
    pub im: f64,
}

impl Complex {
    /// `√(re² + im²)`.
    #[must_use]
    pub fn abs(&self) -> f64 {
        self.re.hypot(self.im)
    }

    /// The order in which eigenvalues are given: by magnitude from the largest, then by real and
    /// imaginary part from the largest. Magnitudes within `1e-10` of the largest count as equal,
    /// so that the members of a conjugate pair keep theirs.
    pub(crate) fn sort<T>(items: &mut [T], of: impl Fn(&T) -> Self) {
        let largest = items.iter().map(|item| of(item).abs()).fold(0.0, f64::max);
        let steps = |x: f64| if largest > 0.0 { (x / largest * 1e10).round() } else { 0.0 };
        items.sort_by(|a, b| {
            let (a, b) = (of(a), of(b));
            let key = |x: Self| [steps(x.abs()), steps(x.re), steps(x.im)];
            let orders = key(b).into_iter().zip(key(a)).map(|(b, a)| b.total_cmp(&a));
            orders.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        });
    }
}

impl fmt::Display for Complex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(4);
        write!(f, "{:.precision$}{:+.precision$}j", self.re, self.im)
    }
}
