//! The residual stream taken apart: parts sum to the whole in every layout, and slicing,
//! batches and projections commute with it.

use burn_lens::{
    analysis::{
        AnalysisError, Answers, AttributionOptions, Component, LensOptions, NeuronOptions, Normalize,
        ResidStack, Residuals, StackOptions, Sublayers, TunedLens, Unit, attribution_hooks,
        direct_logit_attribution, logit_lens,
    },
    hooks::{BlockLayout, ModelWeights, NormPlacement},
    models::{
        AttentionConfig, MlpBias, MlpConfig, MlpKind, NormConfig,
        components::{ActFn, Positions},
        random_parameters,
    },
    prelude::*,
    tensor::{MemoryWeights, NormKind},
};
use burn_lens_testkit::{Tolerance, assert_close, fixture, fixtures, float_types};
use proptest::prelude::*;

use crate::common::{cached, data, open};

/// Every kind of model that is kept with reference answers.
fn models() -> Vec<String> {
    let whole = |name: &str| {
        ["config.json", "golden.safetensors"].iter().all(|file| fixture(name).join(file).exists())
    };
    fixtures(|name| whole(name) && name != "tl-shortformer")
}

fn finest() -> FloatType {
    float_types().last().copied().unwrap()
}

/// Sums of many parts may cancel: ten times the tolerance of one activation.
fn tolerance(dtype: FloatType) -> Tolerance {
    Tolerance(10.0 * Tolerance::of(dtype).0)
}

/// Runs `check` with each model, its cache and its tokens.
fn each(dtype: FloatType, check: impl Fn(&str, &HookedTransformer, &ActivationCache, &Tensor<2, Int>)) {
    for name in models() {
        let (model, golden) = open(&name, dtype);
        let tokens = golden.ints("tokens", &model.device());
        check(&name, &model, &cached(&model, &tokens, &[]), &tokens);
    }
}

fn summed(stack: &ResidStack) -> burn::tensor::TensorData {
    stack.sum().into_data()
}

fn at(layer: isize) -> StackOptions {
    StackOptions::at(layer)
}

#[test]
fn parts_sum_to_the_stream_in_every_layout() {
    for dtype in float_types() {
        each(dtype, |name, model, cache, _| {
            let residuals = Residuals::new(model, cache).unwrap();
            let n_layers = model.config().n_layers;
            let streams = residuals.accumulated_resid(&at(-1), false).unwrap();
            for layer in 0..=n_layers {
                let whole = streams.values().narrow(0, layer, 1).squeeze_dim::<3>(0).into_data();
                let options = at(layer as isize);
                let check = |what: &str, stack: ResidStack| {
                    assert_close(
                        &format!("{name}, layer {layer}: {what}"),
                        &summed(&stack),
                        &whole,
                        tolerance(dtype),
                    );
                };
                check("decompose_resid", residuals.decompose_resid(&options, Sublayers::All, true).unwrap());
                for expand in [false, true] {
                    let full = residuals.get_full_resid_decomposition(&options, expand, None).unwrap();
                    check("full decomposition", full);
                }
                check("heads and remainder", residuals.stack_head_results(&options, true).unwrap());
                let neurons = NeuronOptions { incl_remainder: true, ..NeuronOptions::default() };
                check("neurons and remainder", residuals.stack_neuron_results(&options, &neurons).unwrap());
            }
        });
    }
}

#[test]
fn what_an_mlp_reads_sums_too() {
    each(finest(), |name, model, cache, _| {
        let residuals = Residuals::new(model, cache).unwrap();
        if model.config().mlp.is_none() {
            let error =
                residuals.decompose_resid(&StackOptions { mlp_input: true, ..at(0) }, Sublayers::All, true);
            assert!(error.unwrap_err().to_string().contains("no MLPs"), "{name}");
            return;
        }
        for layer in 0..model.config().n_layers {
            let options = StackOptions { mlp_input: true, ..at(layer as isize) };
            let point = match model.config().layout {
                BlockLayout::Sequential => HookPoint::ResidMid(layer),
                BlockLayout::Parallel => HookPoint::ResidPre(layer),
            };
            let whole = data(cache.get(point).unwrap());
            let parts = residuals.decompose_resid(&options, Sublayers::All, true).unwrap();
            assert_close(name, &summed(&parts), &whole, tolerance(finest()));
            let full = residuals.get_full_resid_decomposition(&options, true, None).unwrap();
            assert_close(name, &summed(&full), &whole, tolerance(finest()));
        }
    });
}

#[test]
fn normalized_parts_sum_to_what_is_read() {
    each(finest(), |name, model, cache, _| {
        let residuals = Residuals::new(model, cache).unwrap();
        let options = StackOptions { normalize: Normalize::Attribution, ..StackOptions::default() };
        let read = if model.config().norm.final_kind == NormKind::None {
            HookPoint::ResidPost(model.config().n_layers - 1)
        } else {
            HookPoint::LnFinalNormalized
        };
        let expected = data(cache.get(read).unwrap());
        let parts = residuals.decompose_resid(&options, Sublayers::All, true).unwrap();
        assert_close(name, &summed(&parts), &expected, tolerance(finest()));
        let full = residuals.get_full_resid_decomposition(&options, true, None).unwrap();
        assert_close(name, &summed(&full), &expected, tolerance(finest()));
        if model.config().norm.placement == NormPlacement::Post {
            let error =
                residuals.decompose_resid(&StackOptions { layer: Some(0), ..options }, Sublayers::All, true);
            assert!(error.unwrap_err().to_string().contains("without a norm"), "{name}");
        } else if model.config().norm.kind != NormKind::None {
            let expected = data(cache.get(HookPoint::Ln1Normalized(1)).unwrap());
            let parts =
                residuals.decompose_resid(&StackOptions { layer: Some(1), ..options }, Sublayers::All, true);
            assert_close(name, &summed(&parts.unwrap()), &expected, tolerance(finest()));
        }
    });
}

/// The last row through the final norm is what the model unembeds, weights and biases included.
#[test]
fn the_lens_ends_with_the_model() {
    each(finest(), |name, model, cache, tokens| {
        let residuals = Residuals::new(model, cache).unwrap();
        let options = StackOptions { normalize: Normalize::Lens, ..StackOptions::default() };
        let last = residuals.accumulated_resid(&options, false).unwrap();
        let last = last.values().narrow(0, last.len() - 1, 1).squeeze_dim::<3>(0);
        assert_close(
            name,
            &last.into_data(),
            &data(cache.get("unembed.hook_in").unwrap()),
            tolerance(finest()),
        );

        let lens = logit_lens(
            &residuals,
            &LensOptions { top_k: 1, targets: vec![2], ..LensOptions::default() },
            None,
        );
        let cells = lens.unwrap().cells;
        let logits = crate::common::logits(model, tokens);
        let d_vocab = model.config().d_vocab_out;
        let logits: Vec<f64> = logits.iter().collect();
        for (row, cell) in cells.last().unwrap().iter().flatten().enumerate() {
            let logits = &logits[row * d_vocab..][..d_vocab];
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert!((cell.top[0].logit - largest).abs() < 1e-6, "{name}: {cell:?}");
            assert!((cell.targets[0].logit - logits[2]).abs() < 1e-6, "{name}");
            let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
            assert!((cell.top[0].probability - 1.0 / sum).abs() < 1e-6, "{name}");
        }
    });
}

#[test]
fn attributions_sum_to_the_logit() {
    for dtype in float_types() {
        each(dtype, |name, model, cache, _| {
            let residuals = Residuals::new(model, cache).unwrap();
            let logits: Tensor<3> = cache.tensor("unembed.hook_out").unwrap();
            let column = |token: usize| logits.clone().narrow(2, token, 1).squeeze_dim::<2>(2);
            for by in [Unit::Component, Unit::Head, Unit::Neuron, Unit::Source] {
                for against in [None, Some(4)] {
                    let options = AttributionOptions {
                        answers: Answers::One(3),
                        against: against.map(Answers::One),
                        by,
                        pos_slice: Slice::All,
                    };
                    let attrs = direct_logit_attribution(&residuals, &options).unwrap();
                    let expected = match against {
                        None => column(3),
                        Some(token) => column(3) - column(token),
                    };
                    let what = format!("{name} by {by:?}, {against:?}");
                    assert_close(&what, &attrs.total().into_data(), &expected.into_data(), tolerance(dtype));
                    assert_eq!(attrs.components().len(), attrs.values().dims()[0], "{what}");
                }
            }
        });
    }
}

/// What is folded into directions equals what is pushed through the norms row by row.
#[test]
fn attribution_equals_logit_attrs_of_the_rows() {
    each(finest(), |name, model, cache, tokens| {
        let residuals = Residuals::new(model, cache).unwrap();
        let [batch, pos] = tokens.dims();
        let answers =
            Answers::EachPromptAndPos((0..batch).map(|b| (0..pos).map(|p| (b + p) % 5).collect()).collect());
        let full = residuals.get_full_resid_decomposition(&StackOptions::default(), true, None).unwrap();
        let rows = residuals
            .logit_attrs(&full, answers.clone(), Some(Answers::EachPos((0..pos).map(|p| p % 4).collect())))
            .unwrap();
        let labels = rows.labels();
        for by in [Unit::Head, Unit::Neuron] {
            let options = AttributionOptions {
                answers: answers.clone(),
                against: Some(Answers::EachPos((0..pos).map(|p| p % 4).collect())),
                by,
                pos_slice: Slice::All,
            };
            let attrs = direct_logit_attribution(&residuals, &options).unwrap();
            for (row, component) in attrs.components().iter().enumerate() {
                if !matches!(component, Component::Head(..) | Component::Neuron(..)) {
                    continue;
                }
                let other = labels.iter().position(|label| *label == component.to_string()).unwrap();
                let (found, expected) = (attrs.values().narrow(0, row, 1), rows.values().narrow(0, other, 1));
                assert_close(
                    &format!("{name} {component}"),
                    &found.into_data(),
                    &expected.into_data(),
                    Tolerance(1e-8),
                );
            }
        }
    });
}

#[test]
fn heads_and_their_bias_are_attention() {
    each(finest(), |name, model, cache, tokens| {
        let residuals = Residuals::new(model, cache).unwrap();
        let asked = cached(model, tokens, &["blocks.*.attn.hook_result"]);
        for layer in 0..model.config().n_layers {
            let results = residuals.head_results(layer).unwrap();
            let expected = data(asked.get(HookPoint::AttnResult(layer)).unwrap());
            assert_close(name, &results.into_data(), &expected, Tolerance::of(finest()));
        }
        let with_results = residuals.compute_head_results().unwrap();
        assert!(with_results.contains(HookPoint::AttnResult(0)));
        // The same stacks, whether from z or from the results.
        let residuals_2 = Residuals::new(model, &with_results).unwrap();
        let options = StackOptions { normalize: Normalize::Attribution, ..StackOptions::default() };
        let (a, b) =
            (residuals.stack_head_results(&options, true), residuals_2.stack_head_results(&options, true));
        assert_close(
            name,
            &b.unwrap().values().into_data(),
            &a.unwrap().values().into_data(),
            tolerance(finest()),
        );
    });
}

/// What was not kept is derived from what was.
#[test]
fn sublayers_follow_from_z_and_post() {
    each(finest(), |name, model, cache, tokens| {
        let names =
            ["hook_embed", "hook_pos_embed", "*hook_z", "*mlp.hook_post", "*hook_scale", "*resid_post"];
        let names: Vec<&str> = names
            .into_iter()
            .filter(|n| !n.contains("pos_embed") || cache.contains(HookPoint::PosEmbed))
            .collect();
        let names: Vec<&str> =
            names.into_iter().filter(|n| !n.contains("mlp") || model.config().mlp.is_some()).collect();
        let names: Vec<&str> = names
            .into_iter()
            .filter(|n| {
                !n.contains("scale") || cache.keys().any(|key| key.to_string().ends_with("hook_scale"))
            })
            .collect();
        let few = cached(model, tokens, &names);
        let (all, few) = (Residuals::new(model, cache).unwrap(), Residuals::new(model, &few).unwrap());
        let a = all.decompose_resid(&StackOptions::default(), Sublayers::All, true).unwrap();
        let b = few.decompose_resid(&StackOptions::default(), Sublayers::All, true).unwrap();
        assert_eq!(a.labels(), b.labels());
        assert_close(name, &b.values().into_data(), &a.values().into_data(), tolerance(finest()));
    });
}

/// Slicing and computing commute, for every method.
#[test]
fn slicing_then_computing_is_computing_then_slicing() {
    let slices = [Slice::Index(-1), Slice::range(1, 4), Slice::List(vec![0, 3, 1])];
    for name in ["gpt2", "gemma2", "tl-parallel", "tl-solu-ln"] {
        let (model, golden) = open(name, finest());
        let tokens = golden.ints("tokens", &model.device());
        let cache = cached(&model, &tokens, &[]);
        let residuals = Residuals::new(&model, &cache).unwrap();
        for slice in &slices {
            for normalize in [Normalize::None, Normalize::Attribution] {
                let options =
                    |pos_slice: &Slice| StackOptions { pos_slice: pos_slice.clone(), normalize, ..at(-1) };
                let check = |what: &str, of: &dyn Fn(&StackOptions) -> ResidStack| {
                    let (cut, whole) = (of(&options(slice)), of(&options(&Slice::All)));
                    let expected = AnyTensor::from(whole.values()).slice_axis(2, slice).unwrap();
                    let what = format!("{name} {what} {slice} {normalize:?}");
                    assert_close(&what, &cut.values().into_data(), &data(&expected), Tolerance::of(finest()));
                    let rank = if slice.is_index() { 3 } else { 4 };
                    assert_eq!(cut.into_any().rank(), rank, "{what}");
                };
                check("accumulated", &|o| residuals.accumulated_resid(o, false).unwrap());
                check("decomposed", &|o| residuals.decompose_resid(o, Sublayers::All, true).unwrap());
                check("heads", &|o| residuals.stack_head_results(o, true).unwrap());
                check("neurons", &|o| residuals.stack_neuron_results(o, &NeuronOptions::default()).unwrap());
                check("full", &|o| residuals.get_full_resid_decomposition(o, true, None).unwrap());
            }
        }
    }
}

#[test]
fn batch_removal_changes_nothing_else() {
    let (model, golden) = open("gpt2", finest());
    let tokens = golden.ints("tokens", &model.device()).narrow(0, 0, 1);
    let with = cached(&model, &tokens, &[]);
    let without = with.clone().remove_batch_dim().unwrap();
    let (with, without) = (Residuals::new(&model, &with).unwrap(), Residuals::new(&model, &without).unwrap());
    let options = StackOptions { normalize: Normalize::Attribution, ..at(-1) };
    let (a, b) = (
        with.stack_head_results(&options, true).unwrap(),
        without.stack_head_results(&options, true).unwrap(),
    );
    assert_eq!(a.values().into_data(), b.values().into_data());
    assert_eq!((a.into_any().rank(), b.into_any().rank()), (4, 3));
    let parts = without.decompose_resid(&at(-1), Sublayers::All, true).unwrap();
    let attrs = without.logit_attrs(&parts, 3, None).unwrap();
    assert_eq!(attrs.into_any().rank(), 2);
}

/// Projecting while computing is computing, then projecting.
#[test]
fn projection_commutes() {
    for name in ["gpt2", "gemma2", "tl-attn-only"] {
        let (model, golden) = open(name, finest());
        let tokens = golden.ints("tokens", &model.device());
        let cache = cached(&model, &tokens, &[]);
        let residuals = Residuals::new(&model, &cache).unwrap();
        let onto = model.weight::<2>(Param::WU).unwrap().narrow(1, 2, 3);
        for normalize in [Normalize::None, Normalize::Attribution, Normalize::Lens] {
            let options = StackOptions { normalize, ..at(-1) };
            let projected = residuals.get_full_resid_decomposition(&options, true, Some(&onto)).unwrap();
            let whole = residuals.get_full_resid_decomposition(&options, true, None).unwrap();
            let expected = whole.values().matmul(onto.clone().unsqueeze());
            let what = format!("{name} {normalize:?}");
            assert_close(&what, &projected.values().into_data(), &expected.into_data(), Tolerance(1e-8));
            let error = residuals.logit_attrs(&projected, 0, None).unwrap_err().to_string();
            assert!(
                error.contains("went through a norm") || error.contains("not of the residual stream"),
                "{error}"
            );
        }
    }
}

#[test]
fn batch_slices_go_with_their_scales() {
    let (model, golden) = open("gpt2", finest());
    let tokens = golden.ints("tokens", &model.device());
    let cache = cached(&model, &tokens, &[]);
    let residuals = Residuals::new(&model, &cache).unwrap();
    let parts = residuals.decompose_resid(&at(-1), Sublayers::All, true).unwrap();
    let whole = residuals.logit_attrs(&parts, 3, None).unwrap().values();
    let second = parts.slice_batch(&Slice::Index(1)).unwrap();
    let attrs = residuals.logit_attrs(&second, 3, None).unwrap();
    assert_eq!(attrs.clone().into_any().rank(), 2);
    assert_close(
        "second prompt",
        &attrs.values().into_data(),
        &whole.narrow(1, 1, 1).into_data(),
        Tolerance(1e-12),
    );
}

#[test]
fn answers_name_their_axes() {
    let (model, golden) = open("gpt2", finest());
    let tokens = golden.ints("tokens", &model.device());
    let [batch, pos] = tokens.dims();
    let cache = cached(&model, &tokens, &[]);
    let residuals = Residuals::new(&model, &cache).unwrap();
    let parts = residuals.decompose_resid(&at(-1), Sublayers::All, true).unwrap();
    let of = |answers: Answers| residuals.logit_attrs(&parts, answers, None);
    let each = of(Answers::EachPrompt((0..batch).collect())).unwrap().values();
    for row in 0..batch {
        let one = of(Answers::One(row)).unwrap().values();
        let (found, expected) = (each.clone().narrow(1, row, 1), one.narrow(1, row, 1));
        assert_close("one for each prompt", &found.into_data(), &expected.into_data(), Tolerance(1e-12));
    }
    let each = of(Answers::EachPos((0..pos).collect())).unwrap().values();
    for at in 0..pos {
        let one = of(Answers::One(at)).unwrap().values();
        let (found, expected) = (each.clone().narrow(2, at, 1), one.narrow(2, at, 1));
        assert_close("one for each position", &found.into_data(), &expected.into_data(), Tolerance(1e-12));
    }
    for wrong in [
        Answers::EachPrompt(vec![0; batch + 1]),
        Answers::EachPos(vec![0; pos + 1]),
        Answers::EachPromptAndPos(vec![vec![0; pos]; batch + 1]),
    ] {
        assert!(matches!(of(wrong), Err(AnalysisError::Shape { .. })));
    }
    assert!(matches!(of(Answers::One(1_000_000)), Err(AnalysisError::Token { .. })));
}

/// Nothing is dropped in silence: what is missing is listed.
#[test]
fn missing_activations_are_named() {
    let (model, golden) = open("gpt2", FloatType::F32);
    let tokens = golden.ints("tokens", &model.device());
    let cache = cached(&model, &tokens, &["hook_embed", "*attn_out", "*resid_post"]);
    let residuals = Residuals::new(&model, &cache).unwrap();
    let error = residuals.decompose_resid(&at(-1), Sublayers::All, true).unwrap_err().to_string();
    assert!(error.contains("`hook_pos_embed`") && error.contains("`blocks.0.hook_mlp_out`"), "{error}");
    let error = residuals.stack_head_results(&at(-1), false).unwrap_err().to_string();
    assert!(error.contains("`blocks.0.attn.hook_z`"), "{error}");
    let options = StackOptions { normalize: Normalize::Attribution, ..at(-1) };
    let error = residuals.accumulated_resid(&options, false).unwrap_err().to_string();
    assert!(error.contains("`blocks.0.hook_resid_pre`"), "{error}");
    let options =
        AttributionOptions { answers: 1.into(), against: None, by: Unit::Head, pos_slice: Slice::All };
    let error = direct_logit_attribution(&residuals, &options).unwrap_err().to_string();
    assert!(error.contains("`blocks.0.attn.hook_z`"), "{error}");
    // What it asks for is enough.
    for by in [Unit::Component, Unit::Head, Unit::Neuron, Unit::Source] {
        let names: Vec<String> = attribution_hooks(&model, by).iter().map(ToString::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let cache = cached(&model, &tokens, &names);
        let residuals = Residuals::new(&model, &cache).unwrap();
        direct_logit_attribution(&residuals, &AttributionOptions { by, ..options.clone() }).unwrap();
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (model, golden) = open("gptj", FloatType::F32);
    let tokens = golden.ints("tokens", &model.device());
    let cache = cached(&model, &tokens, &[]);
    let residuals = Residuals::new(&model, &cache).unwrap();
    let n_layers = model.config().n_layers as isize;
    for layer in [n_layers + 1, -2] {
        assert!(matches!(residuals.accumulated_resid(&at(layer), false), Err(AnalysisError::Layer { .. })));
    }
    let refused = |result: Result<ResidStack, AnalysisError>| result.unwrap_err().to_string();
    assert!(refused(residuals.accumulated_resid(&at(-1), true)).contains("no stream lies between"));
    let options = StackOptions { mlp_input: true, ..at(-1) };
    assert!(refused(residuals.stack_head_results(&options, false)).contains("there is no block"));
    assert!(refused(residuals.stack_head_results(&at(0), false)).contains("empty"));
    // With a remainder, layer 0 is the embedding itself.
    let remainder = residuals.stack_head_results(&at(0), true).unwrap();
    assert_eq!(remainder.labels(), ["remainder"]);
    assert_eq!(remainder.sum().into_data(), data(cache.get(HookPoint::ResidPre(0)).unwrap()));
    let parts = residuals.decompose_resid(&at(-1), Sublayers::Mlp, false).unwrap();
    assert_eq!(parts.labels()[0], "0_mlp_out");
    let twice = residuals.apply_ln_to_stack(&parts, -1, false, Normalize::Attribution).unwrap();
    assert!(
        refused(residuals.apply_ln_to_stack(&twice, -1, false, Normalize::Attribution)).contains("already")
    );
}

/// A model of a random configuration with random weights.
fn random_model(choice: [usize; 8], seed: u64) -> HookedTransformer {
    let [n_layers, kv, group, layout, placement, norm, mlp, positions] = choice;
    let kinds = [NormKind::Layer, NormKind::Rms, NormKind::None];
    let config = ModelConfig {
        architecture: "HookedTransformer".to_owned(),
        n_layers,
        d_model: 12,
        n_ctx: 8,
        d_vocab: 11,
        attention: AttentionConfig {
            n_kv_heads: kv,
            qkv_bias: seed.is_multiple_of(2),
            out_bias: seed.is_multiple_of(3),
            ..AttentionConfig::plain(kv * group, 5, n_layers)
        },
        mlp: (mlp > 0).then(|| MlpConfig {
            d_mlp: 9,
            act_fn: ActFn::GeluTanh,
            kind: if mlp == 1 { MlpKind::Plain } else { MlpKind::Gated },
            bias: MlpBias::projections(seed.is_multiple_of(2)),
        }),
        norm: NormConfig::plain(
            kinds[norm],
            1e-5,
            [NormPlacement::Pre, NormPlacement::Post, NormPlacement::Both][placement],
        ),
        positions: [Positions::None, Positions::Learned, Positions::Alibi][positions].clone(),
        layout: [BlockLayout::Sequential, BlockLayout::Parallel][layout],
        ..open("tl-ln", finest()).0.config().clone()
    };
    let config = ModelConfig { d_vocab_out: config.d_vocab, ..config };
    let params = random_parameters(&config, seed, &burn_lens_testkit::device(), finest());
    // Biases and norm weights that are not 0 and 1.
    let shifted = params.map(|param, tensor| match tensor {
        AnyTensor::Float1(x) => {
            let at = param.to_string().len() as f64;
            let wave: Vec<f64> = (0..x.dims()[0]).map(|i| 0.3 * (at + 1.7 * i as f64).sin()).collect();
            let wave = burn::tensor::TensorData::new(wave, [x.dims()[0]]);
            AnyTensor::Float1(x.clone() + Tensor::from_data(wave, (&x.device(), x.dtype())))
        }
        tensor => tensor,
    });
    HookedTransformer::new(config, shifted).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parts_sum_in_random_models(
        choice in (1usize..4, 1usize..3, 1usize..3, 0usize..2, 0usize..3, 0usize..3, 0usize..3, 0usize..3),
        seed in 0u64..1000,
        slice in prop::sample::select(vec![Slice::All, Slice::Index(-1), Slice::range(1, 4), Slice::List(vec![4, 0])]),
    ) {
        let (a, b, c, d, e, f, g, h) = choice;
        let model = random_model([a, b, c, d, e, f, g, h], seed);
        let tokens = Tensor::<2, Int>::from_data([[1, 5, 3, 9, 0], [4, 4, 10, 2, 7]], &model.device());
        let cache = cached(&model, &tokens, &[]);
        let residuals = Residuals::new(&model, &cache).unwrap();
        let options = StackOptions { pos_slice: slice.clone(), ..StackOptions::default() };
        let streams = residuals.accumulated_resid(&options, false).unwrap();
        let whole = streams.values().narrow(0, streams.len() - 1, 1).squeeze_dim::<3>(0).into_data();
        let parts = residuals.decompose_resid(&options, Sublayers::All, true).unwrap();
        assert_close("decomposed", &summed(&parts), &whole, tolerance(finest()));
        let full = residuals.get_full_resid_decomposition(&options, true, None).unwrap();
        assert_close("full", &summed(&full), &whole, tolerance(finest()));
        let logits = AnyTensor::from(cache.tensor::<Tensor<3>>("unembed.hook_out").unwrap());
        let logits: Tensor<3> = logits.slice_axis(1, &slice).unwrap().try_into().unwrap();
        let expected = logits.clone().narrow(2, 3, 1).squeeze_dim::<2>(2);
        for by in [Unit::Component, Unit::Head, Unit::Neuron, Unit::Source] {
            let options =
                AttributionOptions { answers: 3.into(), against: None, by, pos_slice: slice.clone() };
            let attrs = direct_logit_attribution(&residuals, &options).unwrap();
            let what = format!("{choice:?} {seed} by {by:?}");
            assert_close(&what, &attrs.total().into_data(), &expected.clone().into_data(), tolerance(finest()));
        }
    }
}

/// Two embeddings summed and unembedded: a model of a user's own.
struct Bigram {
    w_e: Tensor<2>,
    w_u: Tensor<2>,
}

impl HookedModel for Bigram {
    fn dims(&self) -> burn_lens::hooks::ModelDims {
        let [d_vocab, d_model] = self.w_e.dims();
        burn_lens::hooks::ModelDims {
            d_model,
            d_vocab,
            d_vocab_out: d_vocab,
            n_layers: 1,
            ..Default::default()
        }
    }

    fn firing(&self) -> burn_lens::hooks::Firing {
        let always =
            vec![HookPoint::Embed, HookPoint::ResidPre(0), HookPoint::MlpOut(0), HookPoint::ResidPost(0)];
        burn_lens::hooks::Firing { always, ..Default::default() }
    }

    fn device(&self) -> Device {
        self.w_e.device()
    }

    fn param(&self, param: Param) -> Option<AnyTensor> {
        (param == Param::WU).then(|| self.w_u.clone().into())
    }

    fn wiring(&self) -> Option<burn_lens::hooks::Wiring> {
        Some(burn_lens::hooks::Wiring {
            layout: BlockLayout::Sequential,
            placement: NormPlacement::Pre,
            norm: NormKind::None,
            final_norm: NormKind::None,
            eps: 0.0,
            causal: true,
            clip_qkv: None,
            logits_soft_cap: None,
        })
    }

    fn forward(
        &self,
        input: &Input,
        _: &RunOptions,
        hooks: &mut burn_lens::hooks::Hooks<'_>,
    ) -> Result<burn_lens::hooks::Output, burn_lens::hooks::RunError> {
        let Input::Embeds(x) = input else { unreachable!() };
        let x = hooks.at(HookPoint::Embed, x.clone());
        let x = hooks.at(HookPoint::ResidPre(0), x);
        let mlp = hooks.at(HookPoint::MlpOut(0), x.clone() * 0.5);
        let x = hooks.at(HookPoint::ResidPost(0), x + mlp);
        Ok(burn_lens::hooks::Output {
            logits: Some(x.matmul(self.w_u.clone().unsqueeze())),
            ..Default::default()
        })
    }
}

/// Nothing here needs our own transformer.
#[test]
fn a_model_of_a_users_own_is_taken_apart() {
    let device = burn_lens_testkit::device();
    let model = Bigram {
        w_e: Tensor::from_data([[1.0, 2.0], [3.0, -1.0]], &device),
        w_u: Tensor::from_data([[1.0, 0.0], [0.5, 2.0]], &device),
    };
    let input = Input::Embeds(Tensor::from_data([[[1.0, 2.0], [3.0, -1.0]]], &device));
    let (output, cache) =
        model.run_with_cache(&input, &RunOptions::default(), &CacheOptions::default()).unwrap();
    let residuals = Residuals::new(&model, &cache).unwrap();
    let mlp = residuals.decompose_resid(&StackOptions::default(), Sublayers::All, true).unwrap();
    assert_eq!(mlp.labels(), ["embed", "0_mlp_out"]);
    let attrs = residuals.logit_attrs(&mlp, 1, None).unwrap();
    let logits = output.into_logits().unwrap().narrow(2, 1, 1).squeeze_dim::<2>(2);
    assert_close("a user's model", &attrs.total().into_data(), &logits.into_data(), Tolerance::F32);
}

/// A tuned lens maps each stream before the final norm; the last stream is the model's own.
#[test]
fn a_tuned_lens_is_an_affine_map_for_each_layer() {
    let (model, golden) = open("gpt2", finest());
    let tokens = golden.ints("tokens", &model.device());
    let cache = cached(&model, &tokens, &[]);
    let residuals = Residuals::new(&model, &cache).unwrap();
    let (n_layers, d_model) = (model.config().n_layers, model.config().d_model);
    let wave = |count: usize, at: f64| -> Vec<f64> {
        (0..count).map(|i| 0.1 * (at + 0.37 * i as f64).sin()).collect()
    };
    let mut tensors = std::collections::BTreeMap::new();
    for layer in 0..n_layers {
        let (w, b) = (wave(d_model * d_model, layer as f64), wave(d_model, -1.0 - layer as f64));
        tensors.insert(format!("{layer}.weight"), burn::tensor::TensorData::new(w, [d_model, d_model]));
        tensors.insert(format!("{layer}.bias"), burn::tensor::TensorData::new(b, [d_model]));
    }
    let mut weights = MemoryWeights::new(tensors.clone());
    let tuned = TunedLens::load(&model, &mut weights).unwrap();
    let options = LensOptions { top_k: 1, targets: vec![3], ..LensOptions::default() };
    let lens = logit_lens(&residuals, &options, Some(&tuned)).unwrap();
    let plain = logit_lens(&residuals, &options, None).unwrap();
    assert_eq!(lens.cells.last(), plain.cells.last());

    // The first stream by hand: x + W x + b, then the model from the last layer on.
    let x: Tensor<3> = cache.tensor("blocks.0.hook_resid_pre").unwrap();
    let (device, dtype) = (x.device(), x.dtype());
    let w = Tensor::<2>::from_data(tensors["0.weight"].clone(), (&device, dtype));
    let b = Tensor::<1>::from_data(tensors["0.bias"].clone(), (&device, dtype));
    let mapped = x.clone() + x.matmul(w.transpose().unsqueeze()) + b.unsqueeze();
    let options = RunOptions { start_at_layer: Some(n_layers as isize), ..RunOptions::default() };
    let output = model.run_with_hooks(&Input::Resid(mapped), &options, vec![]).unwrap();
    let expected: Vec<f64> = output.into_logits().unwrap().narrow(2, 3, 1).into_data().iter().collect();
    let found: Vec<f64> = lens.cells[0].iter().flatten().map(|cell| cell.targets[0].logit).collect();
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-8, "{found} against {expected}");
    }

    tensors.remove("1.bias");
    let error = TunedLens::load(&model, &mut MemoryWeights::new(tensors)).unwrap_err();
    assert!(error.to_string().contains("`1.bias`"), "{error}");
}
