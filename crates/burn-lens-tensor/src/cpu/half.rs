//! Values of half precision: to `f32`, in which kernels compute, and back.

use std::borrow::Cow;

use burn::tensor::{bf16, f16};
use pulp::NullaryFnOnce;

use super::{path::dispatch, raw};

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
    // Without branches, as above: one of the results is chosen.
    #[inline(always)]
    fn wide(self) -> f32 {
        /// The difference of the exponents' biases, in place.
        const BIAS: u32 = (127 - 15) << 23;
        /// The smallest normal number.
        const NORMAL: f32 = 6.103_515_6e-5;
        let bits = u32::from(self.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        let exponent = magnitude & 0x0f80_0000;
        let normal = magnitude + BIAS;
        let small = (f32::from_bits(magnitude + BIAS + (1 << 23)) - NORMAL).to_bits();
        let infinite = normal + BIAS;
        let magnitude = match exponent {
            0 => small,
            0x0f80_0000 => infinite,
            _ => normal,
        };
        f32::from_bits(magnitude | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn nearest(number: f32) -> Self {
        const BIAS: u32 = (127 - 15) << 23;
        const NAN: u32 = 0x7e00;
        const INFINITE: u32 = 0x7c00;
        /// What is at least this is rounded to an infinity, or is one.
        const TOO_LARGE: u32 = (15 + 127 + 1) << 23;
        /// The smallest normal number.
        const NORMAL: u32 = (127 - 14) << 23;
        /// The last place of its sum with a small number is that of the smallest numbers.
        const ALIGN: f32 = 0.5;
        let bits = number.to_bits();
        let magnitude = bits & 0x7fff_ffff;
        let even = (magnitude >> 13) & 1;
        let normal = magnitude.wrapping_sub(BIAS).wrapping_add(0xfff + even) >> 13;
        let small = (f32::from_bits(magnitude) + ALIGN).to_bits().wrapping_sub(ALIGN.to_bits());
        let finite = if magnitude < NORMAL { small } else { normal };
        let large = if magnitude > 0x7f80_0000 { NAN } else { INFINITE };
        let rounded = if magnitude >= TOO_LARGE { large } else { finite };
        Self::from_bits((rounded | (bits >> 16) & 0x8000) as u16)
    }
}

/// The same numbers in another type.
pub(crate) fn converted<S: Value, T: Value>(values: &[S]) -> Vec<T> {
    raw::mapped(values, |value: S| T::nearest(value.wide()))
}

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

/// Writes the same numbers in another type, on the calling thread.
pub(super) fn convert_into<S: Value, T: Value>(target: &mut [T], source: &[S]) {
    dispatch(Convert(target, source));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_as_the_types_round_them() {
        let mut numbers: Vec<f32> = (0..=u32::MAX).step_by(65_521).map(f32::from_bits).collect();
        numbers.extend([1.0 + 2.0_f32.powi(-8), 1.0 + 3.0 * 2.0_f32.powi(-8), f32::MAX, -0.0]);
        numbers.extend([65_504.0, 65_519.99, 65_520.0, 65_536.0, 2.0_f32.powi(-14), 2.0_f32.powi(-24)]);
        numbers.extend([2.0_f32.powi(-25), 1.5 * 2.0_f32.powi(-25), 6.1e-5, 2.0_f32.powi(-149)]);
        check(&numbers, bf16::from_f32, bf16::to_bits);
        check(&numbers, f16::from_f32, f16::to_bits);
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let wide: Vec<f32> = converted(&halves);
        for (wide, half) in wide.iter().zip(&halves) {
            let expected = half.to_f32();
            assert!(
                wide.to_bits() == expected.to_bits() || wide.is_nan() && expected.is_nan(),
                "{wide} instead of {expected}"
            );
        }
    }

    fn check<T: Value>(numbers: &[f32], nearest: fn(f32) -> T, bits: fn(T) -> u16) {
        let rounded: Vec<T> = converted(numbers);
        for (&number, &rounded) in numbers.iter().zip(&rounded) {
            let expected = nearest(number);
            let both_nan = rounded.wide().is_nan() && expected.wide().is_nan();
            assert!(
                bits(rounded) == bits(expected) || both_nan,
                "{number}: {:x} instead of {:x}",
                bits(rounded),
                bits(expected)
            );
        }
    }
}
