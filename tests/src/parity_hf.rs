//! Hugging Face parity: tiny random models of every family, against true `f64` runs.

use burn_lens::{models::ARCHITECTURES, prelude::*};
use burn_lens_testkit::{Golden, Tolerance, assert_close, fixture, fixtures, float_types};

use crate::common::{cached, data, load, load_with, logits, open};

/// The fixtures that hold a Hugging Face model and its golden values.
fn families() -> Vec<String> {
    fixtures(|name| {
        let folder = fixture(name);
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
        config.contains("\"architectures\"") && folder.join("golden.safetensors").exists()
    })
}

#[test]
fn every_architecture_has_a_fixture() {
    let configs: Vec<String> = fixtures(|name| fixture(name).join("config.json").exists())
        .iter()
        .map(|name| std::fs::read_to_string(fixture(name).join("config.json")).unwrap())
        .collect();
    for name in ARCHITECTURES.iter().flat_map(|architecture| architecture.names()) {
        assert!(
            configs.iter().any(|config| config.contains(&format!("\"{name}\""))),
            "no fixture for {name}"
        );
    }
}

#[test]
fn logits_hidden_states_and_patterns() {
    for name in families() {
        for dtype in float_types() {
            let (model, golden) = open(&name, dtype);
            check(&name, &model, &golden, Tolerance::of(dtype));
        }
    }
}

#[track_caller]
fn check(name: &str, model: &HookedTransformer, golden: &Golden, tolerance: Tolerance) {
    let tokens = golden.ints("tokens", &model.device());
    let cache = cached(model, &tokens, &[]);
    assert_close(&format!("{name}: logits"), &logits(model, &tokens), golden.get("logits"), tolerance);
    let n_layers = model.config().n_layers;
    for layer in 0..n_layers {
        let hidden = data(cache.get(HookPoint::ResidPre(layer)).unwrap());
        assert_close(
            &format!("{name}: hidden.{layer}"),
            &hidden,
            golden.get(&format!("hidden.{layer}")),
            tolerance,
        );
        let pattern = data(cache.get(HookPoint::AttnPattern(layer)).unwrap());
        assert_close(
            &format!("{name}: attn.{layer}"),
            &pattern,
            golden.get(&format!("attn.{layer}")),
            tolerance,
        );
    }
    let last = data(cache.get(HookPoint::UnembedIn).unwrap());
    let expected = golden.get(&format!("hidden.{n_layers}"));
    assert_close(&format!("{name}: hidden.{n_layers}"), &last, expected, tolerance);
    let options = RunOptions::returning(ReturnType::Loss);
    let loss = model.run_with_hooks(&(&tokens).into(), &options, vec![]).unwrap().into_loss().unwrap();
    let loss: f64 = loss.into_scalar();
    let expected = golden.values("loss")[0];
    assert!((loss - expected).abs() <= tolerance.0 * expected, "{name}: loss {loss}, expected {expected}");
}

#[test]
fn configurations_as_transformers_4_wrote_them() {
    let with_legacy = fixtures(|name| fixture(name).join("config.legacy.json").exists());
    for name in with_legacy {
        let folder = fixture(&name);
        let legacy = std::fs::read_to_string(folder.join("config.legacy.json")).unwrap();
        let old = load_with(&folder, &legacy, FloatType::F32);
        assert_eq!(old.config(), load(&folder, FloatType::F32).config(), "{name}");
    }
}

#[test]
fn left_padding() {
    for name in families() {
        for dtype in float_types() {
            let (model, golden) = open(&name, dtype);
            if !golden.contains("padded.logits") {
                continue;
            }
            let device = model.device();
            let mask = golden.ints("padded.attention_mask", &device);
            let options = RunOptions { attention_mask: Some(mask), ..RunOptions::default() };
            let input = Input::Tokens(golden.ints("padded.tokens", &device));
            let found = model.run_with_hooks(&input, &options, vec![]).unwrap().into_logits().unwrap();
            let expected =
                Tensor::<3>::from_data(golden.get("padded.logits").clone(), (&device, found.dtype()));
            // Positions that are padding mean nothing.
            let kept = golden
                .ints("padded.attention_mask", &device)
                .float()
                .cast(found.dtype())
                .unsqueeze_dim::<3>(2);
            let (found, expected) = ((found * kept.clone()).into_data(), (expected * kept).into_data());
            assert_close(&format!("{name}: padded"), &found, &expected, Tolerance::of(dtype));
        }
    }
}
