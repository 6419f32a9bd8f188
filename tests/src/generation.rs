//! Generation: Hugging Face's greedy tokens, and cached = uncached.

use crate::common::{open, whole_models};
use burn_lens::{
    hooks::RunError,
    models::{FinishReason, Generated, generate},
    prelude::*,
};

fn greedy(model: &HookedTransformer, prompts: &[Vec<i64>], options: &GenerateOptions) -> Vec<Vec<i64>> {
    let generated = generate(model, prompts, options, vec![], &mut |_, _| false).unwrap();
    generated.into_iter().map(|row| row.tokens).collect()
}

fn options(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens, ..GenerateOptions::default() }
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    let mut checked = 0;
    for name in whole_models() {
        let (model, golden) = open(&name, FloatType::F32);
        if !golden.contains("generate.greedy") {
            continue;
        }
        let pos = golden.get("tokens").shape().to_vec()[1];
        let prompt: Vec<i64> = golden.get("tokens").iter::<i64>().take(pos).collect();
        let expected: Vec<i64> = golden.get("generate.greedy").iter::<i64>().collect();
        for use_past_kv_cache in [true, false] {
            let options = GenerateOptions { use_past_kv_cache, ..options(expected.len()) };
            assert_eq!(greedy(&model, std::slice::from_ref(&prompt), &options)[0], expected, "{name}");
        }
        checked += 1;
    }
    assert!(checked >= 4);
}

/// Prompts of different lengths in one batch continue as each does alone, with and without
/// the cache.
#[test]
fn batches_and_caches_change_nothing() {
    let names =
        ["gpt2", "gpt-neo", "llama-gqa", "mistral", "gemma2", "neox", "qwen3", "tl-alibi", "tl-sinks"];
    for name in names {
        let (model, _) = open(name, FloatType::F64);
        let d_vocab = model.config().d_vocab as i64;
        let prompt = |len: i64| (0..len).map(|at| (at * 7 + len) % d_vocab).collect::<Vec<i64>>();
        let prompts = [prompt(6), prompt(2), prompt(4)];
        let together = greedy(&model, &prompts, &options(5));
        for use_past_kv_cache in [true, false] {
            let options = GenerateOptions { use_past_kv_cache, ..options(5) };
            for (prompt, expected) in prompts.iter().zip(&together) {
                assert_eq!(&greedy(&model, std::slice::from_ref(prompt), &options)[0], expected, "{name}");
            }
        }
    }
}

#[test]
fn sampling_is_reproducible_and_seeded() {
    let (model, _) = open("gpt2", FloatType::F32);
    let sample = |seed: u64| {
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        greedy(&model, &[vec![1, 2, 3]], &GenerateOptions { sampling, seed, ..options(12) })
    };
    assert_eq!(sample(0), sample(0));
    assert!((1..5).any(|seed| sample(seed) != sample(0)));
}

#[test]
fn ends_at_eos_stops_and_context() {
    let (model, _) = open("gpt2", FloatType::F32);
    let prompt = vec![vec![1, 2, 3]];
    let first = greedy(&model, &prompt, &options(4))[0].clone();
    let run = |options: GenerateOptions, stop_after: usize| -> Generated {
        let mut stop = |_: usize, new: &[i64]| new.len() >= stop_after;
        generate(&model, &prompt, &options, vec![], &mut stop).unwrap().remove(0)
    };
    let at_eos = run(GenerateOptions { eos: vec![first[0]], ..options(4) }, usize::MAX);
    assert_eq!((at_eos.tokens.as_slice(), at_eos.finish), (&first[..1], FinishReason::Eos));
    let stopped = run(options(4), 2);
    assert_eq!((stopped.tokens.as_slice(), stopped.finish), (&first[..2], FinishReason::Stop));
    let n_ctx = model.config().n_ctx;
    let full = run(options(2 * n_ctx), usize::MAX);
    assert_eq!((full.tokens.len(), full.finish), (n_ctx - 3 + 1, FinishReason::Context));
    assert_eq!(run(options(4), usize::MAX).finish, FinishReason::Length);
}

/// With a cache a hook sees the new positions only, and is told where they are.
#[test]
fn hooks_see_absolute_positions() {
    let (model, _) = open("llama-gqa", FloatType::F32);
    let mut seen = Vec::new();
    let hook = Hook::read("blocks.0.hook_resid_pre", |x: &Tensor<3>, cx: &mut HookContext| {
        seen.push((cx.pos_offset, x.dims()[1]));
    });
    generate(&model, &[vec![1, 2, 3, 4]], &options(3), vec![hook], &mut |_, _| false).unwrap();
    assert_eq!(seen, [(0, 4), (4, 1), (5, 1)]);
}

#[test]
fn bad_options_are_named() {
    let (model, _) = open("gpt2", FloatType::F32);
    let fails = |prompts: &[Vec<i64>], sampling: Sampling| -> RunError {
        let options = GenerateOptions { sampling, ..options(2) };
        generate(&model, prompts, &options, vec![], &mut |_, _| false).unwrap_err()
    };
    let plain = Sampling::default();
    assert!(matches!(fails(&[vec![]], plain), RunError::EmptyInput { .. }));
    assert!(matches!(fails(&[], plain), RunError::EmptyInput { .. }));
    assert!(matches!(fails(&[vec![0; 1000]], plain), RunError::TooLong { .. }));
    assert!(matches!(fails(&[vec![1000]], plain), RunError::TokenOutOfRange { token: 1000, .. }));
    for sampling in [
        Sampling { temperature: -1.0, ..plain },
        Sampling { temperature: f64::NAN, ..plain },
        Sampling { top_k: Some(0), ..plain },
        Sampling { top_p: Some(0.0), ..plain },
        Sampling { top_p: Some(1.5), ..plain },
        Sampling { repetition_penalty: 0.0, ..plain },
    ] {
        assert!(matches!(fails(&[vec![1]], sampling), RunError::Options(_)), "{sampling:?}");
    }
}
