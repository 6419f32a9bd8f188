//! Values of half precision: to `f32`, in which kernels compute, and back.

use std::borrow::Cow;

use burn::tensor::{bf16, f16};
use pulp::NullaryFnOnce;
use rayon::prelude::*;

use super::path::dispatch;

/// What memory holds of a number.
pub(crate) trait Value: Copy + Default + Send + Sync {
    /// The number.
    fn wide(self) -> f32;

    /// The nearest one to a number; of two, the even one.
    fn nearest(number: f32) -> Self;

    /// Some numbers in `f32`.
    fn numbers(values: &[Self]) -> Cow<'_, [f32]> {
        Cow::Owned(converted(values))
    }
}

impl Value for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn nearest(number: f32) -> Self {
        number
    }

    fn numbers(values: &[Self]) -> Cow<'_, [f32]> {
        Cow::Borrowed(values)
    }
}

impl Value for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    // Without a branch, so that many are rounded at once.
    #[inline(always)]
    fn nearest(number: f32) -> Self {
        /// What makes a NaN of a NaN whose upper bits are all that is kept.
        const QUIET: u32 = 0x0040_0000;
        let bits = number.to_bits();
        let even = (bits >> 16) & 1;
        let rounded = bits.wrapping_add(0x7fff + even);
        let bits = if number.is_nan() { bits | QUIET } else { rounded };
        Self::from_bits((bits >> 16) as u16)
    }
}

impl Value for f16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn nearest(number: f32) -> Self {
        Self::from_f32(number)
    }
}

/// How many values a thread takes at once.
const CHUNK: usize = 8 * 1024;

struct Convert<'a, S, T>(&'a mut [T], &'a [S]);

impl<S: Value, T: Value> NullaryFnOnce for Convert<'_, S, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (out, value) in self.0.iter_mut().zip(self.1) {
            *out = T::nearest(value.wide());
        }
    }
}

/// The same numbers in another type.
pub(crate) fn converted<S: Value, T: Value>(values: &[S]) -> Vec<T> {
    let mut out = vec![T::default(); values.len()];
    if values.len() <= CHUNK {
        dispatch(Convert(&mut out, values));
    } else {
        let chunks = out.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
        chunks.for_each(|(out, values)| dispatch(Convert(out, values)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_as_the_types_round_them() {
        let mut numbers: Vec<f32> = (0..=u32::MAX).step_by(65_521).map(f32::from_bits).collect();
        numbers.extend([1.0 + 2.0_f32.powi(-8), 1.0 + 3.0 * 2.0_f32.powi(-8), f32::MAX, -0.0]);
        let rounded: Vec<bf16> = converted(&numbers);
        for (number, rounded) in numbers.iter().zip(&rounded) {
            let expected = bf16::from_f32(*number);
            assert!(
                rounded.to_bits() == expected.to_bits() || rounded.is_nan() && expected.is_nan(),
                "{number}: {rounded} instead of {expected}"
            );
        }
        let back: Vec<f32> = converted(&rounded);
        assert!(back.iter().zip(&rounded).all(|(a, b)| a.to_bits() == b.to_f32().to_bits() || a.is_nan()));
    }
}
