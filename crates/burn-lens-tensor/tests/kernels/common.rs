//! Inputs, devices and comparisons.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn_lens_tensor::{
    DeviceSpec,
    burn::tensor::{DType, Device, Tensor, TensorData},
    kernels::SimdPath,
};

static PATH: Mutex<()> = Mutex::new(());

/// Runs `test` once for each set of instructions that this processor has, or for the one that
/// `BURN_LENS_SIMD` names (`Baseline`, `Avx2`, `Avx512`, `Amx`).
pub(crate) fn each_path(test: impl Fn(SimdPath)) {
    let _alone: MutexGuard<'_, ()> = PATH.lock().unwrap_or_else(PoisonError::into_inner);
    let only = std::env::var("BURN_LENS_SIMD").ok();
    let mut ran = 0;
    for path in SimdPath::ALL {
        let wanted = only.as_ref().is_none_or(|only| *only == format!("{path:?}"));
        if wanted && path.choose() {
            test(path);
            ran += 1;
        }
    }
    assert!(ran > 0, "no path of this processor is called {only:?}");
}

pub(crate) fn device() -> Device {
    DeviceSpec::cpu().open().unwrap()
}

/// Numbers of an LCG, about evenly between `-span` and `span`, exact in `f32`.
pub(crate) fn numbers(seed: u64, len: usize, span: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(|_| next(&mut state) * span).collect()
}

/// The same tensor in `f32` and in `f64`.
pub(crate) fn both<const D: usize>(values: &[f32], shape: [usize; D]) -> [Tensor<D>; 2] {
    let device = device();
    [DType::F32, DType::F64]
        .map(|dtype| Tensor::from_data(TensorData::new(values.to_vec(), shape), (&device, dtype)))
}

pub(crate) fn random<const D: usize>(seed: u64, shape: [usize; D], span: f32) -> [Tensor<D>; 2] {
    both(&numbers(seed, shape.iter().product(), span), shape)
}

pub(crate) fn values<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter().collect()
}

/// Fails where `found` is more than `ulps` units of the last place of `f32` away from
/// `expected`, counted at `expected` or, if that is larger, at `floor`. NaN and infinities
/// must be the same ones.
#[track_caller]
pub(crate) fn close<const D: usize>(
    what: &str,
    found: Tensor<D>,
    expected: Tensor<D>,
    ulps: f64,
    floor: f64,
) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let (found, expected) = (values(found), values(expected));
    for (at, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
        if found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()) || found == expected
        {
            continue;
        }
        let size = expected.abs().max(floor).max(f64::from(f32::MIN_POSITIVE));
        let ulp = 2f64.powf(size.log2().floor() - 23.0);
        let error = (found - expected).abs() / ulp;
        assert!(error <= ulps, "{what} at {at}: {found} for {expected}, {error:.1} units of the last place");
    }
}

/// `f` in pools of one thread and of five gives the same bits.
#[track_caller]
pub(crate) fn same_in_any_pool<const D: usize>(f: impl Fn() -> Tensor<D> + Sync) {
    let [one, five] = [1, 5].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| f().into_data())
    });
    assert_eq!(one.as_bytes(), five.as_bytes());
}
