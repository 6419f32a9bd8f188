//! How hooks and caches behave.

use burn_lens::{hooks::RunError, prelude::*, tensor::kernels};

use crate::common::{cached, data, logits, open, run};

fn setup() -> (HookedTransformer, Tensor<2, Int>) {
    let (model, golden) = open("tl-ln", FloatType::F32);
    let tokens = golden.ints("tokens", &model.device());
    (model, tokens)
}

fn add(at: &str, value: f64) -> Hook<'static> {
    Hook::edit(at, move |x: Tensor<3>, _: &mut HookContext| x + value)
}

#[test]
fn hooks_run_in_order_and_prepended_ones_first() {
    let (model, tokens) = setup();
    let log = std::sync::Mutex::new(Vec::new());
    let note = |name: &'static str| {
        let log = &log;
        Hook::read("resid_pre0", move |_: &Tensor<3>, _: &mut HookContext| log.lock().unwrap().push(name))
    };
    run(&model, &tokens, vec![note("a"), note("b"), note("c").prepend()]);
    assert_eq!(*log.lock().unwrap(), ["c", "a", "b"]);
}

#[test]
fn edits_apply_and_the_cache_keeps_what_came_out() {
    let (model, tokens) = setup();
    let plain = cached(&model, &tokens, &["hook_embed"]);
    let options = CacheOptions::names(["hook_embed"]);
    let input = Input::from(&tokens);
    let (_, cache) =
        model.run(&input, &RunOptions::default(), vec![add("hook_embed", 1.0)], &options).unwrap();
    let before: Tensor<3> = plain.tensor("hook_embed").unwrap();
    let after: Tensor<3> = cache.tensor("hook_embed").unwrap();
    assert_eq!((before + 1.0).into_data(), after.into_data());
}

#[test]
fn cached_values_are_immune_to_later_edits() {
    let (model, tokens) = setup();
    // The same tensor flows on from hook_embed to here; editing it must not reach back.
    let plain = data(cached(&model, &tokens, &["resid_pre0"]).get("resid_pre0").unwrap());
    let options = CacheOptions::names(["resid_pre0"]);
    let hooks = vec![add("blocks.0.hook_attn_out", 5.0), add("blocks.0.hook_resid_mid", 5.0)];
    let (_, cache) = model.run(&(&tokens).into(), &RunOptions::default(), hooks, &options).unwrap();
    assert_eq!(data(cache.get("resid_pre0").unwrap()), plain);
}

#[test]
fn hooks_live_for_the_call_the_scope_or_until_removed() {
    let (model, tokens) = setup();
    let plain = logits(&model, &tokens);
    let edited = run(&model, &tokens, vec![add("hook_embed", 1.0)]);
    assert_ne!(edited, plain);
    assert_eq!(logits(&model, &tokens), plain, "a hook outlived its call");
    {
        let _scope = model.hook_scope(vec![add("hook_embed", 1.0)]).unwrap();
        assert_eq!(logits(&model, &tokens), edited);
        {
            let _inner = model.hook_scope(vec![add("hook_embed", -1.0)]).unwrap();
            assert_eq!(model.registry().unwrap().len(), 2);
        }
        assert_eq!(logits(&model, &tokens), edited, "an inner scope took the outer one's hooks along");
    }
    assert_eq!(logits(&model, &tokens), plain);

    let id = model.add_hook(add("hook_embed", 1.0)).unwrap();
    let permanent = model.add_perma_hook(add("blocks.0.hook_resid_mid", 0.5)).unwrap();
    assert!(model.registry().unwrap().remove(id));
    assert!(!model.registry().unwrap().remove(id));
    model.reset_hooks(false);
    assert_eq!(model.registry().unwrap().len(), 1, "reset_hooks took a permanent hook");
    model.reset_hooks(true);
    assert!(!model.registry().unwrap().remove(permanent));
    assert_eq!(logits(&model, &tokens), plain);
}

#[test]
fn nothing_leaks_after_an_error() {
    let (model, tokens) = setup();
    let plain = logits(&model, &tokens);
    let fails = Hook::try_edit("blocks.0.hook_resid_mid", |_: Tensor<3>, _: &mut HookContext| {
        Err::<Option<_>, _>("no")
    });
    let error =
        model.run_with_hooks(&(&tokens).into(), &RunOptions::default(), vec![add("hook_embed", 1.0), fails]);
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), "hook at `blocks.0.hook_resid_mid` failed: no");
    assert!(model.registry().unwrap().is_empty());
    assert_eq!(logits(&model, &tokens), plain);
}

#[test]
fn replacements_of_another_shape_dtype_or_rank_are_errors() {
    let (model, tokens) = setup();
    let fails = |hook: Hook<'_>| -> RunError {
        model.run_with_hooks(&(&tokens).into(), &RunOptions::default(), vec![hook]).unwrap_err()
    };
    let shape = fails(Hook::edit("hook_embed", |x: Tensor<3>, _: &mut HookContext| x.narrow(1, 0, 1)));
    assert!(matches!(shape, RunError::HookShape { point: HookPoint::Embed, .. }), "{shape}");
    let dtype =
        fails(Hook::edit("hook_embed", |x: Tensor<3>, _: &mut HookContext| x.cast(burn::tensor::DType::F64)));
    assert!(matches!(dtype, RunError::HookDtype { point: HookPoint::Embed, .. }), "{dtype}");
    let rank = fails(Hook::edit("hook_embed", |x: Tensor<4>, _: &mut HookContext| x));
    assert!(rank.to_string().contains("`hook_embed`: expected a float tensor of rank 4"), "{rank}");
}

#[test]
fn names_that_cannot_fire_are_errors_never_silence() {
    let (model, tokens) = setup();
    let fails = |at: &str| -> RunError {
        let hook = Hook::read(at, |_: &AnyTensor, _: &mut HookContext| {});
        let error = model.run_with_hooks(&(&tokens).into(), &RunOptions::default(), vec![hook]).unwrap_err();
        let options = CacheOptions::names([at]);
        assert!(model.run_with_cache(&(&tokens).into(), &RunOptions::default(), &options).is_err());
        assert!(model.hook_scope(vec![Hook::read(at, |_: &AnyTensor, _: &mut HookContext| {})]).is_err());
        error
    };
    let misspelt = fails("blocks.0.attn.hook_patern").to_string();
    assert!(misspelt.contains("did you mean blocks.0.attn.hook_pattern"), "{misspelt}");
    let rotary = fails("blocks.0.attn.hook_rot_q");
    assert!(matches!(rotary, RunError::CannotFire { .. }), "{rotary}");
    let beyond = fails("blocks.2.hook_resid_pre").to_string();
    assert!(beyond.contains("has 2 layers"), "{beyond}");
    assert!(matches!(fails("blocks.*.hook_nothing"), RunError::NoMatch { .. }));
    assert!(matches!(fails("blocks.[.hook"), RunError::Pattern { .. }));
    let stop = RunOptions { stop_at_layer: Some(1), ..RunOptions::default() };
    for at in ["blocks.1.hook_resid_pre", "unembed.hook_in"] {
        let unreached =
            model.run_with_cache(&(&tokens).into(), &stop, &CacheOptions::names([at])).unwrap_err();
        assert!(unreached.to_string().contains("does not reach"), "{unreached}");
    }
    let (gqa, golden) = open("tl-rms-gqa", FloatType::F32);
    let options = CacheOptions::names(["blocks.0.hook_attn_in"]);
    let tokens = golden.ints("tokens", &gqa.device());
    let error = gqa.run_with_cache(&(&tokens).into(), &RunOptions::default(), &options).unwrap_err();
    assert!(matches!(error, RunError::CannotFire { .. }), "{error}");
}

#[test]
fn globs_and_predicates_leave_optional_hooks_alone_unless_spelt_out() {
    let (model, tokens) = setup();
    let names = |pattern: &str| -> Vec<String> {
        cached(&model, &tokens, &[pattern]).keys().map(|point| point.to_string()).collect()
    };
    assert_eq!(names("blocks.*.attn.hook_result").len(), 2);
    assert_eq!(names("blocks.*.hook_?_input").len(), 6);
    assert!(names("blocks.*").iter().all(|name| !name.contains("hook_result") && !name.contains("_input")));
    assert_eq!(names("blocks.{0,1}.hook_resid_p*").len(), 4);
    let predicate = Selector::matching(|point| matches!(point, HookPoint::AttnZ(_)));
    let options = CacheOptions::names([predicate]);
    let cache = model.run_with_cache(&(&tokens).into(), &RunOptions::default(), &options).unwrap().1;
    assert_eq!(cache.len(), 2);
}

#[test]
fn hooks_keep_values_between_calls() {
    let (model, tokens) = setup();
    let count = || {
        Hook::read("hook_embed", |_: &Tensor<3>, cx: &mut HookContext| {
            let seen = cx.values.get::<usize>("seen").copied().unwrap_or(0);
            cx.values.set("seen", seen + 1);
        })
    };
    run(&model, &tokens, vec![count()]);
    run(&model, &tokens, vec![count()]);
    let seen = std::sync::Mutex::new(0);
    let look = Hook::read("hook_embed", |_: &Tensor<3>, cx: &mut HookContext| {
        *seen.lock().unwrap() = cx.values.get::<usize>("seen").copied().unwrap_or(0);
    });
    run(&model, &tokens, vec![look]);
    assert_eq!(*seen.lock().unwrap(), 2);
    model.registry().unwrap().clear_contexts();
    let gone = Hook::read("hook_embed", |_: &Tensor<3>, cx: &mut HookContext| {
        assert!(cx.values.get::<usize>("seen").is_none());
    });
    run(&model, &tokens, vec![gone]);
}

#[test]
fn caches_slice_positions_on_the_right_axis() {
    let (model, golden) = open("tl-qk-norm", FloatType::F32);
    let tokens = golden.ints("tokens", &model.device());
    let all = cached(&model, &tokens, &[]);
    for slice in [Slice::Index(-1), Slice::range(1, 3), Slice::List(vec![4, 0])] {
        let options = CacheOptions { pos_slice: slice.clone(), ..CacheOptions::default() };
        let cache = model.run_with_cache(&(&tokens).into(), &RunOptions::default(), &options).unwrap().1;
        for (point, value) in cache.iter() {
            let axis = point.pos_axis().unwrap();
            let expected = all.get(point).unwrap().slice_axis(axis, &slice).unwrap();
            assert_eq!(data(value), data(&expected), "{point} {slice}");
        }
        assert_eq!(cache.len(), all.len());
    }
    let options = CacheOptions { pos_slice: Slice::Index(5), ..CacheOptions::default() };
    let error = model.run_with_cache(&(&tokens).into(), &RunOptions::default(), &options).unwrap_err();
    assert!(matches!(error, RunError::Slice { .. }), "{error}");
}

#[test]
fn the_batch_axis_is_removed_from_one_prompt_only() {
    let (model, tokens) = setup();
    let options = CacheOptions { remove_batch_dim: true, ..CacheOptions::default() };
    let error = model.run_with_cache(&(&tokens).into(), &RunOptions::default(), &options).unwrap_err();
    assert!(matches!(error, RunError::BatchNotOne { batch: 2 }), "{error}");
    let first = tokens.clone().narrow(0, 0, 1);
    let cache = model.run_with_cache(&first.into(), &RunOptions::default(), &options).unwrap().1;
    assert!(!cache.has_batch_dim());
    assert_eq!(cache.get("pattern0").unwrap().shape(), [2, 5, 5]);
    let both = cached(&model, &tokens, &[]).apply_slice_to_batch_dim(&Slice::Index(0)).unwrap();
    for (point, value) in cache.iter() {
        assert_eq!(value.shape(), both.get(point).unwrap().shape());
    }
}

#[test]
fn a_pattern_beside_scores_is_the_one_that_is_stored_alone() {
    // Plain, soft-capped with windows, with sinks, with ALiBi, and grouped with rotary.
    for name in ["tl-ln", "gemma2", "tl-sinks", "tl-alibi", "mistral", "phi3-sliding-tied"] {
        for dtype in [FloatType::F32, FloatType::Bf16, FloatType::F64] {
            let (model, golden) = open(name, dtype);
            let tokens = golden.ints("tokens", &model.device());
            let [batch, pos] = tokens.dims();
            let padded = Tensor::<2, Int>::ones([batch, pos], &model.device());
            let padded = padded.slice_assign([0..1, 0..2], Tensor::zeros([1, 2], &model.device()));
            for attention_mask in [None, Some(padded)] {
                let run = RunOptions { attention_mask, ..RunOptions::default() };
                let keep = |options: &CacheOptions| {
                    model.run_with_cache(&(&tokens).into(), &run, options).unwrap().1
                };
                let both = keep(&CacheOptions::names(["*hook_attn_scores", "*hook_pattern"]));
                let alone = keep(&CacheOptions::names(["*hook_pattern"]));
                let bytes = alone.num_bytes();
                let derived = kernels::available_rounded(&model.device(), model.dtype());
                assert_eq!(both.num_bytes(), if derived { bytes } else { 2 * bytes }, "{name}");
                let first =
                    |cache: ActivationCache| cache.apply_slice_to_batch_dim(&Slice::Index(0)).unwrap();
                let mut other = both.clone();
                for (point, value) in alone.iter() {
                    assert_eq!(data(both.get(point).unwrap()), data(&value), "{name} {dtype:?} {point}");
                    let scores = HookPoint::AttnScores(point.layer().unwrap());
                    let replaced = other.get(scores).unwrap().cast(FloatType::F64);
                    other.insert(scores, replaced);
                    assert_eq!(
                        data(other.get(point).unwrap()),
                        data(&value),
                        "{name}: after an edit of scores"
                    );
                }
                let (other, cast) = (first(both.clone()), both.cast(FloatType::F64));
                for (point, value) in alone.iter() {
                    assert_eq!(
                        data(cast.get(point).unwrap()),
                        data(value.clone().cast(FloatType::F64)),
                        "{name}"
                    );
                }
                for (point, value) in first(alone).iter() {
                    assert_eq!(data(other.get(point).unwrap()), data(value), "{name}: of one prompt");
                }
            }
        }
    }
}

#[test]
fn lookups_take_every_form() {
    let (model, tokens) = setup();
    let cache = cached(&model, &tokens, &[]);
    let full = data(cache.get("blocks.1.attn.hook_pattern").unwrap());
    assert_eq!(data(cache.get("pattern1").unwrap()), full);
    assert_eq!(data(cache.get(("pattern", 1)).unwrap()), full);
    assert_eq!(data(cache.get(("pattern", -1)).unwrap()), full);
    assert_eq!(data(cache.get(("attn", 1)).unwrap()), full);
    assert_eq!(data(cache.get(HookPoint::AttnPattern(1)).unwrap()), full);
    assert_eq!(cache.get(("scale", -2, "ln1")).unwrap().shape(), [2, 5, 1]);
    assert_eq!(cache.get("normalized").unwrap().shape(), [2, 5, 8]);
    let partial = cached(&model, &tokens, &["resid_pre0"]);
    let error = partial.get("resid_mid0").unwrap_err().to_string();
    assert!(error.contains("does not hold `blocks.0.hook_resid_mid`"), "{error}");
    assert!(cache.get(("pattern", 2)).is_err());
}

#[test]
fn caches_survive_a_round_trip_through_named_tensors() {
    let (model, tokens) = setup();
    let options = CacheOptions::default().incl_bwd();
    let run = RunOptions::returning(ReturnType::Loss);
    let cache = model.run_with_cache(&(&tokens).into(), &run, &options).unwrap().1;
    let tensors = cache.to_tensors().unwrap();
    let again = ActivationCache::from_tensors(tensors.into_iter().collect(), 2, &model.device()).unwrap();
    assert_eq!(again.keys().collect::<Vec<_>>(), cache.keys().collect::<Vec<_>>(), "order");
    for (point, value) in cache.iter() {
        assert_eq!(data(again.get(point).unwrap()), data(value));
        assert_eq!(data(again.grad(point).unwrap()), data(cache.grad(point).unwrap()));
    }
}

#[test]
fn caches_keep_another_dtype() {
    let (model, tokens) = setup();
    let options = CacheOptions { dtype: Some(FloatType::Bf16), ..CacheOptions::default() };
    let cache = model.run_with_cache(&(&tokens).into(), &RunOptions::default(), &options).unwrap().1;
    assert!(cache.iter().all(|(_, value)| value.dtype() == burn::tensor::DType::BF16));
}
