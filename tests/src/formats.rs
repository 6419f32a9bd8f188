//! The same weights in every file format give the same model.

use burn_lens::{io::Checkpoint, prelude::*};
use burn_lens_testkit::{Tolerance, assert_close, device, fixture};

use crate::common::{load, logits, open};

#[test]
fn formats_agree() {
    let (model, golden) = open("gpt2", FloatType::F32);
    let tokens = golden.ints("tokens", &model.device());
    let expected = logits(&model, &tokens);
    for name in ["gpt2-sharded", "gpt2-bin", "gpt2-bin-legacy", "gpt2-bin-sharded"] {
        assert_eq!(logits(&load(&fixture(name), FloatType::F32), &tokens), expected, "{name}");
    }
    for name in ["gpt2-bf16", "gpt2-f16"] {
        let found = logits(&load(&fixture(name), FloatType::F32), &tokens);
        assert_close(name, &found, &expected, Tolerance::BF16);
    }
}

/// Half-precision weights also run in half precision.
#[test]
fn half_precision_runs() {
    for dtype in [FloatType::Bf16, FloatType::F16] {
        if !device().supports_dtype(dtype.dtype()) {
            println!("skipped: this device has no {dtype}");
            continue;
        }
        for name in ["gpt2", "llama-gqa", "gemma2"] {
            let (model, golden) = open(name, dtype);
            assert_eq!(model.dtype(), dtype.dtype());
            let tokens = golden.ints("tokens", &model.device());
            let found = logits(&model, &tokens).convert_dtype(burn::tensor::DType::F64);
            assert_close(&format!("{name} in {dtype}"), &found, golden.get("logits"), Tolerance::BF16);
        }
    }
}

#[test]
fn malicious_pickles_are_refused() {
    let error = Checkpoint::open(fixture("malicious")).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("pytorch_model.bin"), "{error}");
    assert!(!std::path::Path::new("PWNED").exists());
}
