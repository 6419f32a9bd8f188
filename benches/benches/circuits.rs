//! Circuits of a model of GPT-2 small's shape with random weights, in `f32`.
//!
//! The peer's side is `benches/peers/peer_circuits.py`. The measured table is in the
//! README.

use std::time::Duration;

use burn_lens::analysis::{Circuits, Composition, Folding, SvdInterpreter, VectorType};
use burn_lens_benches::{GPT2_SMALL, device, peak_mib};
use criterion::{Criterion, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn circuits(c: &mut Criterion) {
    let model = GPT2_SMALL.model(&device());
    let circuits = Circuits::new(&model, Folding::Raw).expect("circuits");
    let interpreter = SvdInterpreter::new(&model, Folding::Raw).expect("circuits");
    let before = peak_mib();
    let mut group = c.benchmark_group("circuits gpt2-small");
    group.sample_size(10).measurement_time(Duration::from_secs(10)).warm_up_time(Duration::from_secs(1));
    // Each ends in numbers on the host, which waits for the device.
    group.bench_function("OV singular values", |b| {
        b.iter(|| circuits.ov().expect("OV").singular_values().expect("finite weights"));
    });
    group.bench_function("OV eigenvalues", |b| {
        b.iter(|| circuits.ov().expect("OV").eigenvalues().expect("finite weights"));
    });
    group.bench_function("full OV eigenvalues", |b| {
        b.iter(|| circuits.full_ov().expect("full OV").eigenvalues().expect("finite weights"));
    });
    group.bench_function("all_composition_scores Q", |b| {
        b.iter(|| circuits.all_composition_scores(Composition::Q).expect("finite weights"));
    });
    group.bench_function("SVDInterpreter w_in", |b| {
        b.iter(|| interpreter.get_singular_vectors(VectorType::WIn, 0, None, 10).expect("finite weights"));
    });
    group.finish();
    if let (Some(before), Some(after)) = (before, peak_mib()) {
        println!("memory: {before} MiB with the model loaded, {after} MiB at most");
    }
}

criterion_group!(benches, circuits);
criterion_main!(benches);
