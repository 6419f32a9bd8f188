//! The kernels of the CPU beside the same operations composed of burn's, at GPT-2 small's sizes.
//!
//! `BURN_LENS_SIMD` (`Baseline`, `Avx2`, `Avx512`, `Amx`) chooses the instructions.

use std::{hint::black_box, time::Duration};

use burn::tensor::{Bool, DType, Tensor, TensorData, activation as composed, module};
use burn_lens::tensor::kernels::{self, Activation, AttentionScores, Looks, Products, Sight, SimdPath};
use burn_lens_benches::device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn numbers<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let len = shape.iter().product();
    let values: Vec<f32> = (0..len).map(|at: usize| (at * 7919 % 4001) as f32 / 1000.0 - 2.0).collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

/// Times both ways of computing the same, each on a tensor of its own.
fn compare<const D: usize, const E: usize>(
    c: &mut Criterion,
    name: &str,
    x: &Tensor<D>,
    fused: impl Fn(Tensor<D>) -> Tensor<E>,
    composed: impl Fn(Tensor<D>) -> Tensor<E>,
) {
    let mut group = c.benchmark_group(name);
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    group.bench_function("kernel", |b| b.iter(|| black_box(fused(x.clone()))));
    group.bench_function("burn", |b| b.iter(|| black_box(composed(x.clone()))));
    group.finish();
}

fn rows(c: &mut Criterion) {
    if let Ok(name) = std::env::var("BURN_LENS_SIMD") {
        let path = SimdPath::ALL.into_iter().find(|path| format!("{path:?}") == name);
        assert!(path.is_some_and(SimdPath::choose), "this processor has no {name}");
    }
    println!("instructions: {:?}", SimdPath::active());
    let neurons = numbers([1, 1024, 3072]);
    let fused = |act| move |x| kernels::activation(x, act);
    compare(c, "gelu [1024, 3072]", &neurons, fused(Activation::Gelu), composed::gelu);
    compare(c, "gelu, tanh [1024, 3072]", &neurons, fused(Activation::GeluTanh), composed::gelu_approximate);
    compare(c, "silu [1024, 3072]", &neurons, fused(Activation::Silu), composed::silu);
    let stream = numbers([1, 1024, 768]);
    let plain = |x: Tensor<3>| {
        let x = x.clone() - x.mean_dim(2);
        let scale = ((x.clone() * x.clone()).mean_dim(2) + 1e-5).sqrt();
        x / scale
    };
    compare(c, "layer norm [1024, 768]", &stream, |x| kernels::normalized(x, true, 1e-5, None, None), plain);
    let scores = numbers([1, 12, 1024, 1024]);
    compare(c, "softmax [12, 1024, 1024]", &scores, kernels::softmax, |x| composed::softmax(x, 3));
    let logits = numbers([256, 50257]);
    let pre = numbers([512, 16_384]);
    let ours = |x| kernels::top(x, 64).0;
    compare(c, "the largest 64 of [512, 16384]", &pre, ours, |x| x.topk_with_indices(64, 1).0);
    let targets: Vec<usize> = (0..256).collect();
    let gathered = |x: Tensor<2>| {
        let ids: Vec<i64> = (0..256).collect();
        let ids = Tensor::<2, burn::tensor::Int>::from_data(TensorData::new(ids, [256, 1]), &x.device());
        -composed::log_softmax(x, 1).gather(1, ids).reshape([256])
    };
    compare(c, "loss [256, 50257]", &logits, |x| kernels::negative_log_likelihood(x, &targets), gathered);
}

fn products(c: &mut Criterion) {
    for (name, rows, inner, columns) in [
        ("[1, 768] [768, 3072]", 1, 768, 3072),
        ("[1, 768] [768, 50257]", 1, 768, 50257),
        ("[4, 768] [768, 3072]", 4, 768, 3072),
        ("[8, 768] [768, 3072]", 8, 768, 3072),
        ("[8, 768] [768, 50257]", 8, 768, 50257),
        ("[16, 768] [768, 3072]", 16, 768, 3072),
        ("[16, 768] [768, 50257]", 16, 768, 50257),
        ("[32, 768] [768, 3072]", 32, 768, 3072),
        ("[64, 768] [768, 3072]", 64, 768, 3072),
        ("[64, 768] [768, 50257]", 64, 768, 50257),
    ] {
        let (x, w) = (numbers([1, rows, inner]), numbers([inner, columns]));
        let (ours, theirs) = (w.clone(), w.clone());
        compare(
            c,
            name,
            &x,
            move |x| kernels::linear(x, ours.clone(), None),
            move |x| module::linear(x, theirs.clone(), None),
        );
        let tied = numbers([columns, inner]).transpose();
        let (ours, theirs) = (tied.clone(), tied);
        compare(
            c,
            &format!("{name}, transposed"),
            &x,
            move |x| kernels::linear(x, ours.clone(), None),
            move |x| module::linear(x, theirs.clone(), None),
        );
    }
}

/// Products of many rows in each type that has a way of its own; criterion gives the rate in multiplications and
/// additions, two for each term.
fn products_by_type(c: &mut Criterion) {
    for [inner, columns] in [[768, 768], [768, 3072], [3072, 768], [768, 50257]] {
        const ROWS: usize = 1024;
        let (x, w) = (numbers([1, ROWS, inner]), numbers([inner, columns]));
        let mut group = c.benchmark_group(format!("[{ROWS}, {inner}] [{inner}, {columns}]"));
        group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1));
        group.throughput(Throughput::Elements((2 * ROWS * inner * columns) as u64));
        for products in [Products::F32, Products::Bf16x3] {
            if products.choose() {
                let product = || black_box(kernels::linear(x.clone(), w.clone(), None));
                group.bench_function(format!("f32, products of {products}"), |b| b.iter(product));
            }
        }
        assert!(Products::F32.choose());
        let (x, w) = (x.cast(DType::BF16), w.cast(DType::BF16));
        group.bench_function("bf16", |b| b.iter(|| black_box(kernels::linear(x.clone(), w.clone(), None))));
        group.finish();
    }
}

fn attention(c: &mut Criterion) {
    for (batch, pos) in [(1, 1024), (8, 128)] {
        let q = numbers([batch, pos, 12, 64]);
        let (k, v) = (q.clone().swap_dims(1, 2), (q.clone() * 0.5).swap_dims(1, 2));
        let sight = Sight { first: 0, causal: true, window: None, tokens: None };
        let how = AttentionScores { scale: 8.0, soft_cap: None, slopes: None, sight };
        let hidden = Tensor::<2, Bool>::tril_mask([pos, pos], 0, &device()).unsqueeze::<4>();
        let (plain_k, plain_v) = (k.clone(), v.clone());
        compare(
            c,
            &format!("attention {batch} x {pos}"),
            &q,
            |q| {
                kernels::attention([&q, &k, &v], None, &how, Looks::default()).expect("the CPU has kernels").z
            },
            |q| {
                let scores = q.swap_dims(1, 2).matmul(plain_k.clone().transpose()) / 8.0;
                let scores =
                    scores.mask_fill(hidden.clone().expand([batch, 12, pos, pos]), f32::NEG_INFINITY);
                composed::softmax(scores, 3).matmul(plain_v.clone()).swap_dims(1, 2)
            },
        );
    }
}

criterion_group!(benches, rows, products, products_by_type, attention);
criterion_main!(benches);
