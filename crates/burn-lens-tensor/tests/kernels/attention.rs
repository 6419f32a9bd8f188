//! Attention in blocks.

use std::sync::Arc;

use burn_lens_tensor::{
    burn::tensor::{Bool, Tensor, TensorData},
    kernels::{self, Attended, AttentionScores, Looks, Sight},
};

use crate::common::{both, close, device, each_path, numbers, random, same_in_any_pool};

/// A sum over up to 700 keys of products, weights of a softmax with errors of its own.
const ATTENTION: f64 = 60.0;

struct Case {
    name: &'static str,
    batch: usize,
    heads: [usize; 2],
    queries: usize,
    keys: usize,
    how: AttentionScores,
    sinks: bool,
}

fn plain(queries: usize, keys: usize) -> AttentionScores {
    AttentionScores {
        scale: 8f64.sqrt(),
        soft_cap: None,
        slopes: None,
        sight: Sight { first: keys - queries, causal: true, window: None, tokens: None },
    }
}

fn case(name: &'static str, heads: [usize; 2], queries: usize, keys: usize) -> Case {
    Case { name, batch: 2, heads, queries, keys, how: plain(queries, keys), sinks: false }
}

fn cases() -> Vec<Case> {
    let mut window = case("window", [4, 2], 90, 130);
    window.how.sight.window = Some(21);
    let mut both_ways = case("bidirectional", [2, 2], 40, 40);
    both_ways.how.sight.causal = false;
    let mut capped = case("soft-cap and sinks", [4, 2], 33, 33);
    (capped.how.soft_cap, capped.sinks) = (Some(1.5), true);
    let mut alibi = case("ALiBi", [3, 3], 20, 50);
    alibi.how.slopes = Some(Arc::from([0.5_f32, 0.25, 0.0625]));
    let mut padded = case("padding on the left", [2, 1], 35, 35);
    let tokens = (0..2).flat_map(|row| (0..35).map(move |key| row == 0 || key >= 7));
    padded.how.sight.tokens = Some(tokens.collect());
    let mut blind = case("a window on padding, with sinks", [2, 1], 35, 35);
    let tokens = (0..2).flat_map(|row| (0..35).map(move |key| row == 0 || !(4..30).contains(&key)));
    blind.how.sight.tokens = Some(tokens.collect());
    (blind.how.sight.window, blind.sinks) = (Some(3), true);
    let mut power = case("a scale that is a power of two", [1, 1], 17, 17);
    power.how.scale = 8.0;
    vec![
        case("one head", [1, 1], 5, 5),
        case("many queries", [2, 1], 300, 300),
        case("more keys than one product adds", [2, 2], 70, 700),
        case("one query", [6, 2], 1, 37),
        case("one query, a head of keys each", [3, 3], 1, 600),
        window,
        both_ways,
        capped,
        alibi,
        padded,
        blind,
        power,
    ]
}

struct Operands {
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    sinks: Option<Tensor<1>>,
}

fn operands(case: &Case) -> [Operands; 2] {
    let [n_heads, n_kv_heads] = case.heads;
    let d_head = 8;
    let [q, exact_q] = random(40, [case.batch, case.queries, n_heads, d_head], 2.0);
    // As a projection leaves them: heads side by side at each position, seen as head by head.
    let [k, exact_k] =
        random(41, [case.batch, case.keys, n_kv_heads, d_head], 2.0).map(|k: Tensor<4>| k.swap_dims(1, 2));
    let [v, exact_v] =
        random(42, [case.batch, case.keys, n_kv_heads, d_head], 2.0).map(|v: Tensor<4>| v.swap_dims(1, 2));
    let [sinks, exact_sinks] = both(&numbers(43, n_heads, 2.0), [n_heads]).map(|s| case.sinks.then_some(s));
    [Operands { q, k, v, sinks }, Operands { q: exact_q, k: exact_k, v: exact_v, sinks: exact_sinks }]
}

/// Scores, pattern and mixture, by burn's operations.
fn composed(case: &Case, x: &Operands) -> [Tensor<4>; 3] {
    let [n_heads, n_kv_heads] = case.heads;
    let repeated = |t: &Tensor<4>| {
        let dims = t.dims();
        t.clone()
            .reshape([dims[0], n_kv_heads, 1, dims[2] * dims[3]])
            .repeat_dim(2, n_heads / n_kv_heads)
            .reshape([dims[0], n_heads, dims[2], dims[3]])
    };
    let mut scores = x.q.clone().swap_dims(1, 2).matmul(repeated(&x.k).transpose()) / case.how.scale;
    if let Some(cap) = case.how.soft_cap {
        scores = (scores / cap).tanh() * cap;
    }
    let (batch, queries, keys) = (case.batch, case.queries, case.keys);
    let sight = &case.how.sight;
    if let Some(slopes) = &case.how.slopes {
        let bias: Vec<f64> = slopes
            .iter()
            .flat_map(|&slope| {
                (0..queries).flat_map(move |query| {
                    (0..keys)
                        .map(move |key| f64::from(slope) * (key as f64 - (keys - queries + query) as f64))
                })
            })
            .collect();
        let bias = TensorData::new(bias, [1, n_heads, queries, keys]);
        scores = scores + Tensor::<4>::from_data(bias, (&device(), x.q.dtype()));
    }
    let each = || (0..batch).flat_map(|b| (0..queries).map(move |query| (b, query)));
    let hidden: Vec<bool> =
        each().flat_map(|(b, query)| (0..keys).map(move |key| !sight.sees(b, query, key, keys))).collect();
    let blind: Vec<bool> = each().map(|(b, query)| sight.is_blind(b, query, keys)).collect();
    let mask = |values: Vec<bool>, width: usize| {
        let data = TensorData::new(values, [batch, 1, queries, width]);
        Tensor::<4, Bool>::from_data(data, &device()).expand([batch, n_heads, queries, keys])
    };
    let scores = scores.mask_fill(mask(hidden, keys), f64::NEG_INFINITY);
    let all = match &x.sinks {
        None => scores.clone(),
        Some(sinks) => {
            let sinks = sinks.clone().reshape([1, n_heads, 1, 1]).expand([batch, n_heads, queries, 1]);
            Tensor::cat(vec![scores.clone(), sinks], 3)
        }
    };
    let pattern = kernels::softmax(all).narrow(3, 0, keys).mask_fill(mask(blind, 1), 0.0);
    let z = pattern.clone().matmul(repeated(&x.v)).swap_dims(1, 2);
    [scores, pattern, z]
}

fn in_parts(case: &Case, x: &Operands) -> [Tensor<4>; 3] {
    let scores = kernels::scores(&x.q, &x.k, &case.how).expect("there is a kernel");
    let pattern = kernels::pattern(scores.clone(), x.sinks.as_ref(), &case.how).expect("there is a kernel");
    let z = kernels::mixed(&pattern, &x.v).expect("there is a kernel");
    [scores, pattern, z]
}

const LOOKS: [Looks; 4] = [
    Looks { scores: false, pattern: false },
    Looks { scores: true, pattern: false },
    Looks { scores: false, pattern: true },
    Looks { scores: true, pattern: true },
];

fn whole(case: &Case, x: &Operands, looks: Looks) -> Attended {
    kernels::attention([&x.q, &x.k, &x.v], x.sinks.as_ref(), &case.how, looks).expect("there is a kernel")
}

#[test]
fn parts_and_whole_are_what_the_operations_give() {
    each_path(|path| {
        for case in cases() {
            let [x, exact] = operands(&case);
            let what = format!("{} on {path:?}", case.name);
            let expected = composed(&case, &exact);
            let found = in_parts(&case, &x);
            for looks in LOOKS {
                let Attended { scores, pattern, z } = whole(&case, &x, looks);
                let looked_at = [looks.scores, looks.pattern, true];
                let whole = [scores, pattern, Some(z)].map(|x| x.map(Tensor::into_data));
                let parts = [0, 1, 2].map(|at| looked_at[at].then(|| found[at].clone().into_data()));
                assert_eq!(whole, parts, "{what}: whole and parts differ with {looks:?}");
            }
            for (part, (found, expected)) in
                ["scores", "pattern", "z"].into_iter().zip(found.into_iter().zip(expected))
            {
                let floor = if part == "pattern" { 1e-3 } else { 0.5 };
                close(&format!("{what}: {part}"), found, expected, ATTENTION, floor);
            }
        }
    });
}

#[test]
fn neither_instructions_nor_threads_change_a_bit() {
    for case in cases() {
        let [x, _] = operands(&case);
        for part in 0..3 {
            let found = || {
                let Attended { scores, pattern, z } = whole(&case, &x, LOOKS[3]);
                [scores, pattern, Some(z)][part].clone().expect("it is looked at")
            };
            let expected = found().into_data();
            each_path(|path| assert_eq!(found().into_data().as_bytes(), expected.as_bytes(), "{path:?}"));
            same_in_any_pool(found);
        }
    }
}

#[test]
fn there_are_no_kernels_for_f64_or_on_an_autodiff_device() {
    let case = case("one head", [1, 1], 5, 5);
    let [x, exact] = operands(&case);
    assert!(kernels::scores(&exact.q, &exact.k, &case.how).is_none());
    assert!(kernels::scores(&x.q.autodiff(), &x.k.autodiff(), &case.how).is_none());
}
