//! Dictionaries of every kind against SAELens, and against themselves.

mod faults;
mod folds;
mod kinds;
mod metrics;
mod one_head;
mod saelens;
mod several;
mod splice;

use burn_lens_io::Checkpoint;
use burn_lens_sae::{SaeOptions, SparseAutoencoder, read_sae_lens};
use burn_lens_tensor::{
    FloatType,
    burn::tensor::{DType, Tensor, TensorData},
};
use burn_lens_testkit::{Golden, Tolerance, device, fixture, relative_error};

/// A fixture's dictionary.
pub(crate) fn load(name: &str, dtype: FloatType) -> Box<dyn SparseAutoencoder> {
    let folder = fixture(name);
    let config = std::fs::read_to_string(folder.join("cfg.json")).unwrap();
    let mut weights = Checkpoint::open_file(folder.join("sae_weights.safetensors")).unwrap();
    let options = SaeOptions { dtype, ..SaeOptions::on(&device()) };
    read_sae_lens(&config, name, &mut weights, &options).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn cases(name: &str) -> Golden {
    Golden::open(fixture(name).join("cases.safetensors"))
}

/// The inputs, heads side by side.
pub(crate) fn inputs(golden: &Golden, d_in: usize, dtype: FloatType) -> Tensor<3> {
    let x = golden.get("x");
    let (batch, pos) = (x.shape()[0], x.shape()[1]);
    let values = TensorData::new(golden.values("x"), [batch, pos, d_in]).convert_dtype(dtype.dtype());
    Tensor::from_data(values, (&device(), dtype.dtype()))
}

/// Compares whatever the shapes.
#[track_caller]
pub(crate) fn close(what: &str, found: Tensor<3>, expected: &TensorData, tolerance: Tolerance) {
    let found = found.cast(DType::F64).into_data();
    let error = relative_error(&found, expected);
    assert!(error <= tolerance.0, "{what}: off by {error:.3e}, allowed {:.0e}", tolerance.0);
}

/// The refusals that SAELens made, and the factor of the scaling.
pub(crate) fn manifest(name: &str) -> (Vec<String>, f64) {
    let text = std::fs::read_to_string(fixture(name).join("MANIFEST.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let refused =
        manifest["refused"].as_array().unwrap().iter().map(|kind| kind.as_str().unwrap().to_owned());
    (refused.collect(), manifest["factor"].as_f64().unwrap())
}
