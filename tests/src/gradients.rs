//! Gradients at hook points: torch's on the same model, finite differences, and edits.

use std::sync::{Arc, Mutex};

use burn_lens::{hooks::RunError, prelude::*};
use burn_lens_testkit::{Golden, Tolerance, assert_close, fixture, float_types};

use crate::common::{data, load};

fn open(name: &str, dtype: FloatType) -> (HookedTransformer, Golden) {
    let folder = fixture(name);
    (load(&folder, dtype), Golden::open(folder.join("golden_grad.safetensors")))
}

fn loss_options() -> RunOptions {
    RunOptions::returning(ReturnType::Loss)
}

#[test]
fn agree_with_torch_at_every_hook() {
    for name in ["tl-ln", "tl-rms-gqa"] {
        for dtype in float_types() {
            let (model, golden) = open(name, dtype);
            let tokens = golden.ints("tokens", &model.device());
            let options = CacheOptions::default().incl_bwd();
            let (output, cache) = model.run_with_cache(&(&tokens).into(), &loss_options(), &options).unwrap();
            let loss: f64 = output.into_loss().unwrap().into_scalar();
            assert!((loss - golden.values("loss")[0]).abs() < 1e-5);
            // TransformerLens runs ln1 once each for query, key and value, and keeps the gradient of
            // one of them. Ours is the whole; finite differences check it below.
            let expected: Vec<&str> = golden
                .names()
                .filter(|name| {
                    name.ends_with("_grad") && !name.starts_with("edited.") && !name.contains(".ln1.")
                })
                .collect();
            assert!(expected.len() > 20, "{name}: only {} gradients", expected.len());
            // Gradients are smaller than activations and go through twice as many operations.
            let tolerance = Tolerance(10.0 * Tolerance::of(dtype).0);
            for hook in expected {
                let found = data(cache.get(hook).unwrap_or_else(|error| panic!("{name}: {error}")));
                assert_close(&format!("{name}: {hook}"), &found, golden.get(hook), tolerance);
            }
        }
    }
}

/// The gradient at one hook alone is the same as with every other hook asked for too.
#[test]
fn do_not_depend_on_what_else_is_asked() {
    let (model, golden) = open("tl-ln", burn_lens_testkit::finest());
    let tokens = golden.ints("tokens", &model.device());
    for hook in ["hook_embed", "blocks.0.attn.hook_pattern", "blocks.1.hook_resid_mid", "unembed.hook_out"] {
        let options = CacheOptions::names([hook]).incl_bwd();
        let (_, cache) = model.run_with_cache(&(&tokens).into(), &loss_options(), &options).unwrap();
        assert_eq!(cache.len(), 1);
        let expected = golden.get(&format!("{hook}_grad"));
        assert_close(hook, &data(cache.grad(hook).unwrap()), expected, Tolerance::finest(1e-10));
    }
}

#[test]
fn edits_reach_what_lies_before() {
    for dtype in float_types() {
        let (model, golden) = open("tl-ln", dtype);
        let tokens = golden.ints("tokens", &model.device());
        let double = Hook::edit_grad("blocks.1.hook_resid_pre", |grad: Tensor<3>, _| grad * 2.0);
        let names = ["hook_embed", "blocks.0.hook_resid_pre"];
        let options = CacheOptions::names(names).incl_bwd();
        let (_, cache) = model.run(&(&tokens).into(), &loss_options(), vec![double], &options).unwrap();
        for name in names {
            let expected = golden.get(&format!("edited.{name}_grad"));
            let tolerance = Tolerance(10.0 * Tolerance::of(dtype).0);
            assert_close(name, &data(cache.grad(name).unwrap()), expected, tolerance);
        }
    }
}

#[test]
fn reading_hooks_see_the_gradient() {
    for dtype in float_types() {
        let (model, golden) = open("tl-ln", dtype);
        let tokens = golden.ints("tokens", &model.device());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let read = Hook::read_grad("blocks.*.hook_resid_mid", move |grad: &Tensor<3>, point| {
            into.lock().unwrap().push((point, data(AnyTensor::from(grad.clone()))));
        });
        let output = model.run_with_hooks(&(&tokens).into(), &loss_options(), vec![read]).unwrap();
        output.into_loss().unwrap().backward();
        let seen = seen.lock().unwrap();
        assert_eq!(
            seen.iter().map(|(point, _)| *point).collect::<Vec<_>>(),
            [HookPoint::ResidMid(1), HookPoint::ResidMid(0)]
        );
        for (point, grad) in seen.iter() {
            let expected = golden.get(&format!("{point}_grad"));
            let tolerance = Tolerance(10.0 * Tolerance::of(dtype).0);
            assert_close(&format!("the gradient of {point}"), grad, expected, tolerance);
        }
    }
}

#[test]
fn agree_with_finite_differences() {
    let (model, golden) = open("tl-rms-gqa", burn_lens_testkit::finest());
    if float_types().len() == 1 {
        return; // a device without f64 has no digits for this
    }
    let tokens = golden.ints("tokens", &model.device());
    let options = CacheOptions::default().incl_bwd();
    let cache = model.run_with_cache(&(&tokens).into(), &loss_options(), &options).unwrap().1;
    let hooks =
        ["resid_mid0", "resid_pre1", "mlp_out1", "blocks.0.ln1.hook_normalized", "blocks.1.ln1.hook_scale"];
    for hook in hooks {
        for at in [[0, 0, 0], [1, 2, 0]] {
            const STEP: f64 = 1e-5;
            let [row, pos, dim] = at;
            let loss = |delta: f64| -> f64 {
                let nudge = Hook::edit(hook, move |x: Tensor<3>, _: &mut HookContext| {
                    let part = [row..row + 1, pos..pos + 1, dim..dim + 1];
                    x.clone().slice_assign(part.clone(), x.slice(part) + delta)
                });
                let output = model.run_with_hooks(&(&tokens).into(), &loss_options(), vec![nudge]).unwrap();
                output.into_loss().unwrap().into_scalar()
            };
            let difference = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
            let grad = data(cache.grad(hook).unwrap());
            let [_, n_pos, d_model] = grad.shape().to_vec()[..] else { panic!() };
            let expected = grad.iter::<f64>().nth((row * n_pos + pos) * d_model + dim).unwrap();
            assert!((difference - expected).abs() < 1e-8, "{hook} {at:?}: {difference} against {expected}");
        }
    }
}

#[test]
fn metrics_of_ones_own() {
    let (model, golden) = open("tl-ln", burn_lens_testkit::finest());
    let tokens = golden.ints("tokens", &model.device());
    let logit = CacheOptions::names(["unembed.hook_out"])
        .incl_bwd_of(|output| Ok(output.clone().into_logits()?.slice([0..1, 2..3, 4..5]).reshape([1])));
    let (_, cache) = model.run_with_cache(&(&tokens).into(), &RunOptions::default(), &logit).unwrap();
    let grad: Vec<f64> = data(cache.grad("unembed.hook_out").unwrap()).iter().collect();
    assert_eq!(grad.iter().sum::<f64>(), 1.0);
    assert_eq!(grad[2 * model.config().d_vocab_out + 4], 1.0);
}

#[test]
fn a_metric_without_gradient_is_an_error() {
    let (model, golden) = open("tl-ln", burn_lens_testkit::finest());
    let tokens = golden.ints("tokens", &model.device());
    let constant = CacheOptions::default().incl_bwd_of(|output| {
        let logits = output.clone().into_logits()?;
        Ok(Tensor::ones([1], &logits.device().without_autodiff()))
    });
    let error = model.run_with_cache(&(&tokens).into(), &RunOptions::default(), &constant).unwrap_err();
    assert!(matches!(error, RunError::Options(_)), "{error}");
    let wants_loss = CacheOptions::default().incl_bwd();
    let error = model.run_with_cache(&(&tokens).into(), &RunOptions::default(), &wants_loss).unwrap_err();
    assert!(error.to_string().contains("the loss"), "{error}");
}
