//! TransformerLens parity: every activation under its name, in firing order.

use burn::tensor::TensorData;
use burn_lens::prelude::*;
use burn_lens_testkit::{Golden, Tolerance, assert_close, fixture, fixtures, float_types};

use crate::common::{cached, data, load, logits, open, reshaped, run, whole_models};

/// The fixtures that TransformerLens dumped and we can load.
fn dumps() -> Vec<String> {
    fixtures(|name| name.starts_with("tl-") && name != "tl-shortformer")
}

#[test]
fn every_activation() {
    for name in dumps() {
        for dtype in float_types() {
            let (model, golden) = open(&name, dtype);
            let tokens = golden.ints("tokens", &model.device());
            let names: Vec<&str> =
                golden.names().filter(|&hook| hook != "tokens" && hook != "logits").collect();
            let cache = cached(&model, &tokens, &names);
            let tolerance = Tolerance::of(dtype);
            for hook in names {
                let found = data(cache.get(hook).unwrap_or_else(|error| panic!("{name}: {error}")));
                same(&format!("{name}: {hook}"), &found, golden.get(hook), tolerance);
            }
            assert_close(
                &format!("{name}: logits"),
                &logits(&model, &tokens),
                golden.get("logits"),
                tolerance,
            );
        }
    }
}

/// As `assert_close`; TransformerLens flattens the activations of per-head norms, ours keep
/// `[batch, pos, head, ..]`.
#[track_caller]
fn same(what: &str, found: &TensorData, expected: &TensorData, tolerance: Tolerance) {
    if what.contains("q_norm") || what.contains("k_norm") {
        assert_close(what, &reshaped(found, expected.shape().to_vec()), expected, tolerance);
    } else {
        assert_close(what, found, expected, tolerance);
    }
}

#[test]
fn firing_order() {
    for name in dumps() {
        let manifest = std::fs::read_to_string(fixture(&name).join("MANIFEST.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        let Some(expected) = manifest["hooks_in_firing_order"].as_array() else { continue };
        // Optional hooks that TransformerLens' configuration had switched on.
        let expected = expected.iter().map(|name| name.as_str().unwrap());
        let expected: Vec<&str> = expected.filter(|name| !name.ends_with("hook_mlp_in")).collect();
        let (model, golden) = open(&name, FloatType::F32);
        let tokens = golden.ints("tokens", &model.device());
        let fired: Vec<String> = cached(&model, &tokens, &[]).keys().map(|point| point.to_string()).collect();
        assert_eq!(fired, expected, "{name}");
        let listed: Vec<String> = model.firing().always.iter().map(ToString::to_string).collect();
        assert_eq!(listed, expected, "{name}: what the model says it fires");
    }
}

/// Optional hooks fire because they are asked for, and asking changes no bit of the result.
#[test]
fn optional_hooks() {
    let flags =
        ["use_attn_result", "use_split_qkv_input", "use_attn_in", "use_hook_mlp_in", "use_hook_tokens"];
    for dtype in float_types() {
        let (model, golden) = open("tl-ln", dtype);
        let tokens = golden.ints("tokens", &model.device());
        let plain = logits(&model, &tokens);
        for flag in flags {
            let dump = Golden::open(fixture("tl-ln").join(format!("golden.{flag}.safetensors")));
            // With forked inputs TransformerLens's ln1 fires once for each fork; ours keeps its
            // usual tensor, which the plain dump holds.
            let names: Vec<&str> = dump
                .names()
                .filter(|name| name.contains("hook_") && !name.contains(".ln1."))
                .filter(|name| !golden.contains(name))
                .collect();
            assert!(!names.is_empty(), "{flag} adds no hook");
            let options = CacheOptions::names(names.iter().copied());
            let (output, cache) =
                model.run_with_cache(&(&tokens).into(), &RunOptions::default(), &options).unwrap();
            for name in names {
                let found = data(cache.get(name).unwrap());
                assert_close(&format!("{flag}: {name}"), &found, dump.get(name), Tolerance::of(dtype));
            }
            assert_eq!(output.into_logits().unwrap().into_data(), plain, "{flag} changes the logits");
        }
    }
}

fn zero_head_0(x: Tensor<4>, _: &mut HookContext<'_>) -> Tensor<4> {
    let [batch, pos, _, d_model] = x.dims();
    x.slice_fill([0..batch, 0..pos, 0..1, 0..d_model], 0.0)
}

/// The edits that the manifest of `tl-ln` describes.
#[test]
fn edits_at_optional_hooks() {
    let golden = Golden::open(fixture("tl-ln").join("golden.edits.safetensors"));
    for dtype in float_types() {
        let (model, plain) = open("tl-ln", dtype);
        let tokens = plain.ints("tokens", &model.device());
        let check = |name: &str, hook: Hook<'_>| {
            let found = run(&model, &tokens, vec![hook]);
            assert_close(name, &found, golden.get(&format!("{name}.logits")), Tolerance::of(dtype));
        };
        check(
            "q_input",
            Hook::edit("blocks.1.hook_q_input", |x: Tensor<4>, _: &mut HookContext| {
                let [batch, pos, _, _] = x.dims();
                let part = [0..batch, 0..pos, 1..2, 0..4];
                x.clone().slice_assign(part.clone(), x.slice(part) * 2.0)
            }),
        );
        check("result", Hook::edit("blocks.1.attn.hook_result", zero_head_0));
        check(
            "mlp_in",
            Hook::edit("blocks.0.hook_mlp_in", |x: Tensor<3>, _: &mut HookContext| {
                let [batch, pos, _] = x.dims();
                let part = [0..batch, 0..pos, 0..4];
                x.clone().slice_assign(part.clone(), x.slice(part) * 2.0)
            }),
        );
        check("attn_in", Hook::edit("blocks.0.hook_attn_in", zero_head_0));
    }
}

/// What is saved in TransformerLens's format is the same model again, bit by bit.
#[test]
fn save_and_load() {
    let with_biases_on_branches = ["llama-bias"];
    for name in whole_models() {
        let (model, golden) = open(&name, FloatType::F32);
        let tokens = golden.ints("tokens", &model.device());
        let folder = tempfile::tempdir().unwrap();
        let lens = Pretrained { name: name.clone(), model, tokenizer: None, left_out: vec![] };
        if with_biases_on_branches.contains(&name.as_str()) {
            assert!(lens.save(folder.path()).unwrap_err().to_string().contains("cannot express"), "{name}");
            continue;
        }
        lens.save(folder.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let again = load(folder.path(), FloatType::F32);
        let (found, expected) = (logits(&again, &tokens), logits(&lens.model, &tokens));
        assert_close(&name, &found, &expected, Tolerance(1e-6)); // a bias of zeros may be added
    }
}
