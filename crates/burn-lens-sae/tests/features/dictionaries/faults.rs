//! What must be refused.

use burn_lens_sae::{SaeError, SaeOptions, features::SaeFeatures, read_sae_lens};
use burn_lens_tensor::{MemoryWeights, burn::tensor::TensorData};
use burn_lens_testkit::device;

fn tiny(metadata: &str) -> Result<SaeFeatures, SaeError> {
    let tensor = |name: &str, shape: &[usize]| {
        let len: usize = shape.iter().product();
        (name.to_owned(), TensorData::new(vec![0.5_f32; len], shape.to_vec()))
    };
    let mut weights = MemoryWeights::new([
        tensor("W_enc", &[2, 3]),
        tensor("W_dec", &[3, 2]),
        tensor("b_enc", &[3]),
        tensor("b_dec", &[2]),
    ]);
    let config = format!(
        r#"{{"architecture": "standard", "d_in": 2, "d_sae": 3, "sae_lens_version": "6.1.0", "metadata": {metadata}}}"#
    );
    SaeFeatures::new(read_sae_lens(&config, "my-sae", &mut weights, &SaeOptions::on(&device()))?)
}

#[test]
fn hooks_must_be_named_and_exist() {
    let error = tiny("{}").unwrap_err().to_string();
    assert!(error.contains("my-sae does not say which activation it reads"), "{error}");
    let error = tiny(r#"{"hook_name": "blocks.3.hook_resid_pst"}"#).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().contains("my-sae") && cause.contains("blocks.3.hook_resid_post"), "{cause}");
    let error = tiny(r#"{"hook_name": 3}"#).unwrap_err().to_string();
    assert!(error.contains("`metadata`") && error.contains("`hook_name` is 3"), "{error}");
}
