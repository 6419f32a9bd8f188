//! The residual stream taken apart: parts sum to the whole in every layout, and slicing,
//! batches and projections commute with it.

use burn_lens::{
    analysis::{
        AnalysisError, Answers, AttributionOptions, Component, LensOptions, NeuronOptions, Normalize,
        ResidStack, Residuals, StackOptions, Sublayers, Unit, attribution_hooks, direct_logit_attribution,
        logit_lens,
    },
    hooks::{BlockLayout, ModelWeights, NormPlacement},
    prelude::*,
    tensor::NormKind,
};
use burn_lens_testkit::{Tolerance, assert_close, finest, float_types};

use crate::common::{cached, data, open, whole_models};

/// Sums of many parts may cancel: ten times the tolerance of one activation.
fn tolerance(dtype: FloatType) -> Tolerance {
    Tolerance(10.0 * Tolerance::of(dtype).0)
}

/// Runs `check` with each model, its cache and its tokens.
fn each(dtype: FloatType, check: impl Fn(&str, &HookedTransformer, &ActivationCache, &Tensor<2, Int>)) {
    for name in whole_models() {
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
            .logit_attrs(&full, answers.clone(), Some(&Answers::EachPos((0..pos).map(|p| p % 4).collect())))
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
                    Tolerance::finest(1e-8),
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
            assert_close(
                &what,
                &projected.values().into_data(),
                &expected.into_data(),
                Tolerance::finest(1e-8),
            );
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
        Tolerance::finest(1e-12),
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
        assert_close(
            "one for each prompt",
            &found.into_data(),
            &expected.into_data(),
            Tolerance::finest(1e-12),
        );
    }
    let each = of(Answers::EachPos((0..pos).collect())).unwrap().values();
    for at in 0..pos {
        let one = of(Answers::One(at)).unwrap().values();
        let (found, expected) = (each.clone().narrow(2, at, 1), one.narrow(2, at, 1));
        assert_close(
            "one for each position",
            &found.into_data(),
            &expected.into_data(),
            Tolerance::finest(1e-12),
        );
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
