//! Training of models without a vocabulary: torch's AdamW, and runs that are interrupted.

use std::{collections::BTreeMap, ops::ControlFlow};

use burn::tensor::TensorData;
use burn_lens::{
    io::{read_safetensors, save_safetensors},
    linalg::regression::{Loss, classifier, least_squares, ridge},
    models::{Parameters, convert::Converter as _, random_parameters},
    prelude::*,
};
use burn_lens_testkit::{Golden, Tolerance, assert_close, device, finest, fixture};
use burn_lens_train::{
    Batches as _, History, Schedule, Snapshot, Targets, TrainConfig, TrainError, Trainer, VectorBatch,
    in_context::{
        Boolean, Classification, Episodes, Function, ModelSize, Problem, Regression, Selection, evaluate,
        held_out,
    },
    train,
};

use crate::in_context::{converted, rules};

/// The optimizer's rates are `f32` in burn, so ten steps agree to that.
const STEPS: Tolerance = Tolerance(1e-6);

fn batch(golden: &Golden, step: usize) -> VectorBatch {
    let (batch, pos, d_in) = (4, 9, 3);
    let part = |name: &str, len: usize| golden.values(name)[step * len..(step + 1) * len].to_vec();
    VectorBatch {
        batch,
        pos,
        inputs: part("inputs", batch * pos * d_in),
        targets: Targets::Values(part("targets", batch * pos)),
        weights: vec![1.0; batch * pos],
    }
}

fn torch_settings() -> TrainConfig {
    TrainConfig {
        steps: 10,
        learning_rate: 1e-2,
        warmup_steps: 0,
        schedule: Schedule::Constant,
        beta_2: 0.98,
        weight_decay: 0.1,
        clip_norm: Some(1.0),
        ..TrainConfig::default()
    }
}

#[test]
fn steps_are_those_of_adamw_in_torch() {
    let (converted, golden) = converted(finest());
    let model = converted.model;
    let mut trainer = Trainer::new(&torch_settings(), model.config(), model.parameters()).unwrap();
    let losses = golden.values("losses");
    assert_eq!(losses.len(), 10);
    for (step, expected) in losses.into_iter().enumerate() {
        let progress = trainer.step(&batch(&golden, step)).unwrap();
        let error = (progress.loss - expected).abs() / expected;
        let allowed = Tolerance::finest(1e-6).0;
        assert!(error < allowed, "loss {step}: {} instead of {expected}", progress.loss);
        // A key's bias has no gradient but rounding, of which AdamW makes a whole step: only `f64` says
        // which way.
        if (step == 0 || step == 9) && finest() == FloatType::F64 {
            check_weights(&golden, step + 1, &trainer.parameters());
        }
    }
}

#[track_caller]
fn check_weights(golden: &Golden, steps: usize, params: &Parameters) {
    for (name, found) in rules().write(params).unwrap() {
        assert_close(
            &format!("{name} after {steps}"),
            &found,
            golden.get(&format!("step{steps}/{name}")),
            STEPS,
        );
    }
}

/// Every weight's bits.
fn bits(params: &Parameters) -> BTreeMap<Param, Vec<u8>> {
    params.iter().map(|(param, x)| (param, x.clone().into_data().unwrap().as_bytes().to_vec())).collect()
}

fn small() -> (Problem, TrainConfig) {
    let problem = Problem::Regression(Regression { dimensions: 2, examples: 5, noise: 0.1 });
    (problem, TrainConfig { steps: 12, warmup_steps: 4, learning_rate: 3e-3, ..TrainConfig::default() })
}

#[test]
fn a_run_that_was_interrupted_ends_at_the_same_bits() {
    let (problem, settings) = small();
    let model = problem.model(ModelSize { n_layers: 2, n_heads: 2, d_model: 8 }).unwrap();
    let mut data = Episodes::new(&problem, 3, 4).unwrap();
    let whole = train(&settings, &model, &device(), &mut data, &mut |_| ()).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let initial = random_parameters(&model, settings.seed, &device(), FloatType::F32);
    let mut first = Trainer::new(&settings, &model, &initial).unwrap();
    let mut history = History::default();
    first
        .run(&mut Episodes::new(&problem, 3, 4).unwrap(), &mut |progress| {
            history.push(progress.metrics());
            if progress.step < 6 {
                return ControlFlow::Continue(());
            }
            let snapshot = progress.snapshot().unwrap();
            save_safetensors(&path, snapshot.tensors, BTreeMap::new()).unwrap();
            ControlFlow::Break(())
        })
        .unwrap();
    let lines = history.to_json_lines().unwrap();
    assert_eq!(lines.lines().count(), 7);
    assert_eq!(History::from_json_lines(&lines).unwrap(), history);

    let snapshot = Snapshot { tensors: read_safetensors(&path).unwrap() };
    assert_eq!(snapshot.step().unwrap(), 7);
    let mut second = Trainer::resume(&settings, &model, &snapshot, &device()).unwrap();
    let mut steps = Vec::new();
    second
        .run(&mut Episodes::new(&problem, 3, 4).unwrap(), &mut |progress| {
            steps.push(progress.step);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(steps, (7..12).collect::<Vec<_>>());
    assert_eq!(bits(&second.parameters()), bits(&whole));

    let mut damaged = snapshot.clone();
    damaged.tensors.remove("moment_2/read_in.W");
    let error = Trainer::resume(&settings, &model, &damaged, &device()).unwrap_err();
    assert!(
        matches!(&error, TrainError::Snapshot { tensor, .. } if tensor == "moment_2/read_in.W"),
        "{error}"
    );
    let other = problem.model(ModelSize { n_layers: 1, n_heads: 2, d_model: 4 }).unwrap();
    assert!(Trainer::resume(&settings, &other, &snapshot, &device()).is_err());
}

#[test]
fn schedules_end_where_they_say() {
    let settings = |schedule| TrainConfig {
        steps: 110,
        warmup_steps: 10,
        learning_rate: 1.0,
        final_fraction: 0.2,
        schedule,
        ..TrainConfig::default()
    };
    for (schedule, middle, last) in
        [(Schedule::Constant, 1.0, 1.0), (Schedule::Linear, 0.6, 0.2), (Schedule::Cosine, 0.6, 0.2)]
    {
        let settings = settings(schedule);
        assert_eq!(settings.rate(4), 0.5);
        assert!(
            (settings.rate(60) - middle).abs() < 1e-12 && (settings.rate(110) - last).abs() < 1e-12,
            "{schedule:?}"
        );
    }
}

#[test]
fn linear_models_are_those_of_scikit_learn() {
    let golden = Golden::open(fixture("icl-clusters").join("golden.safetensors"));
    let (x, y) = (golden.values("linear/x"), golden.values("linear/y"));
    let rows: Vec<&[f64]> = x.chunks(4).collect();
    let check = |found: Vec<f64>, name: &str, tolerance: f64| {
        let found = TensorData::new(found, [4]);
        assert_close(name, &found, golden.get(name), Tolerance(tolerance));
    };
    check(ridge(&rows, &y, 0.1).unwrap(), "linear/ridge0.1", 1e-10);
    check(ridge(&rows, &y, 0.8).unwrap(), "linear/ridge0.8", 1e-10);
    check(least_squares(&rows, &y).unwrap(), "linear/least_squares12", 1e-10);
    check(least_squares(&rows[..2], &y[..2]).unwrap(), "linear/least_squares2", 1e-10);
    let positive: Vec<bool> = golden.values("linear/labels").iter().map(|&label| label > 0.5).collect();
    check(classifier(&rows, &positive, 1.0, Loss::Logistic).unwrap(), "linear/logistic", 1e-6);
    assert!(ridge(&[&[1.0, 1.0], &[1.0, 1.0]], &[0.0, 1.0], 0.0).is_err());
    assert!(ridge(&[&[f64::NAN]], &[0.0], 1.0).is_err());
}

/// Every kind of task, small.
fn problems() -> Vec<Problem> {
    let boolean = |function| Problem::Boolean(Boolean { function, ..Boolean::default() });
    let mut problems = vec![
        Problem::Regression(Regression::default()),
        Problem::Selection(Selection::default()),
        Problem::Classification(Classification::default()),
    ];
    problems.extend(Function::ALL.map(boolean));
    problems
}

#[test]
fn episodes_depend_on_seed_and_number_alone_and_hold_no_answer_too_early() {
    for problem in problems() {
        let episode = problem.episode(7, 3).unwrap();
        assert_eq!(episode, problem.episode(7, 3).unwrap());
        assert_ne!(episode, problem.episode(7, 4).unwrap());
        assert_ne!(episode, problem.episode(8, 3).unwrap());
        let batch = problem.batch(&[episode.clone(), problem.episode(7, 4).unwrap()]);
        let width = problem.d_in();
        assert_eq!(batch.inputs.len(), 2 * batch.pos * width);
        // At each question the answer's column is empty.
        for [example, at] in problem.layout().questions(problem.examples()) {
            assert_eq!(batch.inputs[(at + 1) * width - 1], 0.0);
            assert_eq!(batch.inputs[at * width..(at + 1) * width - 1], episode.x[example][..]);
            assert_eq!(batch.weights[at], 1.0);
        }
    }
}

#[test]
fn a_fresh_model_trains_on_every_task_and_is_compared_with_every_baseline() {
    for problem in problems() {
        let model = problem.model(ModelSize { n_layers: 1, n_heads: 2, d_model: 8 }).unwrap();
        let mut losses = Vec::new();
        let settings = TrainConfig { steps: 40, learning_rate: 1e-2, ..TrainConfig::default() };
        // The same batch again and again, which every model can learn by heart.
        let mut episodes = Episodes::new(&problem, 1, 8).unwrap();
        let mut data = |_: usize| episodes.batch(0);
        let trained = train(&settings, &model, &device(), &mut data, &mut |p| losses.push(p.loss)).unwrap();
        assert!(losses[39] < 0.9 * losses[0], "{problem:?}: {losses:?}");
        let model = HookedTransformer::new(model, trained).unwrap();
        let curves = evaluate(&model, &problem, 1, 40).unwrap();
        assert_eq!(curves.curves.len(), 1 + problem.baselines().len());
        for curve in &curves.curves {
            assert_eq!(curve.errors.len(), curves.examples.len());
            assert!(curve.errors.iter().all(|error| error.is_finite()), "{curve:?}");
        }
    }
}

#[test]
fn the_best_baseline_is_best_and_knows_nothing_at_first() {
    let problem = Problem::Regression(Regression::default());
    let params =
        random_parameters(&problem.model(ModelSize::default()).unwrap(), 0, &device(), FloatType::F32);
    let model = HookedTransformer::new(problem.model(ModelSize::default()).unwrap(), params).unwrap();
    let curves = evaluate(&model, &problem, 0, 800).unwrap();
    let last = |name: &str| curves.last(name).unwrap();
    assert!(last("ridge") < last("least squares") && last("least squares") < last("averaging"));
    assert!(last("averaging") < last("mean"));
    // y has variance dimensions + noise², and ridge ends near noise² (1 + dimensions / examples).
    let ridge = &curves.curves.iter().find(|curve| curve.name == "ridge").unwrap().errors;
    assert!((ridge[0] - 4.25).abs() < 0.6, "{}", ridge[0]);
    assert!((last("ridge") - 0.25 * (1.0 + 4.0 / 15.0)).abs() < 0.08, "{}", last("ridge"));
    let episodes = held_out(&problem, 0, 2).unwrap();
    assert!(episodes.iter().all(|episode| *episode != problem.episode(0, 0).unwrap()));
}

#[test]
fn mistakes_are_errors() {
    let regression =
        |regression| Episodes::new(&Problem::Regression(regression), 0, 4).unwrap_err().to_string();
    assert!(regression(Regression { noise: -1.0, ..Regression::default() }).contains("`noise` is -1"));
    assert!(regression(Regression { examples: 1, ..Regression::default() }).contains("`examples` is 1"));
    assert!(regression(Regression { dimensions: 0, ..Regression::default() }).contains("`dimensions` is 0"));
    let boolean = Problem::Boolean(Boolean { terms: 7, ..Boolean::default() });
    assert!(Episodes::new(&boolean, 0, 4).unwrap_err().to_string().contains("`terms` is 7"));
    let problem = Problem::Classification(Classification::default());
    assert!(problem.model(ModelSize { n_heads: 3, ..ModelSize::default() }).is_err());
    let config = problem.model(ModelSize::default()).unwrap();
    let params = random_parameters(&config, 0, &device(), FloatType::F32);
    let mut trainer = Trainer::new(&TrainConfig::default(), &config, &params).unwrap();
    let good = problem.batch(&[problem.episode(0, 0).unwrap()]);
    let short = VectorBatch { weights: vec![1.0], ..good.clone() };
    assert!(matches!(trainer.step(&short), Err(TrainError::VectorLength { what: "weights", found: 1, .. })));
    let unknown = VectorBatch { targets: Targets::Classes(vec![2; good.pos]), ..good.clone() };
    assert!(matches!(trainer.step(&unknown), Err(TrainError::Class { class: 2, d_out: 2 })));
    let nothing = VectorBatch { weights: vec![0.0; good.pos], ..good };
    assert!(matches!(trainer.step(&nothing), Err(TrainError::BatchWeights)));
}
