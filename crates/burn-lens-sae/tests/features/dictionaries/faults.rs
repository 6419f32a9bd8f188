//! What must be refused.

use burn_lens_sae::{
    SaeError, SaeFiles, SaeOptions, Settings, features::SaeFeatures, read_sae, read_sae_lens,
};
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

/// In training what is active depends on the batch; for inference the file must say what that came to.
#[test]
fn a_threshold_that_is_not_known_yet_is_no_threshold() {
    let read = |threshold: Option<f32>| {
        let tensor = |name: &str, shape: &[usize]| {
            let len: usize = shape.iter().product();
            (name.to_owned(), TensorData::new(vec![0.5_f32; len], shape.to_vec()))
        };
        let mut tensors = vec![
            tensor("encoder.weight", &[3, 2]),
            tensor("encoder.bias", &[3]),
            tensor("decoder.weight", &[2, 3]),
            tensor("b_dec", &[2]),
        ];
        let scalar = |x: f32| ("threshold".to_owned(), TensorData::new(vec![x], Vec::<usize>::new()));
        tensors.extend(threshold.map(scalar));
        let config =
            r#"{"trainer": {"dict_class": "BatchTopKSAE", "activation_dim": 2, "dict_size": 3, "k": 2}}"#;
        let files = SaeFiles {
            origin: "my-run".to_owned(),
            config: Some(Settings::parse("config.json", config).unwrap()),
            weights: &mut MemoryWeights::new(tensors),
            whitening: None,
        };
        read_sae(files, &SaeOptions::on(&device()))
    };
    for threshold in [None, Some(-1.0), Some(f32::NAN)] {
        let error = read(threshold).unwrap_err();
        assert!(matches!(error, SaeError::Untold { .. }), "{error:?}");
        assert!(error.to_string().contains("later checkpoint"), "{error}");
    }
    assert_eq!(read(Some(0.25)).unwrap().kind(), "jumprelu");
}
