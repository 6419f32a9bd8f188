//! Feature data at the shape of gelu-1l: `d_model` 512, `d_mlp` 2048, 48,262 tokens, 16,384 features, prompts of
//! 128 tokens, about 64 features active at a token.
//!
//! The peer's side is `benches/peers/peer_sae_vis.py`. `docs/feature-data.md` says what each stage
//! costs and how near that is to the bound.
//!
//! `BURN_LENS_PROMPTS` (64) says how many prompts are run, `BURN_LENS_FEATURES` (32,64,1024,16384) for how many
//! features, a run for each, `BURN_LENS_SECOND` (0) whether with a second dictionary (1), `BURN_LENS_CORRELATE` (all)
//! whether features are correlated with all of the first one or with the chosen ones alone (chosen).

use std::time::{Duration, Instant};

use burn::tensor::{Tensor, TensorData};
use burn_lens::{
    hooks::{CacheOptions, HookPoint, HookedModel as _, Input, ReturnType, RunOptions},
    models::HookedTransformer,
    sae::features::{
        Correlate, FeatureChoice, FeatureOptions, FeatureRun, FeatureSource, Forecast, MemoryStore,
        SaeFeatures, Stage, TokenTable, build, collect, operations_per_second,
    },
    sae::{SaeOptions, read_sae_lens},
    tensor::{AnyTensor, MemoryWeights},
};
use burn_lens_benches::{GELU_1L, device, peak_mib};
use criterion::{Criterion, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const D_MLP: usize = 2048;
const D_SAE: usize = 16_384;
const N_POSITIONS: usize = 128;
const HOOK: HookPoint = HookPoint::MlpPost(0);

/// Numbers that look random, about normal.
fn random(n: usize, scale: f32, mut state: u64) -> Vec<f32> {
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| (uniform() + uniform() + uniform()) * 2.0 * scale).collect()
}

fn tokens(n_prompts: usize) -> TokenTable {
    let id = |at: usize| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let row =
        |prompt: usize| (0..N_POSITIONS).map(|at| (id(prompt * N_POSITIONS + at) % 48_262) as i64).collect();
    TokenTable::new(&(0..n_prompts).map(row).collect::<Vec<_>>(), None).expect("a table")
}

/// What the dictionary reads at some prompts, `[token, d_mlp]`.
fn activations(model: &HookedTransformer, tokens: &TokenTable) -> Tensor<2> {
    let (input, _) = tokens.input(0..16.min(tokens.n_prompts()), &model.device());
    let options = RunOptions::returning(ReturnType::None);
    let (_, cache) =
        model.run_with_cache(&Input::Tokens(input), &options, &CacheOptions::names([HOOK])).expect("a run");
    let x: Tensor<3> = cache.tensor(HOOK).expect("the hook");
    let [batch, pos, width] = x.dims();
    x.reshape([batch * pos, width])
}

/// A random dictionary whose features are active at about 1 token of 256.
fn dictionary(model: &HookedTransformer, tokens: &TokenTable, seed: u64) -> SaeFeatures {
    let device = model.device();
    let matrix =
        |values: Vec<f32>, shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values, shape), &device);
    let w_enc = matrix(random(D_MLP * D_SAE, 0.02, seed), [D_MLP, D_SAE]);
    let w_dec = matrix(random(D_MLP * D_SAE, 0.02, seed + 1), [D_SAE, D_MLP]);
    let x = activations(model, tokens);
    let kept = x.dims()[0].div_ceil(256);
    let pre = x.matmul(w_enc.clone()).transpose();
    let b_enc = -pre.topk(kept, 1).narrow(1, kept - 1, 1).squeeze_dim::<1>(1);
    let b_dec = Tensor::<1>::zeros([D_MLP], &device);
    let tensors: [(&str, AnyTensor); 4] =
        [("W_enc", w_enc.into()), ("W_dec", w_dec.into()), ("b_enc", b_enc.into()), ("b_dec", b_dec.into())];
    let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor.into_data().expect("data")));
    let config = format!(
        r#"{{"architecture": "standard", "d_in": {D_MLP}, "d_sae": {D_SAE}, "metadata": {{"hook_name": "{HOOK}"}}}}"#
    );
    let mut weights = MemoryWeights::new(tensors);
    let options = SaeOptions::on(&device);
    SaeFeatures::new(read_sae_lens(&config, "bench", &mut weights, &options).expect("a dictionary"))
        .expect("it names its hook")
}

/// How long something took: by the clock, and of all cores where the system says so, which other
/// programs on the machine change less.
struct Watch {
    begun: Instant,
    cores: f64,
}

impl Watch {
    fn start() -> Self {
        Self { begun: Instant::now(), cores: Self::of_cores().unwrap_or(0.0) }
    }

    fn of_cores() -> Option<f64> {
        /// A tick of the system's clock.
        const TICK: f64 = 0.01;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(ticks * TICK)
    }

    fn read(&self) -> String {
        let cores = Self::of_cores().map_or(0.0, |cores| cores - self.cores);
        format!("{:.2} s ({cores:.2} s of all cores)", self.begun.elapsed().as_secs_f64())
    }
}

/// Runs once and says how long each stage took.
fn stages(run: &FeatureRun<'_>) {
    let forecast = Forecast::of(run);
    let rate = operations_per_second(&run.model.device()).expect("a rate");
    println!("{:.0} GFLOP/s; forecast: {:.1} s of products", rate / 1e9, forecast.seconds(rate));
    let begun = Watch::start();
    let mut store = MemoryStore::default();
    collect(run, 0..run.tokens.n_prompts(), &mut store, &mut |_| ()).expect("a run");
    println!("  run: {}", begun.read());
    let (mut last, mut n, mut active) = (Watch::start(), 0, 0);
    let mut stage = Stage::Select;
    let mut sink = |data: burn_lens::sae::features::FeatureData| {
        (n, active) = (n + 1, active + data.statistics.n_active);
        Ok(())
    };
    let mut progress = |done: burn_lens::sae::features::Progress| {
        if done.stage != stage || done.done == done.total {
            println!("  {:?}, {} of {}: {}", done.stage, done.done, done.total, last.read());
            (stage, last) = (done.stage, Watch::start());
        }
    };
    build(run, &[&store], &mut sink, &mut progress).expect("features");
    let n_tokens = run.tokens.n_prompts() * N_POSITIONS;
    println!(
        "{n} features, {n_tokens} tokens, {:.1} of them active at a token: {}; {} MiB at most",
        active as f64 / n_tokens as f64,
        begun.read(),
        peak_mib().unwrap_or(0),
    );
}

fn features(c: &mut Criterion) {
    let from_environment =
        |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let n_prompts = from_environment("BURN_LENS_PROMPTS", 64);
    let counts = std::env::var("BURN_LENS_FEATURES").unwrap_or_else(|_| format!("32,64,1024,{D_SAE}"));
    let counts = counts.split(',').map(|n| n.trim().parse::<usize>().expect("BURN_LENS_FEATURES: numbers"));
    let model = GELU_1L.model(&device());
    let tokens = tokens(n_prompts);
    let source = dictionary(&model, &tokens, 1);
    let second = (from_environment("BURN_LENS_SECOND", 0) > 0).then(|| dictionary(&model, &tokens, 3));
    let chosen = std::env::var("BURN_LENS_CORRELATE").is_ok_and(|with| with == "chosen");
    let correlate = if chosen { Correlate::Chosen } else { Correlate::All };
    let options = |n: usize| FeatureOptions {
        correlate,
        features: FeatureChoice::Some((0..n.min(source.n_features())).collect()),
        ..FeatureOptions::default()
    };
    let default = FeatureOptions::default();
    let base = FeatureRun {
        model: &model,
        model_name: "gelu-1l",
        source: &source,
        source_b: second.as_ref().map(|source| source as &dyn FeatureSource),
        tokens: &tokens,
        options: &default,
    };
    for n in counts {
        stages(&FeatureRun { options: &options(n), ..base });
    }
    if n_prompts > 64 {
        return; // stages alone
    }
    let mut group = c.benchmark_group("features gelu-1l");
    group.sample_size(10).measurement_time(Duration::from_secs(20)).warm_up_time(Duration::from_secs(1));
    for n in [32, 128] {
        let options = options(n);
        let run = FeatureRun { options: &options, ..base };
        let mut store = MemoryStore::default();
        collect(&run, 0..n_prompts, &mut store, &mut |_| ()).expect("a run");
        group.bench_function(format!("{n} features after the run"), |b| {
            b.iter(|| build(&run, &[&store], &mut |_| Ok(()), &mut |_| ()).expect("features"));
        });
    }
    group.finish();
}

criterion_group!(benches, features);
criterion_main!(benches);
