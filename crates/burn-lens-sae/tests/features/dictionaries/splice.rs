//! Dictionaries in a run, as SAELens splices them, and what no peer promises: the same bits.

use burn_lens_hooks::{
    CacheOptions, Hook, HookContext, HookPoint, HookedModel as _, Input, RunError, RunOptions,
};
use burn_lens_models::HookedTransformer;
use burn_lens_sae::{SaeError, SaeModel as _, SplicedSae, sae_hooks};
use burn_lens_tensor::{
    AnyTensor, FloatType,
    burn::tensor::{Int, Tensor, TensorData},
};
use burn_lens_testkit::{Golden, Tolerance, assert_close, fixture, float_types};
use serde_json::Value;

use super::load;
use crate::common::model;

fn golden() -> Golden {
    Golden::open(fixture("sae-splice").join("cases.safetensors"))
}

fn json(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("sae-splice").join(file)).unwrap()).unwrap()
}

pub(super) fn spliced(name: &str, dtype: FloatType) -> SplicedSae {
    SplicedSae::new(load(name, dtype))
}

fn input(model: &HookedTransformer) -> Input {
    Input::Tokens(golden().ints("tokens", &model.device()))
}

fn saes_of(case: &Value, dtype: FloatType) -> Vec<SplicedSae> {
    let list = |key: &str| case[key].as_array().unwrap().clone();
    let sae = |name: &Value| {
        let mut sae = spliced(name.as_str().unwrap(), dtype)
            .excluding(list("excluded").iter().map(|token| token.as_i64().unwrap()));
        sae.use_error_term = case["error"].as_bool().unwrap();
        sae
    };
    list("saes").iter().map(sae).collect()
}

/// `x · factor + addend`, of one feature or of everything.
fn edit(edit: &Value) -> Hook<'static> {
    let number = |at: usize| edit[at].as_f64().unwrap();
    let (factor, addend, feature) = (number(1), number(2), edit[3].as_u64());
    Hook::edit(edit[0].as_str().unwrap(), move |x: Tensor<3>, _: &mut HookContext<'_>| {
        let changed = x.clone() * factor + addend;
        let Some(feature) = feature.map(|feature| feature as usize) else { return changed };
        let [batch, pos, _] = x.dims();
        let part = changed.narrow(2, feature, 1);
        x.slice_assign([0..batch, 0..pos, feature..feature + 1], part)
    })
}

#[test]
fn runs_equal_those_of_sae_lens() {
    let golden = golden();
    for case in json("cases.json").as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        for dtype in float_types() {
            let (model, saes) = (model("tl-ln", dtype), saes_of(case, dtype));
            let points: Vec<&str> =
                golden.names().filter_map(|key| key.strip_prefix(name)?.strip_prefix("/blocks")).collect();
            let points: Vec<String> = points.into_iter().map(|rest| format!("blocks{rest}")).collect();
            let mut hooks = sae_hooks(&model, &saes).unwrap();
            hooks.extend(case["edits"].as_array().unwrap().iter().map(edit));
            let cache = CacheOptions::names(points.iter().cloned());
            let (output, cache) = model.run(&input(&model), &RunOptions::default(), hooks, &cache).unwrap();
            // Sums of differences at the scale of the logits.
            let tolerance = Tolerance(Tolerance::of(dtype).0.max(1e-9));
            let logits = output.into_logits().unwrap().into_data();
            assert_close(name, &logits, golden.get(&format!("{name}/logits")), tolerance);
            assert!(points.len() >= 4, "{name}");
            for point in points {
                let found = cache.get(point.as_str()).unwrap().into_data().unwrap();
                assert_close(
                    &format!("{name} {point}"),
                    &found,
                    golden.get(&format!("{name}/{point}")),
                    tolerance,
                );
            }
        }
    }
}

fn bits(model: &HookedTransformer, hooks: Vec<Hook<'_>>) -> TensorData {
    let output = model.run_with_hooks(&input(model), &RunOptions::default(), hooks).unwrap();
    output.into_logits().unwrap().into_data()
}

#[test]
fn with_an_error_term_the_run_is_the_clean_one_bit_for_bit() {
    for dtype in float_types() {
        let model = model("tl-ln", dtype);
        let clean = bits(&model, Vec::new());
        for name in [
            "sae-standard",
            "sae-standard-layer-norm",
            "sae-standard-constant-norm",
            "sae-standard-hook-z",
            "sae-gated",
            "sae-topk-rescaled",
            "sae-abstopk",
            "sae-jumprelu",
            "sae-matching-pursuit",
            "sae-temporal",
            "sae-splice-transcoder",
        ] {
            let saes = [
                spliced(name, dtype).with_error_term(),
                spliced("sae-standard-hook-z", dtype).with_error_term(),
            ];
            let saes = if name == "sae-standard-hook-z" { &saes[..1] } else { &saes[..] };
            assert_eq!(bits(&model, sae_hooks(&model, saes).unwrap()), clean, "{name}");
            // Looking at everything inside changes nothing, and neither do edits that change nothing.
            let all = CacheOptions::default();
            let run = model.run_with_cache_with_saes(&input(&model), &RunOptions::default(), saes, &all);
            let (output, cache) = run.unwrap();
            assert_eq!(output.into_logits().unwrap().into_data(), clean, "{name}");
            let inside = cache.keys().filter(|point| matches!(point, HookPoint::Sae(..))).count();
            assert!(inside >= 5, "{name}");
            let mut hooks = sae_hooks(&model, saes).unwrap();
            hooks.push(Hook::edit("*.hook_sae_*", |x: AnyTensor, _: &mut HookContext<'_>| x));
            let edited = bits(&model, hooks);
            assert!(burn_lens_testkit::relative_error(&edited, &clean) < 1e-6, "{name}");
            let acts = |hooks: &mut Vec<Hook<'_>>| {
                hooks.push(Hook::edit("*.hook_sae_acts_post", |x: AnyTensor, _: &mut HookContext<'_>| x));
            };
            let mut hooks = sae_hooks(&model, saes).unwrap();
            acts(&mut hooks);
            assert_eq!(bits(&model, hooks), clean, "{name}");
        }
    }
}

#[test]
fn gradients_flow_through_the_features_alone() {
    let (model, golden) = (model("tl-ln", FloatType::F64), golden());
    let points: Vec<String> =
        golden.names().filter_map(|key| key.strip_prefix("gradient/")).map(str::to_owned).collect();
    let sae = spliced("sae-standard-layer-norm", FloatType::F64).with_error_term();
    let cache = CacheOptions::names(points.iter().cloned()).incl_bwd();
    let options = RunOptions::returning(burn_lens_hooks::ReturnType::Both);
    let (output, cache) = model.run_with_cache_with_saes(&input(&model), &options, &[sae], &cache).unwrap();
    // With gradients the model's own kernels are others.
    let clean = bits(&model, Vec::new());
    assert_close("logits", &output.into_logits().unwrap().into_data(), &clean, Tolerance(1e-12));
    for point in points {
        let found = cache.grad(point.as_str()).unwrap().into_data().unwrap();
        assert_close(&point, &found, golden.get(&format!("gradient/{point}")), Tolerance(1e-9));
    }
}

#[test]
fn installed_dictionaries_stay_for_a_scope() {
    let model = model("tl-ln", FloatType::F32);
    let clean = bits(&model, Vec::new());
    let saes = [spliced("sae-standard", FloatType::F32)];
    let expected = bits(&model, sae_hooks(&model, &saes).unwrap());
    assert_ne!(clean, expected);
    {
        let _scope = model.hook_scope(sae_hooks(&model, &saes).unwrap()).unwrap();
        assert_eq!(bits(&model, Vec::new()), expected);
        let inside = "blocks.0.hook_resid_pre.hook_sae_acts_post";
        let zero = Hook::edit(inside, |x: Tensor<3>, _: &mut HookContext<'_>| x.zeros_like());
        assert_ne!(bits(&model, vec![zero]), expected);
    }
    assert_eq!(bits(&model, Vec::new()), clean);
}

#[test]
fn a_batch_of_prompts_is_each_prompt_alone() {
    let model = model("tl-ln", FloatType::F64);
    let hooks = || sae_hooks(&model, &[spliced("sae-topk", FloatType::F64).excluding([5])]).unwrap();
    let Input::Tokens(tokens) = input(&model) else { unreachable!() };
    let run = |tokens: Tensor<2, Int>| {
        let output = model.run_with_hooks(&Input::Tokens(tokens), &RunOptions::default(), hooks()).unwrap();
        output.into_logits().unwrap()
    };
    let alone = (0..3).map(|row| run(tokens.clone().narrow(0, row, 1))).collect();
    assert_close("rows", &run(tokens).into_data(), &Tensor::cat(alone, 0).into_data(), Tolerance::F64);
}

#[test]
fn what_does_not_fit_is_said() {
    let model = model("tl-ln", FloatType::F32);
    let error = |saes: &[SplicedSae]| sae_hooks(&model, saes).unwrap_err().to_string();
    // Written to an output of 8 entries: 6.
    let found = error(&[spliced("sae-transcoder", FloatType::F32)]);
    assert!(found.contains("length 6") && found.contains("blocks.0.hook_mlp_out"), "{found}");
    let twice = [spliced("sae-standard", FloatType::F32), spliced("sae-topk", FloatType::F32)];
    let run = model.run_with_saes(&input(&model), &RunOptions::default(), &twice);
    let found = run.unwrap_err().to_string();
    assert!(found.contains("two dictionaries") && found.contains("hook_sae_input"), "{found}");
    let sae = [spliced("sae-standard", FloatType::F32)];
    let hook = |name: &'static str| {
        let hook = Hook::edit(name, |x: Tensor<3>, _: &mut HookContext<'_>| x);
        model.run_with_hooks_with_saes(&input(&model), &RunOptions::default(), &sae, vec![hook]).unwrap_err()
    };
    let wrong = hook("blocks.0.hook_resid_pre.hook_sae_act_post");
    assert!(matches!(&wrong, SaeError::Run(RunError::UnknownHook(unknown))
        if unknown.nearest[0] == "blocks.0.hook_resid_pre.hook_sae_acts_post"));
    let absent = hook("blocks.1.hook_resid_pre.hook_sae_acts_post");
    assert!(
        matches!(&absent, SaeError::Run(RunError::CannotFire { nearest, .. })
        if nearest.iter().any(|name| name == "blocks.0.hook_resid_pre.hook_sae_acts_post")),
        "{absent}"
    );
}
