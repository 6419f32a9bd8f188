//! Shared by the tests: which device, golden files, how close is close.
//!
//! Tests run on the device that `BURN_LENS_DEVICE` names, `cpu` if it is not set, so one suite
//! serves every backend. `BURN_LENS_SIMD` (`Baseline`, `Avx2`, `Avx512`, `Amx`) chooses the instructions
//! of the CPU's kernels.

mod close;
mod golden;

use std::path::PathBuf;

use burn::tensor::Device;
use burn_lens_tensor::{DeviceSpec, FloatType, kernels::SimdPath};

pub use close::{Tolerance, assert_close, relative_error};
pub use golden::Golden;

/// The device under test.
///
/// # Panics
///
/// If `BURN_LENS_DEVICE` or `BURN_LENS_SIMD` names none, or one that is not there: a conformance
/// run must not silently test another.
#[must_use]
pub fn device() -> Device {
    if let Ok(name) = std::env::var("BURN_LENS_SIMD") {
        let path = SimdPath::ALL.into_iter().find(|path| format!("{path:?}") == name);
        assert!(path.is_some_and(SimdPath::choose), "BURN_LENS_SIMD: this processor has no {name}");
    }
    device_spec().open().unwrap_or_else(|error| panic!("{error}"))
}

/// Its name.
///
/// # Panics
///
/// As [`device`].
#[must_use]
pub fn device_spec() -> DeviceSpec {
    let name = std::env::var("BURN_LENS_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    name.parse().unwrap_or_else(|error| panic!("BURN_LENS_DEVICE: {error}"))
}

/// The float types to test on it: GPUs are tested in `f32` alone.
#[must_use]
pub fn float_types() -> Vec<FloatType> {
    if device_spec() == DeviceSpec::cpu() {
        vec![FloatType::F32, FloatType::F64]
    } else {
        vec![FloatType::F32]
    }
}

/// The finest float type to test on it.
#[must_use]
pub fn finest() -> FloatType {
    float_types().last().copied().unwrap_or(FloatType::F32)
}

/// A folder of `fixtures/`.
#[must_use]
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// The names of the fixtures for which `choose` is true, sorted.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn fixtures(choose: impl Fn(&str) -> bool) -> Vec<String> {
    let folder = fixture("");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| choose(name))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no fixture in {} fits", folder.display());
    names
}

/// A trained checkpoint of `../shared/models`, which is not part of the repository. Says so
/// and gives `None` where it is not there.
#[must_use]
pub fn shared_model(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no checkpoint {name} in ../shared/models");
    None
}
