//! Patching, attribution and head detection against TransformerLens 3.9.0 and their definitions
//! (`oracle/patching.py`).

use std::sync::Arc;

use burn::tensor::TensorData;
use burn_lens::{
    analysis::interventions::{
        DetectOptions, EdgeGradients, EdgeRuns, EdgeSet, Engine, EngineOptions, ErrorMeasure, HeadPattern,
        Intervention, Metric, MetricKind, Patch, Sweep, SweepAxis, detect_heads, patching_sweep,
    },
    prelude::*,
};
use burn_lens_testkit::{Golden, Tolerance, assert_close, fixture, fixtures, float_types};
use serde_json::Value;

use crate::common::load;

/// One fixture: a model, a clean and a corrupt batch of prompts, cases.
pub(crate) struct Suite {
    pub(crate) name: String,
    pub(crate) cases: Value,
    pub(crate) golden: Golden,
}

impl Suite {
    pub(crate) fn open(name: &str) -> Self {
        let folder = fixture(name);
        let text = std::fs::read_to_string(folder.join("cases.json")).unwrap();
        Self {
            name: name.to_owned(),
            cases: serde_json::from_str(&text).unwrap(),
            golden: Golden::open(folder.join("cases.safetensors")),
        }
    }

    pub(crate) fn model(&self, dtype: FloatType) -> HookedTransformer {
        load(&fixture(self.cases["model"].as_str().unwrap()), dtype)
    }

    pub(crate) fn tokens(&self, name: &str, model: &HookedTransformer) -> Tensor<2, Int> {
        self.golden.ints(name, &model.device())
    }

    pub(crate) fn metric(&self) -> Metric {
        let ids = |name: &str| -> Vec<usize> {
            self.golden.values(name).into_iter().map(|id| id as usize).collect()
        };
        Metric::logit_diff(ids("answers"), ids("against"))
    }

    pub(crate) fn of(&self, method: &str) -> Vec<&Value> {
        let cases = self.cases["cases"].as_array().unwrap().iter();
        cases.filter(|case| case["method"].as_str().unwrap().starts_with(method)).collect()
    }

    pub(crate) fn expected(&self, case: &Value) -> TensorData {
        self.golden.get(case["tensor"].as_str().unwrap()).clone()
    }
}

pub(crate) fn suites() -> Vec<Suite> {
    fixtures(|name| name.starts_with("patching-")).iter().map(|name| Suite::open(name)).collect()
}

#[test]
fn every_sweep_of_transformer_lens() {
    let mut checked = 0;
    for suite in suites() {
        for dtype in float_types() {
            let model = suite.model(dtype);
            let (clean, corrupt) = (suite.tokens("clean", &model), suite.tokens("corrupt", &model));
            let engine = Engine::new(
                &model,
                &corrupt,
                &RunOptions::default(),
                &suite.metric(),
                EngineOptions { verify: 3, ..EngineOptions::default() },
            )
            .unwrap();
            let pos = clean.dims()[1];
            for case in suite.of("get_act_patch") {
                let what = format!("{} {}", suite.name, case["id"]);
                let patch: Patch = case["method"].as_str().unwrap().parse().unwrap();
                let names = CacheOptions::names(patch.hooks(&model));
                let from = model.run_with_cache(&(&clean).into(), &RunOptions::default(), &names).unwrap().1;
                let sweep = patching_sweep(&model, patch, &Arc::new(from), pos).unwrap();
                let axes: Vec<&str> = sweep.axes.iter().map(|axis| axis.name.as_str()).collect();
                assert_eq!(Value::from(axes), case["axes"], "{what}");
                if let Some(labels) = case["labels"].as_array() {
                    assert_eq!(
                        &Value::from(sweep.axes[0].labels.clone()),
                        &Value::from(labels.clone()),
                        "{what}"
                    );
                }
                let result = engine.sweep(&sweep).unwrap();
                let found = TensorData::new(result.values(), result.shape());
                assert_close(&what, &found, &suite.expected(case), Tolerance::of(dtype));
                checked += 1;
            }
        }
    }
    assert!(checked > 60 * float_types().len(), "only {checked} sweeps");
}

#[test]
fn names_of_sweeps_round_trip() {
    for patch in Patch::all() {
        assert_eq!(patch.to_string().parse::<Patch>().unwrap(), patch);
    }
    assert_eq!("head_z".parse::<Patch>().unwrap().to_string(), "head_out");
    let error = "head_zz".parse::<Patch>().unwrap_err().to_string();
    assert!(error.contains("did you mean"), "{error}");
}

/// Estimates from one backward pass against torch's on the same model.
#[test]
fn attribution_patching_agrees_with_torch() {
    let mut checked = 0;
    for suite in suites() {
        for dtype in float_types() {
            let model = suite.model(dtype);
            let (clean, corrupt) = (suite.tokens("clean", &model), suite.tokens("corrupt", &model));
            let engine = Engine::new(
                &model,
                &corrupt,
                &RunOptions::default(),
                &suite.metric(),
                EngineOptions::default(),
            )
            .unwrap();
            for case in suite.of("attribution_patch") {
                let what = format!("{} {}", suite.name, case["id"]);
                let name = case["args"]["activation"].as_str().unwrap();
                let sweep = if name == "mlp.hook_post" {
                    neuron_sweep(&model, &clean)
                } else {
                    let patch: Patch = name.parse().unwrap();
                    let names = CacheOptions::names(patch.hooks(&model));
                    let from =
                        model.run_with_cache(&(&clean).into(), &RunOptions::default(), &names).unwrap().1;
                    patching_sweep(&model, patch, &Arc::new(from), clean.dims()[1]).unwrap()
                };
                let result = engine.attribute(&sweep).unwrap();
                let base = result.base_value();
                let values: Vec<f64> = result.values().iter().map(|value| value - base).collect();
                let found = TensorData::new(values, result.shape());
                let tolerance = Tolerance(10.0 * Tolerance::of(dtype).0);
                assert_close(&what, &found, &suite.expected(case), tolerance);
                checked += 1;
            }
        }
    }
    assert!(checked > 60 * float_types().len(), "only {checked} estimates");
}

fn neuron_sweep(model: &HookedTransformer, clean: &Tensor<2, Int>) -> Sweep {
    let names = CacheOptions::names(["blocks.*.mlp.hook_post"]);
    let from = Arc::new(model.run_with_cache(&clean.into(), &RunOptions::default(), &names).unwrap().1);
    let (layers, pos, neurons) = (model.config().n_layers, clean.dims()[1], model.dims().d_mlp);
    let cell = |at: usize| {
        let (layer, place, neuron) = (at / neurons / pos, at / neurons % pos, at % neurons);
        let patch = Intervention::patch(HookPoint::MlpPost(layer), &from);
        Some(vec![patch.pos(Slice::Index(place as isize)).units(Slice::Index(neuron as isize))])
    };
    Sweep {
        axes: vec![
            SweepAxis::counted("layer", layers),
            SweepAxis::counted("pos", pos),
            SweepAxis::counted("neuron", neurons),
        ],
        cells: (0..layers * pos * neurons).map(cell).collect(),
    }
}

#[test]
fn a_rank_has_no_gradient() {
    let suite = Suite::open("patching-ln");
    let model = suite.model(FloatType::F32);
    let corrupt = suite.tokens("corrupt", &model);
    let metric = Metric::new(MetricKind::Rank(vec![3]));
    let engine =
        Engine::new(&model, &corrupt, &RunOptions::default(), &metric, EngineOptions::default()).unwrap();
    let sweep = neuron_sweep(&model, &corrupt);
    let error = engine.attribute(&sweep).unwrap_err();
    assert!(error.to_string().contains("no gradient"), "{error}");
    assert!(engine.sweep(&sweep).is_ok());
}

#[test]
fn head_detection_of_transformer_lens() {
    let mut checked = 0;
    for suite in suites() {
        for dtype in float_types() {
            let model = suite.model(dtype);
            for case in suite.of("detect_head") {
                let args = &case["args"];
                let texts: Vec<Vec<i64>> = args["seq"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|name| suite.golden.get(name.as_str().unwrap()).iter::<i64>().collect())
                    .collect();
                let flag = |name: &str| args[name].as_bool().unwrap();
                let pairs = |heads: &Vec<Value>| -> Vec<(usize, usize)> {
                    let at = |pair: &Value, i: usize| pair[i].as_u64().unwrap() as usize;
                    heads.iter().map(|pair| (at(pair, 0), at(pair, 1))).collect()
                };
                let options = DetectOptions {
                    measure: match args["error_measure"].as_str().unwrap() {
                        "mul" => ErrorMeasure::Mul,
                        _ => ErrorMeasure::Abs,
                    },
                    exclude_bos: flag("exclude_bos"),
                    exclude_current_token: flag("exclude_current_token"),
                    heads: args["heads"].as_array().map(pairs),
                    ..DetectOptions::new(
                        args["detection_pattern"].as_str().unwrap().parse::<HeadPattern>().unwrap(),
                    )
                };
                let scores = detect_heads(&model, &texts, &options).unwrap();
                let found = TensorData::new(scores.values, [scores.n_layers, scores.n_heads]);
                let what = format!("{} {}", suite.name, case["id"]);
                assert_close(&what, &found, &suite.expected(case), Tolerance::of(dtype));
                checked += 1;
            }
        }
    }
    assert!(checked > 90, "only {checked} scores");
}

/// EAP and EAP-IG against their definitions on torch's gradients.
#[test]
fn edge_attribution_agrees_with_its_definition() {
    let mut checked = 0;
    for suite in suites() {
        for dtype in float_types() {
            let model = suite.model(dtype);
            let (clean, corrupt) = (suite.tokens("clean", &model), suite.tokens("corrupt", &model));
            let engine = Engine::new(
                &model,
                &corrupt,
                &RunOptions::default(),
                &suite.metric(),
                EngineOptions::default(),
            )
            .unwrap();
            for case in suite.of("edge_attribution") {
                let what = format!("{} {}", suite.name, case["id"]);
                let at = match case["args"]["gradient_at"].as_str().unwrap() {
                    "corrupt" => EdgeGradients::Base,
                    "clean" => EdgeGradients::Other,
                    _ => EdgeGradients::Integrated(case["args"]["steps"].as_u64().unwrap() as usize),
                };
                let scores = engine.edge_attribution(&(&clean).into(), at).unwrap();
                assert_eq!(Value::from(scores.senders.clone()), case["labels"]["sender"], "{what}");
                assert_eq!(Value::from(scores.receivers.clone()), case["labels"]["receiver"], "{what}");
                let found = TensorData::new(scores.scores, [scores.senders.len(), scores.receivers.len()]);
                let tolerance = Tolerance(10.0 * Tolerance::of(dtype).0);
                assert_close(&what, &found, &suite.expected(case), tolerance);
                checked += 1;
            }
        }
    }
    assert!(checked >= 6, "only {checked} cases");
}

/// Cutting nothing is the clean run, cutting everything the corrupt one; and an edge into the logits
/// carries what the model's last norm and unembedding make of it.
#[test]
fn cut_edges_lead_from_one_run_to_the_other() {
    for name in ["patching-ln", "patching-rms-gqa", "patching-parallel", "patching-local"] {
        let suite = Suite::open(name);
        let model = suite.model(burn_lens_testkit::finest());
        let (clean, corrupt) = (suite.tokens("clean", &model), suite.tokens("corrupt", &model));
        let engine =
            Engine::new(&model, &clean, &RunOptions::default(), &suite.metric(), EngineOptions::default())
                .unwrap();
        let runs = EdgeRuns::new(&engine, &(&corrupt).into()).unwrap();
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-5, "{name}: {found} against {expected}");
        };
        let [metric_clean, metric_corrupt] =
            ["metric.clean", "metric.corrupt"].map(|metric| suite.golden.values(metric)[0]);
        near(runs.measure(&EdgeSet::new()).unwrap(), metric_clean);
        let all: EdgeSet = runs.nodes().edges().into_iter().collect();
        near(runs.measure(&all).unwrap(), metric_corrupt);
        // A threshold of zero keeps every edge, one that nothing reaches keeps none.
        let mut go = |_: usize, _: usize| std::ops::ControlFlow::Continue(());
        let sweep = runs.prune(&[0.0, 1e9], &mut go).unwrap();
        let [whole, none] = &sweep.circuits[..] else { panic!("two thresholds") };
        assert_eq!(whole.edges.len(), whole.of);
        near(whole.faithfulness(), 1.0);
        assert!(none.edges.is_empty());
        near(none.metric[1], metric_corrupt);
        // Most of a run is reused: edges are tested from the end.
        assert!(sweep.work < sweep.runs as f64, "{name}: {} of {}", sweep.work, sweep.runs);
    }
}
