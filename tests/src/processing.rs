//! Weight processing: TransformerLens's weights, and log-probabilities that do not change.

use burn::tensor::TensorData;
use burn_lens::{
    models::{export, processing::Step},
    prelude::*,
    tensor::numeric,
};
use burn_lens_testkit::{Golden, Tolerance, assert_close, finest, fixture, float_types};

use crate::common::{data, logits, open, whole_models};

fn log_probs(model: &HookedTransformer, tokens: &Tensor<2, Int>) -> TensorData {
    let options = RunOptions::default();
    let output = model.run_with_hooks(&tokens.into(), &options, vec![]).unwrap();
    numeric::log_softmax(output.into_logits().unwrap()).into_data()
}

/// Every step that is valid for a model leaves its log-probabilities as they are, alone and
/// together; one that is not is refused with the reason.
#[test]
fn log_probabilities_do_not_change() {
    for name in whole_models() {
        for dtype in float_types() {
            let (model, golden) = open(&name, dtype);
            let tokens = golden.ints("tokens", &model.device());
            let plain = log_probs(&model, &tokens);
            let (valid, invalid): (Vec<Step>, Vec<Step>) =
                Step::ALL.into_iter().partition(|step| step.invalid_for(model.config()).is_none());
            for step in invalid {
                let error = model.processed(&[step]).unwrap_err().to_string();
                assert!(error.contains(step.name()), "{name}: {error}");
            }
            let alone = valid.iter().map(|&step| vec![step]);
            for steps in alone.chain([valid.clone()]) {
                let processed = model.processed(&steps).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(processed.dtype(), model.dtype(), "{name}: {steps:?} changes the dtype");
                let found = log_probs(&processed, &tokens);
                let tolerance = Tolerance(3.0 * Tolerance::of(dtype).0); // two runs' rounding, other weights
                assert_close(&format!("{name}: {steps:?}"), &found, &plain, tolerance);
            }
        }
    }
}

/// The processed weights themselves, against TransformerLens's. Singular vectors are unique
/// only up to sign, so what `refactor_factored_attn_matrices` makes is compared as products.
#[test]
fn weights_agree_with_transformer_lens() {
    let mut compared = 0;
    for name in ["tl-ln", "tl-rms-gqa", "tl-solu-ln", "tl-norm-before-and-after"] {
        for step in ["fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases", "default"] {
            let path = fixture(name).join(format!("processed.{step}.safetensors"));
            if !path.exists() {
                continue;
            }
            let expected = Golden::open(path);
            let (model, golden) = open(name, finest());
            let processed = match step {
                "default" => model.processed_by_default().unwrap().0,
                step => {
                    let step: Step = step.parse().unwrap();
                    if step.invalid_for(model.config()).is_some() {
                        continue; // TransformerLens warns and does nothing
                    }
                    model.processed(&[step]).unwrap()
                }
            };
            let tokens = golden.ints("tokens", &model.device());
            let what = |rest: &str| format!("{name}, {step}: {rest}");
            let found = logits(&processed, &tokens);
            assert_close(&what("logits"), &found, expected.get("logits"), Tolerance::finest(1e-10));
            let weights = export(&processed).unwrap();
            for (param, found) in &weights {
                if expected.contains(param) {
                    assert_close(&what(param), &data(found), expected.get(param), Tolerance::finest(1e-10));
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 50, "only {compared} weights were compared");
}

#[test]
fn refactored_circuits_have_the_same_products() {
    let (model, golden) = open("tl-ln", finest());
    let tokens = golden.ints("tokens", &model.device());
    let expected =
        Golden::open(fixture("tl-ln").join("processed.refactor_factored_attn_matrices.safetensors"));
    let processed = model.processed(&[Step::RefactorFactoredAttnMatrices]).unwrap();
    assert_close("logits", &logits(&processed, &tokens), expected.get("logits"), Tolerance::finest(1e-10));
    let device = model.device();
    for layer in 0..2 {
        let theirs = |name: &str| -> Tensor<3> {
            let name = format!("blocks.{layer}.attn.{name}");
            Tensor::from_data(expected.get(&name).clone(), (&device, finest().dtype()))
        };
        let of = |w: Option<Tensor<4>>| -> Tensor<3> { w.unwrap().narrow(0, layer, 1).squeeze_dim(0) };
        let qk = of(processed.w_q()).matmul(of(processed.w_k()).transpose());
        let expected_qk = theirs("W_Q").matmul(theirs("W_K").transpose());
        assert_close("QK", &qk.into_data(), &expected_qk.into_data(), Tolerance::finest(1e-10));
        let ov = of(processed.w_v()).matmul(of(processed.w_o()));
        let expected_ov = theirs("W_V").matmul(theirs("W_O"));
        assert_close("OV", &ov.into_data(), &expected_ov.into_data(), Tolerance::finest(1e-10));
    }
}
