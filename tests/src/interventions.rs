//! Sweeps that reuse the base run equal the plain loop of whole runs, on models of every layout.

use std::{ops::ControlFlow, sync::Arc};

use burn_lens::{
    analysis::{
        AnalysisError,
        interventions::{
            Cost, Edit, Engine, EngineOptions, Intervention, Metric, MetricKind, MetricPos, Reuse, Sweep,
            SweepAxis, SweepOutcome, SweepState, Values,
        },
    },
    models::{
        ModelConfig,
        components::{Pairing, Positions, Rotary, RotaryScaling},
    },
    prelude::*,
};
use proptest::prelude::*;

use burn_lens_testkit::finest;

use crate::activation_cache_models::{Bigram, random_config, with_random_weights};

pub(crate) const POS: usize = 6;

/// A model with windows, grouped queries, rotation, norms on queries and keys, soft-caps, clamps, sinks.
pub(crate) fn random_model(choice: [usize; 8], extras: usize, seed: u64) -> HookedTransformer {
    let mut config = random_config(choice, seed);
    let has = |bit: usize| extras >> bit & 1 == 1;
    let attention = &mut config.attention;
    if has(0) {
        attention.windows = (0..config.n_layers).map(|layer| (layer % 2 == 0).then_some(3)).collect();
    }
    if has(1) {
        attention.qk_norm_eps = Some(1e-5);
    }
    if has(2) {
        attention.scores_soft_cap = Some(2.0);
        config.logits_soft_cap = Some(3.0);
    }
    if has(3) {
        attention.clip_qkv = Some(0.5);
    }
    attention.sinks = has(4);
    attention.bidirectional = has(5) && has(6);
    if has(7) && config.positions != Positions::Alibi {
        config.attention.d_head = 6;
        config.positions = Positions::Rotary(Rotary {
            dim: 4,
            base: 100.0,
            local_base: has(0).then_some(10.0),
            pairing: if has(1) { Pairing::Halves } else { Pairing::Adjacent },
            scaling: RotaryScaling::None,
        });
    }
    with_random_weights(ModelConfig { unembed_bias: has(3), ..config }, seed)
}

/// Every kind of edit, at points of every part of a block.
fn cells(model: &HookedTransformer, clean: &Arc<ActivationCache>, seed: u64) -> Vec<Vec<Intervention>> {
    let firing = model.firing();
    let mut points: Vec<HookPoint> = firing.always.iter().chain(&firing.optional).copied().collect();
    points.retain(|point| !point.is_integer());
    let mut cells = Vec::new();
    let mut next = seed;
    let mut draw = |count: usize| {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (next >> 33) as usize % count
    };
    for point in points {
        let pos = [Slice::All, Slice::Index(draw(POS) as isize), Slice::range(2, 4), Slice::List(vec![4, 1])];
        let mut one = match draw(5) {
            // A divisor of zero gives what no arithmetic defines.
            0 if !point.to_string().ends_with("hook_scale") => Intervention::zero(point),
            1 => Intervention::new(point, Edit::Scale(0.5)),
            // Nor does the difference of two scores that a mask made infinite; and what is not a number reaches
            // positions that do not see it, by a weight of 0.
            2 if !point.to_string().ends_with("hook_attn_scores") => {
                Intervention::new(point, Edit::Add(Values::Run(Arc::clone(clean)), -0.5))
            }
            3 => Intervention::new(
                point,
                Edit::Apply(Arc::new(|x: AnyTensor| match x {
                    AnyTensor::Float3(x) => (x.tanh() * 2.0).into(),
                    AnyTensor::Float4(x) => (x * 0.25).into(),
                    other => other,
                })),
            ),
            _ => Intervention::patch(point, clean),
        };
        if point.pos_axis().is_some() {
            one = one.pos(pos[draw(4)].clone());
        }
        if point.head_axis().is_some() && draw(2) == 0 {
            one = one.heads(Slice::Index(-1));
        }
        if draw(3) == 0 {
            one = one.rows(Slice::Index(0));
        }
        cells.push(vec![one]);
    }
    // Several at once: what the first changes, the second may set back.
    let both: Vec<Vec<Intervention>> =
        cells.windows(2).step_by(3).map(|pair| [pair[0].clone(), pair[1].clone()].concat()).collect();
    cells.extend(both);
    cells
}

fn metrics(reference: &Tensor<3>) -> Vec<Metric> {
    vec![
        Metric::logit_diff([3, 1], [2]),
        Metric::new(MetricKind::Probability(vec![4])).at(MetricPos::At(2)),
        Metric::new(MetricKind::Loss),
        Metric::new(MetricKind::Kl(reference.clone())).at(MetricPos::All),
        Metric::new(MetricKind::LogProbability(vec![0, 5])).at(MetricPos::EachPrompt(vec![5, 3])),
        Metric::new(MetricKind::Custom(Arc::new(|logits: Tensor<3>| {
            let [batch, _, _] = logits.dims();
            logits.powi_scalar(2).mean_dim(2).sum_dim(1).reshape([batch])
        }))),
    ]
}

/// One whole run with its own hooks, apart from what the engine does.
fn plain(engine: &Engine<'_, HookedTransformer>, cell: &[Intervention]) -> Vec<f64> {
    let sweep = Sweep::list(SweepAxis::counted("cell", 1), vec![cell.to_vec()]);
    engine.sweep(&sweep).unwrap().cells[0].clone()
}

pub(crate) fn close(found: &[f64], expected: &[f64]) -> bool {
    let tolerance = if finest() == FloatType::F64 { 1e-9 } else { 1e-4 };
    let near =
        |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * b.abs().max(1.0) || (a.is_nan() && b.is_nan());
    found.len() == expected.len() && found.iter().zip(expected).all(near)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reuse_equals_whole_runs(
        choice in (1usize..4, 1usize..3, 1usize..3, 0usize..2, 0usize..3, 0usize..3, 0usize..3, 0usize..3),
        extras in 0usize..256,
        padding in 0usize..3,
        metric in 0usize..6,
        seed in 0u64..1000,
    ) {
        let (a, b, c, d, e, f, g, h) = choice;
        let model = random_model([a, b, c, d, e, f, g, h], extras, seed);
        let clean = Tensor::<2, Int>::from_data([[1, 5, 3, 9, 0, 2], [4, 4, 10, 2, 7, 1]], &model.device());
        let corrupt = Tensor::<2, Int>::from_data([[1, 5, 8, 9, 0, 2], [4, 4, 10, 2, 6, 1]], &model.device());
        let mask = [
            None,
            Some([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]),
            Some([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]),
        ][padding];
        let attention_mask = mask.map(|mask| Tensor::<2, Int>::from_data(mask, &model.device()));
        let run = RunOptions { attention_mask, ..RunOptions::default() };
        let firing = model.firing();
        let names: Vec<HookPoint> =
            firing.always.iter().chain(&firing.optional).copied().filter(|point| !point.is_integer()).collect();
        let (output, cache) = model.run_with_cache(&(&clean).into(), &run, &CacheOptions::names(names)).unwrap();
        let metric = metrics(&output.into_logits().unwrap())[metric].clone();
        let cells = cells(&model, &Arc::new(cache), seed);
        let sweep = Sweep::list(SweepAxis::counted("cell", cells.len()), cells.clone());
        let memory = [1, 20_000, 1 << 30][seed as usize % 3];
        let whole = Engine::new(&model, &corrupt, &run, &metric, EngineOptions {
            reuse: Reuse { layers: false, positions: false, readout: false, batching: false },
            ..EngineOptions::default()
        }).unwrap();
        let engine = Engine::new(&model, &corrupt, &run, &metric, EngineOptions {
            memory,
            verify: cells.len(),
            tolerance: 1e-5,
            ..EngineOptions::default()
        }).unwrap();
        // Every cell is compared with a whole run of the model by `verify`, too.
        let result = engine.sweep(&sweep);
        let result = result.unwrap_or_else(|error| {
            let cell = if let AnalysisError::Verify { cell, .. } = error { Some(&cells[cell]) } else { None };
            panic!("{choice:?} {extras} {padding} {seed}: {error}: {cell:?}")
        });
        for (at, (found, cell)) in result.cells.iter().zip(&cells).enumerate().step_by(5) {
            let expected = plain(&whole, cell);
            prop_assert!(close(found, &expected), "cell {at} {cell:?}: {found:?} against {expected:?}");
        }
    }
}

fn small() -> (HookedTransformer, Tensor<2, Int>, Arc<ActivationCache>) {
    let model = random_model([3, 2, 2, 0, 0, 0, 1, 1], 0, 7);
    let clean = Tensor::<2, Int>::from_data([[1, 5, 3, 9, 0, 2]], &model.device());
    let corrupt = Tensor::<2, Int>::from_data([[1, 5, 3, 8, 0, 2]], &model.device());
    let names = CacheOptions::default();
    let cache = model.run_with_cache(&(&clean).into(), &RunOptions::default(), &names).unwrap().1;
    (model, corrupt, Arc::new(cache))
}

fn resid_sweep(clean: &Arc<ActivationCache>) -> Sweep {
    let cell = |at: usize| {
        vec![Intervention::patch(HookPoint::ResidPre(at / POS), clean).pos(Slice::Index((at % POS) as isize))]
    };
    let cells = (0..3 * POS).map(|at| Some(cell(at))).collect();
    Sweep { axes: vec![SweepAxis::counted("layer", 3), SweepAxis::counted("pos", POS)], cells }
}

fn engine<'m>(
    model: &'m HookedTransformer,
    corrupt: &Tensor<2, Int>,
    memory: usize,
) -> Engine<'m, HookedTransformer> {
    let options = EngineOptions { memory, ..EngineOptions::default() };
    Engine::new(model, corrupt, &RunOptions::default(), &Metric::logit_diff([3], [4]), options).unwrap()
}

#[test]
fn cost_is_known_before_the_start() {
    let (model, corrupt, clean) = small();
    let (engine, sweep) = (engine(&model, &corrupt, 1 << 30), resid_sweep(&clean));
    let prepared = engine.prepare(&sweep).unwrap();
    let Cost { cells, unchanged, full, forwards, bytes, .. } = prepared.cost();
    // The prompts differ at position 3: nothing before it, and in the embedding nothing behind it.
    assert_eq!((cells, unchanged, full), (18, 3 * 3 + 2, 0));
    assert!(forwards > 0.0 && forwards < 3.0, "{forwards}");
    assert!(bytes > 0);
}

#[test]
fn an_interrupted_sweep_goes_on_where_it_was() {
    let (model, corrupt, clean) = small();
    let (engine, sweep) = (engine(&model, &corrupt, 1), resid_sweep(&clean));
    let prepared = engine.prepare(&sweep).unwrap();
    let whole = engine.sweep(&sweep).unwrap();
    let mut steps = 0;
    let outcome = prepared
        .run(None, &mut |_| {
            steps += 1;
            if steps == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    let SweepOutcome::Interrupted(state) = outcome else { panic!("it was interrupted") };
    assert!(state.done() < 18);
    let text = serde_json::to_string(&state).unwrap();
    let state: SweepState = serde_json::from_str(&text).unwrap();
    let mut rest = 0;
    let outcome = prepared.run(Some(state.clone()), &mut |_| {
        rest += 1;
        ControlFlow::Continue(())
    });
    let SweepOutcome::Done(result) = outcome.unwrap() else { panic!("it ran to its end") };
    assert_eq!((result, rest), (whole, 5));

    let other =
        Sweep::list(SweepAxis::counted("cell", 1), vec![vec![Intervention::zero(HookPoint::AttnZ(0))]]);
    let error =
        engine.prepare(&other).unwrap().run(Some(state), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("another sweep"), "{error}");
}

#[test]
fn results_do_not_depend_on_the_memory_budget() {
    let (model, corrupt, clean) = small();
    let sweep = resid_sweep(&clean);
    let one = engine(&model, &corrupt, 1).sweep(&sweep).unwrap();
    let all = engine(&model, &corrupt, 1 << 30).sweep(&sweep).unwrap();
    for (a, b) in one.values().iter().zip(all.values()) {
        assert!((a - b).abs() < if finest() == FloatType::F64 { 1e-12 } else { 1e-5 });
    }
}

#[test]
fn hooks_on_the_model_are_kept() {
    let (model, corrupt, clean) = small();
    let sweep = resid_sweep(&clean);
    let without = engine(&model, &corrupt, 1 << 30).sweep(&sweep).unwrap();
    let scope = model.hook_scope(vec![Hook::edit("mlp_out2", |x: Tensor<3>, _: &mut HookContext| x * 0.0)]);
    let scope = scope.unwrap();
    let with = engine(&model, &corrupt, 1 << 30);
    assert_eq!(with.prepare(&sweep).unwrap().cost().full, 18 - 11);
    assert_ne!(with.sweep(&sweep).unwrap().base, without.base);
    drop(scope);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (model, corrupt, clean) = small();
    let engine = engine(&model, &corrupt, 1 << 30);
    let fails = |one: Intervention, text: &str| {
        let error = engine.measure(&[one]).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    fails(Intervention::zero(HookPoint::ResidPre(9)), "3 layers");
    fails(Intervention::zero(HookPoint::AttnZ(0)).heads(Slice::Index(7)), "heads: position 7");
    fails(Intervention::zero(HookPoint::ResidPre(0)).heads(Slice::Index(0)), "no head axis");
    fails(Intervention::patch(HookPoint::AttnQ(0), &clean).pos(Slice::Index(6)), "positions: position 6");
    let wide = AnyTensor::from(Tensor::<3>::zeros([1, 1, 5], &model.device()));
    let add = Edit::Add(Values::Tensor(wide), 1.0);
    fails(Intervention::new(HookPoint::ResidPre(0), add), "the values of an intervention");
    let metric = Metric::logit_diff([3, 4, 5], [2]);
    let error = Engine::new(&model, &corrupt, &RunOptions::default(), &metric, EngineOptions::default());
    assert!(error.err().unwrap().to_string().contains("the tokens of the metric"));
}

/// A model of a user's own, without partial passes, is run in full.
#[test]
fn other_models_fall_back_to_whole_runs() {
    let device = burn_lens_testkit::device();
    let model = Bigram {
        w_e: Tensor::from_data([[1.0, 2.0], [3.0, -1.0]], &device),
        w_u: Tensor::from_data([[1.0, 0.0], [0.5, 2.0]], &device),
    };
    let input = Input::Embeds(Tensor::from_data([[[1.0, 2.0], [3.0, -1.0]]], &device));
    let metric = Metric::logit_diff([0], [1]);
    let engine =
        Engine::new(&model, input, &RunOptions::default(), &metric, EngineOptions::default()).unwrap();
    let cells = vec![vec![Intervention::zero(HookPoint::MlpOut(0))], vec![]];
    let sweep = Sweep::list(SweepAxis::counted("cell", 2), cells);
    assert_eq!(engine.prepare(&sweep).unwrap().cost().full, 1);
    // The last token's stream is (3, -1), and half as much again with the MLP: 2.5 less -2.
    let values = engine.sweep(&sweep).unwrap().values();
    assert!(close(&values, &[4.5, 6.75]), "{values:?}");
}
