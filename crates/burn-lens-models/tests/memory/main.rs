//! Planned memory beside what an allocator counts.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use burn::tensor::{Int, Tensor, TensorData};
use burn_lens_hooks::{CacheOptions, HookPoint, HookedModel as _, Input, ReturnType, RunOptions, Selector};
use burn_lens_models::{
    AttentionPath, HookedTransformer, PlannedRun, architecture_config, random_parameters,
};
use burn_lens_tensor::{DeviceSpec, FloatType, Slice, kernels};

/// The system's allocator, and how many bytes it gave out.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// Allocations that are large enough for an activation of the runs here.
static ACTIVATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        ACTIVATIONS.fetch_add(usize::from(layout.size() >= 128 * 1024), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One measurement at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Planned and measured peaks differ by no more than this share.
const SHARE: f64 = 0.05;

const GPT2: &str = r#"{"architectures": ["GPT2LMHeadModel"], "n_layer": 3, "n_embd": 128, "n_head": 4,
    "vocab_size": 1500, "n_positions": 256, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}"#;

const LLAMA: &str = r#"{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 3, "hidden_size": 128,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 352, "vocab_size": 1500,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000.0,
    "tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false}"#;

fn model(config: &str) -> HookedTransformer {
    let device = DeviceSpec::cpu().open().unwrap();
    let config = architecture_config(config).unwrap().1;
    let params = random_parameters(&config, 0, &device, FloatType::F32);
    HookedTransformer::new(config, params).unwrap()
}

fn points(model: &HookedTransformer, names: &[&str]) -> Vec<HookPoint> {
    let firing = model.firing();
    names.iter().flat_map(|&name| Selector::from(name).resolve(&firing).unwrap()).collect()
}

/// Two prompts of 200 tokens.
fn input(model: &HookedTransformer) -> Input {
    let ids: Vec<i64> = (0..2 * 200).map(|at| at * 37 % 1500).collect();
    Input::from(Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 200]), &model.device()))
}

/// Allocates what threads allocate once: room for products of many rows.
fn warm_up(model: &HookedTransformer) {
    let x = Tensor::<2>::zeros([128, 128], (&model.device(), model.dtype()));
    rayon::broadcast(|_| drop(kernels::linear(x.clone(), x.clone(), None)));
}

/// Bytes that a run takes at most, with what it returns.
fn measured(model: &HookedTransformer, options: &RunOptions, kept: &[HookPoint], pos: &Slice) -> usize {
    let input = input(model);
    let run = || {
        if kept.is_empty() {
            model.run_with_hooks(&input, options, vec![]).map(|output| (output, None)).unwrap()
        } else {
            let cache = CacheOptions { pos_slice: pos.clone(), ..CacheOptions::names(kept.to_vec()) };
            let (output, cache) = model.run_with_cache(&input, options, &cache).unwrap();
            (output, Some(cache))
        }
    };
    warm_up(model);
    drop(run()); // what is allocated once for all runs
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = run();
    let peak = PEAK.load(Ordering::Relaxed) - before;
    drop(result);
    peak
}

#[track_caller]
fn check(what: &str, model: &HookedTransformer, options: &RunOptions, kept: &[HookPoint], pos: &Slice) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let run = PlannedRun { size: [2, 200], options, kept, kept_pos: pos, hooked: &[] };
    let plan = model.plan(&run).unwrap();
    let measured = measured(model, options, kept, pos);
    let off = plan.peak_bytes as f64 / measured as f64 - 1.0;
    assert!(off.abs() <= SHARE, "{what}: planned {}, measured {measured}: {off:+.3}", plan.peak_bytes);
}

#[test]
fn the_planned_peak_is_the_measured_one() {
    for (name, config) in [("gpt2", GPT2), ("llama", LLAMA)] {
        let model = model(config);
        let logits = RunOptions::default();
        let on = |what: &str| format!("{name}: {what}");
        check(&on("nothing kept"), &model, &logits, &[], &Slice::All);
        let all = model.firing().always;
        check(&on("everything kept"), &model, &logits, &all, &Slice::All);
        let streams = points(&model, &["blocks.*.hook_resid_post"]);
        check(&on("streams kept"), &model, &logits, &streams, &Slice::All);
        let patterns = points(&model, &["blocks.*.attn.hook_pattern"]);
        check(&on("patterns kept"), &model, &logits, &patterns, &Slice::All);
        check(&on("part of everything kept"), &model, &logits, &all, &Slice::range(0, 50));
        let last = RunOptions { logits_pos: Slice::Index(-1), ..RunOptions::default() };
        check(&on("last logits"), &model, &last, &[], &Slice::All);
        let nothing = RunOptions::returning(ReturnType::None);
        check(&on("no logits"), &model, &nothing, &streams, &Slice::All);
    }
}

#[test]
fn a_run_leaves_nothing_and_takes_one_buffer_for_each_activation() {
    /// What threads that wait for work may take or give back meanwhile.
    const BESIDE: usize = 64 * 1024;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, config) in [("gpt2", GPT2), ("llama", LLAMA)] {
        let model = model(config);
        let input = input(&model);
        let run = || drop(model.run_with_hooks(&input, &RunOptions::default(), vec![]).unwrap());
        warm_up(&model);
        run(); // what is allocated once for all runs
        let (live, made) = (LIVE.load(Ordering::Relaxed), ACTIVATIONS.load(Ordering::Relaxed));
        run();
        let made = ACTIVATIONS.load(Ordering::Relaxed) - made;
        assert!(LIVE.load(Ordering::Relaxed).abs_diff(live) <= BESIDE, "{name}: something stays");
        // Per block two norms, queries, keys, values, z, what both halves write, and neurons (two with a gate);
        // beside them embeddings, the last norm and logits.
        let most = 10 * model.config().n_layers + 4;
        assert!(made <= most, "{name}: {made} buffers");
    }
}

#[test]
fn a_plan_says_what_will_happen() {
    let model = model(GPT2);
    let options = RunOptions { stop_at_layer: Some(2), ..RunOptions::default() };
    let run = PlannedRun {
        size: [1, 10],
        options: &options,
        kept: &[HookPoint::ResidPre(1)],
        kept_pos: &Slice::Index(-1),
        hooked: &[HookPoint::AttnPattern(1)],
    };
    let plan = model.plan(&run).unwrap();
    assert_eq!((plan.layers, plan.stopped), ([0, 2], true));
    assert_eq!(plan.attention, AttentionPath::Stored { layers: vec![1] });
    assert_eq!((plan.kept[0].shape.as_slice(), plan.kept_bytes()), (&[1, 1, 128][..], 512));
    // Two blocks: 4 d² and 8 d² of weights, and 55 pairs of query and key in each.
    assert_eq!(plan.flops(), 2 * (2 * 10 * 12 * 128 * 128 + 4 * 55 * 128));
    // The last logits alone: of the last block keys and values of ten positions, the rest of one.
    let last = RunOptions { logits_pos: Slice::Index(-1), ..RunOptions::default() };
    let n_layers = model.config().n_layers as u64;
    let tail_run = PlannedRun { options: &last, kept: &[], hooked: &[], ..run };
    let plan = model.plan(&tail_run).unwrap();
    let whole = (n_layers - 1) * (2 * 10 * 12 * 128 * 128 + 4 * 55 * 128);
    let tail = 2 * (10 * 2 + 10) * 128 * 128 + 4 * 10 * 128;
    assert_eq!(plan.flops(), whole + tail + 2 * 128 * 1500);
    let weights: usize = model.parameters().iter().map(|(_, tensor)| tensor.num_bytes()).sum();
    let tied = 1500 * 128 * 4;
    assert_eq!(plan.weights_bytes as usize, weights - tied);

    let bad = RunOptions { stop_at_layer: Some(9), ..RunOptions::default() };
    assert!(model.plan(&PlannedRun { options: &bad, ..run.clone() }).is_err());
    let outside = Slice::Index(70);
    assert!(model.plan(&PlannedRun { kept_pos: &outside, ..run }).is_err());
}
