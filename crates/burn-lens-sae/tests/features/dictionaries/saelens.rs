//! SAELens's format, written and read back, and the configurations of older versions.

use std::collections::BTreeMap;

use burn_lens_sae::{SaeError, SaeOptions, read_sae_lens, sae_lens_config, sae_lens_tensors};
use burn_lens_tensor::{FloatType, MemoryWeights, burn::tensor::TensorData};
use burn_lens_testkit::{Tolerance, device, fixtures};
use serde_json::{Value, json};

use super::{cases, close, inputs, load};

fn memory(name: &str) -> (Value, BTreeMap<String, TensorData>) {
    let sae = load(name, FloatType::F64);
    let config = serde_json::from_str(&sae_lens_config(&*sae)).unwrap();
    (config, sae_lens_tensors(&*sae).unwrap().into_iter().collect())
}

fn read(config: &Value, tensors: &BTreeMap<String, TensorData>) -> Result<String, SaeError> {
    let mut weights = MemoryWeights::new(tensors.clone());
    let options = SaeOptions { dtype: FloatType::F64, ..SaeOptions::on(&device()) };
    read_sae_lens(&config.to_string(), "cfg.json", &mut weights, &options).map(|sae| sae.kind().to_owned())
}

#[test]
fn what_is_saved_comes_back_bit_for_bit() {
    for name in fixtures(|name| {
        name.starts_with("sae-") && burn_lens_testkit::fixture(name).join("sae_weights.safetensors").is_file()
    }) {
        let sae = load(&name, FloatType::F64);
        let (config, tensors) = memory(&name);
        let mut weights = MemoryWeights::new(tensors.clone());
        let options = SaeOptions { dtype: FloatType::F64, ..SaeOptions::on(&device()) };
        let back = read_sae_lens(&config.to_string(), &name, &mut weights, &options).unwrap();
        assert_eq!(
            sae_lens_tensors(&*back).unwrap().into_iter().collect::<BTreeMap<_, _>>(),
            tensors,
            "{name}"
        );
        assert_eq!(sae_lens_config(&*back), sae_lens_config(&*sae), "{name}");
        let x = inputs(&cases(&name), sae.config().d_in, FloatType::F64);
        assert_eq!(back.forward_dense(x.clone()).into_data(), sae.forward_dense(x).into_data(), "{name}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let (config, tensors) = memory("sae-topk");
    let check = |change: &dyn Fn(&mut Value, &mut BTreeMap<String, TensorData>), expected: &[&str]| {
        let (mut config, mut tensors) = (config.clone(), tensors.clone());
        change(&mut config, &mut tensors);
        let error = read(&config, &tensors).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "`{error}` does not say `{part}`");
        }
    };
    check(&|config, _| config["architecture"] = "topp".into(), &["`topp`", "did you mean topk"]);
    check(&|config, _| config["architecture"] = "batchtopk".into(), &["threshold", "later checkpoint"]);
    check(
        &|config, _| config["metadata"]["hook_head_index"] = (-1).into(),
        &["`hook_head_index` is -1", "from 0"],
    );
    check(&|config, _| config["d_in"] = 0.into(), &["`d_in` is 0", "at least 1"]);
    check(&|config, _| config["d_in"] = "8".into(), &["`d_in`"]);
    check(&|config, _| config["k"] = 25.into(), &["`k` is 25", "24"]);
    check(&|config, _| drop(config.as_object_mut().unwrap().remove("k")), &["no `k`"]);
    check(&|config, _| config["d_sae"] = 12.into(), &["`W_enc`", "[8, 24]", "[8, 12]"]);
    check(&|config, _| config["normalize_activations"] = "batch".into(), &["\"batch\"", "layer_norm"]);
    check(
        &|config, _| config["normalize_activations"] = "expected_average_only_in".into(),
        &["expected_average_only_in", "scaling_factor"],
    );
    check(
        &|config, _| config["normalize_activations"] = "covariance_whitening".into(),
        &["activation_whitening.safetensors"],
    );
    check(&|_, tensors| drop(tensors.remove("b_enc")), &["`b_enc` is missing", "b_dec"]);
    check(
        &|_, tensors| drop(tensors.insert("threshold".to_owned(), tensors["b_enc"].clone())),
        &["does not use", "threshold"],
    );
    let text = read_sae_lens("[1]", "cfg.json", &mut MemoryWeights::default(), &SaeOptions::on(&device()));
    assert_eq!(text.unwrap_err().to_string(), "cfg.json is not a JSON object");
}

/// Older training runs kept the logarithm.
#[test]
fn a_threshold_can_be_given_by_its_logarithm() {
    let (config, mut tensors) = memory("sae-jumprelu");
    let threshold = tensors.remove("threshold").unwrap();
    let logarithms: Vec<f64> = threshold.iter::<f64>().map(f64::ln).collect();
    tensors.insert("log_threshold".to_owned(), TensorData::new(logarithms, [24]));
    let mut weights = MemoryWeights::new(tensors);
    let options = SaeOptions { dtype: FloatType::F64, ..SaeOptions::on(&device()) };
    let sae = read_sae_lens(&config.to_string(), "cfg.json", &mut weights, &options).unwrap();
    let golden = cases("sae-jumprelu");
    let acts = sae.encode_dense(inputs(&golden, 8, FloatType::F64));
    close("acts", acts, golden.get("acts"), Tolerance::F64);
}

/// With the decoder's norms in the choice, and without.
#[test]
fn checkpoints_become_what_is_saved_for_inference() {
    let norms = |name: &str| {
        let sae = load(name, FloatType::F64);
        assert_eq!(sae.kind(), "jumprelu", "{name}");
        let rows = sae.directions().square().sum_dim(1).sqrt().into_data();
        rows.iter::<f64>().collect::<Vec<_>>()
    };
    for name in ["sae-batchtopk-training", "sae-matryoshka-batchtopk-training"] {
        assert!(norms(name).iter().all(|norm| (norm - 1.0).abs() < 1e-12), "{name}");
    }
    assert!(norms("sae-batchtopk-plain-training").iter().any(|norm| (norm - 1.0).abs() > 0.1));
}

#[test]
fn what_versions_before_6_say_is_understood() {
    let (_, tensors) = memory("sae-standard");
    let mut old = json!({ "d_in": 8, "d_sae": 24, "activation_fn_str": "relu", "hook_point": "blocks.0.hook_resid_pre" });
    assert_eq!(read(&old, &tensors).unwrap(), "standard");
    old["activation_fn_str"] = "topk".into();
    assert!(read(&old, &tensors).unwrap_err().to_string().contains("no `k`"));
    old["activation_fn_kwargs"] = json!({ "k": 3 });
    assert_eq!(read(&old, &tensors).unwrap(), "topk");
    old["activation_fn_str"] = "tanh-relu".into();
    assert!(read(&old, &tensors).unwrap_err().to_string().contains("tanh-relu"));
    old["activation_fn_str"] = "relu".into();
    old["normalize_activations"] = true.into();
    assert!(matches!(read(&old, &tensors), Err(SaeError::NotFolded { .. })));
}

/// Some old versions wrote factors for the decoder's rows.
#[test]
fn finetuning_factors_are_applied_or_must_be_ones() {
    let (_, mut tensors) = memory("sae-standard");
    let old = json!({ "d_in": 8, "d_sae": 24, "finetuning_scaling_factor": false });
    let factors: Vec<f64> = (0..24).map(|at| 1.0 + f64::from(at)).collect();
    tensors.insert("scaling_factor".to_owned(), TensorData::new(factors, [24]));
    assert!(read(&old, &tensors).unwrap_err().to_string().contains("finetuning_scaling_factor"));
    let mut on = old.clone();
    on["finetuning_scaling_factor"] = true.into();
    let mut weights = MemoryWeights::new(tensors);
    let options = SaeOptions { dtype: FloatType::F64, ..SaeOptions::on(&device()) };
    let scaled = read_sae_lens(&on.to_string(), "cfg.json", &mut weights, &options).unwrap();
    let plain = load("sae-standard", FloatType::F64);
    let row = |sae: &dyn burn_lens_sae::SparseAutoencoder, at: usize| {
        sae.directions().narrow(0, at, 1).into_data().iter::<f64>().collect::<Vec<_>>()
    };
    let expected: Vec<f64> = row(&*plain, 4).into_iter().map(|value| value * 5.0).collect();
    assert_eq!(row(&*scaled, 4), expected);
}
