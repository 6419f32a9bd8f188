//! Dictionaries of one head's activation: the others are left alone.

use std::collections::BTreeMap;

use burn_lens_hooks::{CacheOptions, Hook, HookContext, HookPoint, HookedModel as _, Input, RunOptions};
use burn_lens_sae::{
    SaeError, SaeModel as _, SaeOptions, SparseAutoencoder,
    features::{FeatureSource as _, SaeFeatures},
    read_sae_lens, sae_hooks,
};
use burn_lens_tensor::{
    FloatType, MemoryWeights,
    burn::tensor::{Tensor, TensorData},
};
use burn_lens_testkit::{Golden, Tolerance, assert_close, device, fixture, float_types};
use serde_json::{Value, json};

use super::{load, splice::spliced};
use crate::common::{Random, extract, model, options, prompts};

const NAME: &str = "sae-splice-head";
const Z: HookPoint = HookPoint::AttnZ(1);

fn golden() -> Golden {
    Golden::open(fixture("sae-splice").join("cases.safetensors"))
}

/// The rows of one head, `[batch, pos, head, width]`.
fn head(data: &TensorData, head: usize) -> Vec<f64> {
    let (n_heads, width) = (data.shape()[2], data.shape()[3]);
    let values: Vec<f64> = data.iter().collect();
    values.chunks(width).skip(head).step_by(n_heads).flatten().copied().collect()
}

#[test]
fn one_head_is_replaced_as_sae_lens_evaluates_it() {
    for dtype in float_types() {
        let (model, golden) = (model("tl-ln", dtype), golden());
        let input = Input::Tokens(golden.ints("tokens", &device()));
        for error_term in [false, true] {
            let mut sae = spliced(NAME, dtype);
            sae.use_error_term = error_term;
            let options = RunOptions::default();
            let clean = model.run_with_cache(&input, &options, &CacheOptions::default()).unwrap();
            let cache = CacheOptions::default();
            let (output, cache) = model.run_with_cache_with_saes(&input, &options, &[sae], &cache).unwrap();
            let get = |name: &str| cache.get(name).unwrap().into_data().unwrap();
            let logits = output.into_logits().unwrap().into_data();
            let (z, spliced) = (get("blocks.1.attn.hook_z"), get("blocks.1.attn.hook_z.hook_sae_output"));
            assert_eq!(head(&z, 0), head(&spliced, 0), "the other head");
            if error_term {
                assert_eq!(logits, clean.0.into_logits().unwrap().into_data(), "bit for bit");
                assert_eq!(z, spliced);
                let error = get("blocks.1.attn.hook_z.hook_sae_error");
                assert!(
                    head(&error, 0).iter().all(|&x| x == 0.0) && head(&error, 1).iter().any(|&x| x != 0.0)
                );
            } else {
                let tolerance = Tolerance(Tolerance::of(dtype).0.max(1e-9));
                assert_close("logits", &logits, golden.get("one-head/logits"), tolerance);
                assert_ne!(head(&z, 1), head(&spliced, 1));
            }
        }
    }
}

#[test]
fn an_edit_of_its_features_reaches_its_head_alone() {
    let model = model("tl-ln", FloatType::F64);
    let input = Input::Tokens(golden().ints("tokens", &device()));
    let sae = spliced(NAME, FloatType::F64).with_error_term();
    let direction = sae.sae.directions().narrow(0, 3, 1).into_data();
    let mut hooks = sae_hooks(&model, &[sae]).unwrap();
    hooks.push(Hook::edit("*.hook_sae_acts_post", |acts: Tensor<3>, _: &mut HookContext<'_>| {
        let [batch, pos, _] = acts.dims();
        let part = acts.clone().narrow(2, 3, 1) + 2.0;
        acts.slice_assign([0..batch, 0..pos, 3..4], part)
    }));
    let names = CacheOptions::names(["blocks.1.attn.hook_z", "blocks.1.attn.hook_z.hook_sae_output"]);
    let (_, cache) = model.run(&input, &RunOptions::default(), hooks, &names).unwrap();
    let get = |name: &str| cache.get(name).unwrap().into_data().unwrap();
    let (before, after) = (get("blocks.1.attn.hook_z"), get("blocks.1.attn.hook_z.hook_sae_output"));
    assert_eq!(head(&before, 0), head(&after, 0));
    // A layer norm of its input is undone: the direction is stretched by each vector's deviation.
    let direction: Vec<f64> = direction.iter().collect();
    for (before, after) in head(&before, 1).chunks(4).zip(head(&after, 1).chunks(4)) {
        let mean = before.iter().sum::<f64>() / 4.0;
        let std = (before.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 3.0).sqrt();
        for (at, direction) in direction.iter().enumerate() {
            assert!((after[at] - before[at] - 2.0 * std * direction).abs() < 1e-12);
        }
    }
}

/// A random dictionary of `d_in` entries, those outside `range` without weight.
fn dictionary(metadata: &Value, d_in: usize, range: std::ops::Range<usize>) -> Box<dyn SparseAutoencoder> {
    const FEATURES: usize = 6;
    let mut random = Random(7);
    let width = range.len();
    let (w_enc, w_dec) = (random.numbers(width * FEATURES), random.numbers(width * FEATURES));
    let (b_enc, b_dec) = (random.numbers(FEATURES), random.numbers(width));
    let mut wide = BTreeMap::from([
        ("W_enc".to_owned(), (vec![0.0; d_in * FEATURES], vec![d_in, FEATURES])),
        ("W_dec".to_owned(), (vec![0.0; d_in * FEATURES], vec![FEATURES, d_in])),
        ("b_enc".to_owned(), (b_enc, vec![FEATURES])),
        ("b_dec".to_owned(), (vec![0.0; d_in], vec![d_in])),
    ]);
    for at in 0..width {
        wide.get_mut("b_dec").unwrap().0[range.start + at] = b_dec[at];
        for feature in 0..FEATURES {
            wide.get_mut("W_enc").unwrap().0[(range.start + at) * FEATURES + feature] =
                w_enc[at * FEATURES + feature];
            wide.get_mut("W_dec").unwrap().0[feature * d_in + range.start + at] = w_dec[feature * width + at];
        }
    }
    let config = json!({ "architecture": "standard", "d_in": d_in, "d_sae": FEATURES, "sae_lens_version": "6.0.0",
        "reshape_activations": if d_in == width { "none" } else { "hook_z" }, "metadata": metadata });
    let tensors = wide.into_iter().map(|(name, (values, shape))| (name, TensorData::new(values, shape)));
    let mut weights = MemoryWeights::new(tensors);
    read_sae_lens(&config.to_string(), "one-head", &mut weights, &SaeOptions::on(&device())).unwrap()
}

#[test]
fn its_features_are_those_of_all_heads_without_weight_elsewhere() {
    let model = model("tl-ln", FloatType::F32);
    let one = dictionary(&json!({ "hook_name": Z.to_string(), "hook_head_index": 1 }), 4, 0..4);
    let all = dictionary(&json!({ "hook_name": Z.to_string() }), 8, 4..8);
    assert!(matches!(SaeFeatures::new(load(NAME, FloatType::F32)), Err(SaeError::Untold { .. })));
    let (one, all) = (SaeFeatures::in_model(one, &model).unwrap(), SaeFeatures::new(all).unwrap());
    assert_eq!((one.d_in(), one.n_features()), (all.d_in(), all.n_features()));
    let same = |one: Tensor<2>, all: Tensor<2>| assert_eq!(one.into_data(), all.into_data());
    same(one.directions(&[4, 0]).unwrap(), all.directions(&[4, 0]).unwrap());
    same(one.readers(&[4, 0]).unwrap().unwrap(), all.readers(&[4, 0]).unwrap().unwrap());
    let tokens = prompts(&model, 9, 8, 2);
    let (one, all) = (extract(&model, &one, &tokens, &options()), extract(&model, &all, &tokens, &options()));
    for (one, all) in one.features.iter().zip(&all.features) {
        assert_eq!(one.statistics.n_active, all.statistics.n_active);
        assert!((one.statistics.max - all.statistics.max).abs() < 1e-5);
        assert_eq!(one.decoder_head_shares, [0.0, 1.0]);
        let top = |data: &burn_lens_sae::features::FeatureData| data.logits.clone().unwrap().top;
        assert_eq!(top(one), top(all));
    }
}

#[test]
fn a_head_that_is_not_there_is_said() {
    let model = model("tl-ln", FloatType::F32);
    let at = |hook: &str, head: usize| {
        let metadata = json!({ "hook_name": hook, "hook_head_index": head });
        let sae = dictionary(&metadata, 4, 0..4);
        let features = SaeFeatures::in_model(dictionary(&metadata, 4, 0..4), &model).unwrap_err().to_string();
        let spliced = burn_lens_sae::SplicedSae::new(sae);
        let error = sae_hooks(&model, &[spliced]).unwrap_err().to_string();
        assert_eq!(error, features);
        error
    };
    let error = at("blocks.1.attn.hook_z", 2);
    assert!(error.contains("head 2 of `blocks.1.attn.hook_z`") && error.contains("heads 0 to 1"), "{error}");
    let error = at("blocks.1.hook_resid_post", 0);
    assert!(error.contains("head 0") && error.contains("no heads"), "{error}");
}
