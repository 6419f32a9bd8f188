//! Metrics against SAELens's formulas, in any batches.

use burn_lens_hooks::HookedModel as _;
use burn_lens_sae::{SaeEvaluation, SaeMetrics};
use burn_lens_tensor::FloatType;
use burn_lens_testkit::{Golden, fixture};
use serde_json::Value;

use super::splice::spliced;
use crate::common::model;

fn evaluated(name: &str, batches: &[std::ops::Range<usize>]) -> SaeMetrics {
    let model = model("tl-ln", FloatType::F64);
    let tokens =
        Golden::open(fixture("sae-splice").join("cases.safetensors")).ints("tokens", &model.device());
    let mut evaluation = SaeEvaluation::new(&spliced(name, FloatType::F64)).unwrap();
    for batch in batches {
        let tokens = tokens.clone().narrow(0, batch.start, batch.len());
        evaluation.add(&model, &tokens, None).unwrap();
    }
    evaluation.metrics().unwrap()
}

/// Activations become `f32` on their way to the sparse rows.
#[track_caller]
fn check(what: &str, found: &Value, expected: &Value) {
    if let (Value::Array(found), Value::Array(expected)) = (found, expected) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            check(what, found, expected);
        }
        return;
    }
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
    assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{what}: {found}, {expected}");
}

#[test]
fn metrics_equal_those_of_sae_lens_whatever_the_batches() {
    let text = std::fs::read_to_string(fixture("sae-splice").join("metrics.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    for (name, expected) in expected.as_object().unwrap() {
        for batches in [vec![0..2, 2..3], vec![0..1, 1..3], (0..3).map(|row| row..row + 1).collect()] {
            let found = evaluated(name, &batches);
            assert_eq!((found.n_tokens, found.n_predictions), (18, 15));
            let found = serde_json::to_value(found).unwrap();
            for (metric, expected) in expected.as_object().unwrap() {
                check(&format!("{name}: {metric}"), &found[metric], expected);
            }
        }
    }
}

#[test]
fn excluded_tokens_are_not_counted_and_nothing_is_an_error() {
    let model = model("tl-ln", FloatType::F64);
    let tokens =
        Golden::open(fixture("sae-splice").join("cases.safetensors")).ints("tokens", &model.device());
    let mut evaluation = SaeEvaluation::new(&spliced("sae-standard", FloatType::F64).excluding([5])).unwrap();
    assert!(evaluation.metrics().is_err());
    evaluation.add(&model, &tokens, None).unwrap();
    assert_eq!(evaluation.metrics().unwrap().n_tokens, 14);
}
