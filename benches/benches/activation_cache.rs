//! The residual stream taken apart, at GPT-2 small's shape: `benches/peers/peer_activation_cache.py`
//! measures the same with TransformerLens.

use std::{hint::black_box, time::Duration};

use burn_lens::{
    analysis::{
        Answers, AttributionOptions, NeuronOptions, Residuals, StackOptions, Sublayers, Unit,
        direct_logit_attribution,
    },
    prelude::*,
};
use burn_lens_benches::{GPT2_SMALL, device, peak_mib};
use criterion::{Criterion, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Positions of the one prompt.
const POS: usize = 256;

fn activation_cache(c: &mut Criterion) {
    let device = device();
    let model = GPT2_SMALL.model(&device);
    let before = peak_mib();
    let tokens = GPT2_SMALL.tokens(1, POS, &device);
    let cache = model
        .run_with_cache(&(&tokens).into(), &RunOptions::default(), &CacheOptions::default())
        .expect("a run")
        .1;
    let residuals = Residuals::new(&model, &cache).expect("the cache is the model's");
    let all = StackOptions::default();
    let last = StackOptions { pos_slice: Slice::Index(-1), ..StackOptions::default() };
    let attribution = |by: Unit, pos_slice: Slice| AttributionOptions {
        answers: Answers::One(7),
        against: Some(Answers::One(11)),
        by,
        pos_slice,
    };

    let mut group = c.benchmark_group(format!("gpt2-small 1x{POS}"));
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    // Every timed region ends in a device sync.
    let sync = || device.sync().expect("the device answers");
    let mut bench = |name: &str, work: &dyn Fn()| {
        group.bench_function(name, |b| {
            b.iter(|| {
                work();
                sync();
            });
        });
    };
    bench("stack_head_results", &|| {
        black_box(residuals.stack_head_results(&all, false).expect("rows"));
    });
    bench("logit_attrs(decompose_resid)", &|| {
        let parts = residuals.decompose_resid(&all, Sublayers::All, true).expect("rows");
        black_box(residuals.logit_attrs(&parts, 7, Some(&Answers::One(11))).expect("attributions"));
    });
    bench("stack_neuron_results at the last position", &|| {
        black_box(residuals.stack_neuron_results(&last, &NeuronOptions::default()).expect("rows"));
    });
    bench("attribution by head, all positions", &|| {
        black_box(
            direct_logit_attribution(&residuals, &attribution(Unit::Head, Slice::All)).expect("a result"),
        );
    });
    bench("attribution by neuron, all positions", &|| {
        black_box(
            direct_logit_attribution(&residuals, &attribution(Unit::Neuron, Slice::All)).expect("a result"),
        );
    });
    group.finish();
    if let (Some(before), Some(after)) = (before, peak_mib()) {
        println!("memory: {before} MiB with the model loaded, {after} MiB at most");
    }
}

criterion_group!(benches, activation_cache);
criterion_main!(benches);
