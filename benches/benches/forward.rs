//! A forward pass: without a hook call in it, unhooked, with no-op hooks, with everything kept.
//!
//! The first two run the same operations on the same weights (their logits are compared bit by
//! bit before anything is timed), so their ratio is what hooks cost when nobody uses them.

use std::time::Duration;

use burn::tensor::{Int, Tensor};
use burn_lens::{prelude::*, tensor::kernels::Products};
use burn_lens_benches::{GPT2_SMALL, PlainGpt2, Shape, TINY, device};
use criterion::{Criterion, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn forward(c: &mut Criterion) {
    compare(c, TINY, 2, 32, Duration::from_secs(6));
    compare(c, GPT2_SMALL, 1, 64, Duration::from_secs(20));
    float_types(c);
    pattern(c);
}

/// What it costs to ask a cache that holds scores for the pattern of one layer.
fn pattern(c: &mut Criterion) {
    let device = device();
    let model = GPT2_SMALL.model(&device);
    let tokens = GPT2_SMALL.tokens(1, 1024, &device);
    let options = (RunOptions::default(), CacheOptions::names(["attn_scores0", "pattern0"]));
    let (_, cache) = model.run_with_cache(&(&tokens).into(), &options.0, &options.1).expect("a run");
    c.bench_function(&format!("{} 1x1024: a pattern from scores", GPT2_SMALL.name), |b| {
        b.iter(|| {
            std::hint::black_box(cache.get("pattern0").expect("it was kept"));
            device.sync().expect("the device answers");
        });
    });
}

/// Passes in each float type: of one token, which reads each weight once, and of many.
fn float_types(c: &mut Criterion) {
    let device = device();
    let tokens = GPT2_SMALL.tokens(1, 128, &device);
    let logits = |model: &HookedTransformer| run(model, &tokens, vec![]).into_data().iter::<f64>().collect();
    let exact: Vec<f64> = logits(&GPT2_SMALL.model_in(FloatType::F64, &device));
    let of = |dtype| (dtype, Products::F32);
    let types =
        [of(FloatType::F32), (FloatType::F32, Products::Bf16x3), of(FloatType::Bf16), of(FloatType::F16)];
    for (dtype, products) in types {
        if !products.choose() {
            println!("no products of {products}: this processor has no AMX");
            continue;
        }
        let model = GPT2_SMALL.model_in(dtype, &device);
        println!("{dtype}, products of {products}: logits {:.1e} off", difference(&logits(&model), &exact));
        let name = format!("{} in {dtype}, products of {products}", GPT2_SMALL.name);
        let mut group = c.benchmark_group(name);
        group.sample_size(10).measurement_time(Duration::from_secs(8));
        for (batch, pos) in [(1, 1), (8, 128)] {
            let tokens = GPT2_SMALL.tokens(batch, pos, &device);
            group.bench_function(format!("logits {batch}x{pos}"), |b| {
                b.iter(|| {
                    std::hint::black_box(run(&model, &tokens, vec![]));
                    device.sync().expect("the device answers");
                });
            });
        }
        group.finish();
    }
    assert!(Products::F32.choose());
}

/// The largest difference, relative to the largest value.
fn difference(found: &[f64], exact: &[f64]) -> f64 {
    let largest = exact.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    found.iter().zip(exact).fold(0.0, |max: f64, (a, b)| max.max((a - b).abs())) / largest
}

fn compare(c: &mut Criterion, shape: Shape, batch: usize, pos: usize, time: Duration) {
    let device = device();
    let model = shape.model(&device);
    let plain = PlainGpt2::new(&model);
    let tokens = shape.tokens(batch, pos, &device);
    let unhooked = || run(&model, &tokens, vec![]);
    assert_eq!(plain.forward(&tokens).into_data(), unhooked().into_data(), "not the same computation");

    let mut group = c.benchmark_group(format!("{} {batch}x{pos}", shape.name));
    group.sample_size(20).measurement_time(time);
    // Every timed region ends in a device sync.
    let sync = || device.sync().expect("the device answers");
    group.bench_function("without hook calls", |b| {
        b.iter(|| {
            std::hint::black_box(plain.forward(&tokens));
            sync();
        });
    });
    group.bench_function("unhooked", |b| {
        b.iter(|| {
            std::hint::black_box(unhooked());
            sync();
        });
    });
    group.bench_function("no-op hooks everywhere", |b| {
        b.iter(|| {
            let hook = Hook::read("*", |_: &AnyTensor, _: &mut HookContext| {});
            std::hint::black_box(run(&model, &tokens, vec![hook]));
            sync();
        });
    });
    group.bench_function("everything cached", |b| {
        b.iter(|| {
            let options = (RunOptions::default(), CacheOptions::default());
            let kept = model.run_with_cache(&(&tokens).into(), &options.0, &options.1);
            std::hint::black_box(kept.expect("a run"));
            sync();
        });
    });
    group.finish();
}

fn run(model: &HookedTransformer, tokens: &Tensor<2, Int>, hooks: Vec<Hook<'_>>) -> Tensor<3> {
    let output = model.run_with_hooks(&tokens.into(), &RunOptions::default(), hooks);
    output.expect("a run").into_logits().expect("logits")
}

criterion_group!(benches, forward);
criterion_main!(benches);
