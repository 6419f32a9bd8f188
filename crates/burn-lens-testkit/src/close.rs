//! How close is close: tolerances by name, each with its reason.

use burn::tensor::TensorData;
use burn_lens_tensor::{DeviceSpec, FloatType};

use crate::device_spec;

/// A bound on the largest difference, relative to the largest magnitude of what is expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance(pub f64);

impl Tolerance {
    /// Parity in `f64`: both sides round at 1e-16, and a few thousand operations add up.
    pub const F64: Self = Self(1e-10);
    /// Parity in `f32` against an `f64` reference: rounding at 6e-8 through tens of layers.
    pub const F32: Self = Self(1e-5);
    /// On GPUs: matrix products may run as TF32 (10 bits of mantissa) and attention may stage
    /// its operands in `f16`, as autotuning finds fastest.
    pub const GPU: Self = Self(2e-3);
    /// `bf16` has 8 bits of mantissa.
    pub const BF16: Self = Self(6e-2);

    /// `exact`, in units of the largest value, where the device under test has `f64`; what `f32` allows there
    /// where it has not.
    #[must_use]
    pub fn finest(exact: f64) -> Self {
        if crate::finest() == FloatType::F64 { Self(exact) } else { Self::of(FloatType::F32) }
    }

    /// The tolerance for results computed in `dtype` on the device under test.
    ///
    /// # Panics
    ///
    /// If `BURN_LENS_DEVICE` names no device.
    #[must_use]
    pub fn of(dtype: FloatType) -> Self {
        match dtype {
            _ if device_spec() != DeviceSpec::cpu() => Self::GPU,
            FloatType::F64 => Self::F64,
            FloatType::F32 => Self::F32,
            FloatType::Bf16 | FloatType::F16 => Self::BF16,
        }
    }
}

/// The largest difference, relative to the largest finite magnitude of `expected` (at least
/// 1e-30). Infinities must agree exactly; a NaN anywhere gives infinity.
///
/// # Panics
///
/// If the shapes hold different numbers of values.
#[must_use]
pub fn relative_error(found: &TensorData, expected: &TensorData) -> f64 {
    let (found, expected): (Vec<f64>, Vec<f64>) = (found.iter().collect(), expected.iter().collect());
    assert_eq!(found.len(), expected.len(), "different numbers of values");
    let scale = expected.iter().filter(|x| x.is_finite()).fold(1e-30f64, |scale, x| scale.max(x.abs()));
    found.iter().zip(&expected).fold(0.0f64, |worst, (&a, &b)| {
        let error = match (a.is_nan() || b.is_nan(), a.is_finite() && b.is_finite()) {
            (false, true) => (a - b).abs() / scale,
            (false, false) if a == b => 0.0,
            _ => f64::INFINITY,
        };
        worst.max(error)
    })
}

/// Fails unless `found` is within `tolerance` of `expected` and of the same shape.
///
/// # Panics
///
/// If not; the message says what, by how much, and where first.
#[track_caller]
pub fn assert_close(what: &str, found: &TensorData, expected: &TensorData, tolerance: Tolerance) {
    assert_eq!(found.shape().to_vec(), expected.shape().to_vec(), "{what}: shape");
    let error = relative_error(found, expected);
    assert!(error <= tolerance.0, "{what}: off by {error:.3e}, allowed {:.0e}", tolerance.0);
}
