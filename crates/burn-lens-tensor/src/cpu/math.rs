//! Elementary functions in `f32`, without branches, so that loops over them vectorize.
//!
//! Exponentials below the smallest normal number are zero: subnormal numbers are slow on many
//! processors, and nothing that sums exponentials next to 1 can tell.

/// 1.5 · 2²³: added to a number below 2²², it leaves the nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// ln 2 in two parts, the first exact in few bits.
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// `exp(x)` for `x <= 0`; zero below -87.33, where it would be subnormal. Within 2 ulp.
///
/// Coefficients: S. Moshier, Cephes (`expf`).
#[inline(always)]
pub(super) fn exp_neg(x: f32) -> f32 {
    const LOWEST: f32 = -87.336_54;
    let clamped = if x < LOWEST { LOWEST } else { x }; // keeps NaN
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2[1], n.mul_add(-LN2[0], clamped));
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let mantissa = p.mul_add(r * r, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let value = mantissa * f32::from_bits(exponent);
    if x < LOWEST { 0.0 } else { value }
}

/// `1 / (1 + exp(-x))`. Within 3 ulp.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    let e = exp_neg(-x.abs());
    let top = if x >= 0.0 { 1.0 } else { e };
    top / (1.0 + e)
}

/// `sigmoid(x) · (1 - sigmoid(x))`, without cancellation.
#[inline(always)]
pub(super) fn sigmoid_slope(x: f32) -> f32 {
    let e = exp_neg(-x.abs());
    e / ((1.0 + e) * (1.0 + e))
}

/// `tanh(x)`. Within 3 ulp.
///
/// Coefficients near zero: S. Moshier, Cephes (`tanhf`).
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let e = exp_neg(-2.0 * a);
    let far = (1.0 - e) / (1.0 + e);
    let s = x * x;
    let mut p = -5.704_988_7e-3_f32;
    p = p.mul_add(s, 2.063_909e-2);
    p = p.mul_add(s, -5.373_971_6e-2);
    p = p.mul_add(s, 1.333_144_2e-1);
    p = p.mul_add(s, -3.333_328e-1);
    let near = (p * s).mul_add(x, x);
    if a < 0.625 { near } else { far.copysign(x) }
}

/// The normal distribution's density at `x`, without its factor 1/√(2π), as two factors: the
/// exponential of the rounded square, and what the rounding left.
#[inline(always)]
fn gauss(x: f32) -> f32 {
    let square = x * x;
    // Where the square overflows there is nothing left to correct, and `inf - inf` is NaN.
    let rest = if square < 1e3 { x.mul_add(x, -square) } else { 0.0 };
    exp_neg(-0.5 * square) * (-0.5_f32).mul_add(rest, 1.0)
}

/// `Φ(x)`, the normal distribution function, to a relative error of 5e-7 in the lower tail too.
///
/// The tail is `exp(-a²/2) · t P(t)` with `t = 1 / (1 + 0.24 a)`, `a = |x|`; `P` was fitted to
/// `erfcx(a/√2) / 2t` with a relative error of 3e-9 for `a` in 0 .. 13.3, behind which the
/// exponential is zero.
#[inline(always)]
pub(super) fn normal_cdf(x: f32) -> f32 {
    let t = 1.0 / 0.24_f32.mul_add(x.abs(), 1.0);
    let mut p = 0.025_384_092_f32;
    p = p.mul_add(t, -0.123_822_86);
    p = p.mul_add(t, 0.203_446_69);
    p = p.mul_add(t, -0.141_375_15);
    p = p.mul_add(t, 0.138_863_09);
    p = p.mul_add(t, 0.029_658_025);
    p = p.mul_add(t, 0.087_196_04);
    p = p.mul_add(t, 0.089_067_41);
    p = p.mul_add(t, 0.095_839_603);
    p = p.mul_add(t, 0.095_743_08);
    let tail = gauss(x) * (p * t);
    if x >= 0.0 { 1.0 - tail } else { tail }
}

/// `φ(x)`, the normal distribution's density.
#[inline(always)]
pub(super) fn normal_density(x: f32) -> f32 {
    gauss(x) * 0.398_942_3
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error in units of the last place of the exact value, over `values`. Where
    /// the exact value is subnormal, so may be the error.
    fn worst(values: impl Iterator<Item = f32>, f: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        values
            .map(|x| {
                let exact = exact(f64::from(x));
                let size = exact.abs().max(f64::from(f32::MIN_POSITIVE));
                let ulp = 2f64.powf(size.log2().floor() - 23.0);
                let error = (f64::from(f(x)) - exact).abs();
                if error < f64::from(f32::MIN_POSITIVE) { 0.0 } else { error / ulp }
            })
            .fold(0.0, f64::max)
    }

    fn between(low: f32, high: f32) -> impl Iterator<Item = f32> {
        const STEPS: u16 = 50_000;
        (0..=STEPS).map(move |at| low + (high - low) * (f32::from(at) / f32::from(STEPS)))
    }

    #[test]
    fn functions_are_within_a_few_units_of_the_last_place() {
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert!(worst(between(-90.0, 0.0), exp_neg, f64::exp) <= 2.0);
        assert!(worst(between(-80.0, 80.0), sigmoid, logistic) <= 3.0);
        assert!(worst(between(-12.0, 12.0), tanh, f64::tanh) <= 3.0);
        assert!(worst(between(-1e-3, 1e-3), tanh, f64::tanh) <= 3.0);
        assert!(
            worst(between(-13.0, 13.0), normal_density, |x| {
                (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
            }) <= 4.0
        );
    }

    #[test]
    fn the_lower_tail_of_the_normal_distribution_keeps_its_digits() {
        // scipy.special.ndtr
        let exact = [
            (-13.0_f32, 6.117_164_399_549_88e-39_f64),
            (-8.0, 6.220_960_574_271_785e-16),
            (-5.0, 2.866_515_718_791_939_4e-7),
            (-3.0, 1.349_898_031_630_094_6e-3),
            (-1.0, 0.158_655_253_931_457_05),
            (-0.125, 0.450_261_775_169_886_83),
            (0.0, 0.5),
            (0.5, 0.691_462_461_274_013_1),
            (2.0, 0.977_249_868_051_820_8),
            (6.0, 0.999_999_999_013_412_3),
        ];
        for (x, exact) in exact {
            let error = (f64::from(normal_cdf(x)) - exact).abs();
            assert!(error <= 4.0 * 1.2e-7 * exact + f64::from(f32::MIN_POSITIVE), "{x}: {}", normal_cdf(x));
        }
    }

    #[test]
    fn infinities_and_nan() {
        assert_eq!(exp_neg(f32::NEG_INFINITY), 0.0);
        assert_eq!((sigmoid(f32::INFINITY), sigmoid(f32::NEG_INFINITY)), (1.0, 0.0));
        assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
        assert_eq!((normal_cdf(f32::INFINITY), normal_cdf(f32::NEG_INFINITY)), (1.0, 0.0));
        for f in [exp_neg, sigmoid, tanh, normal_cdf] {
            assert!(f(f32::NAN).is_nan());
        }
    }
}
