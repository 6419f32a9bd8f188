//! `train`: what a run leaves behind, and runs that were interrupted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{burn_lens_in, fails, folder, json_in, ok_in};

/// A model that takes no time, of a task that takes little.
pub(crate) const SMALL: [&str; 14] = [
    "--layers",
    "2",
    "--d-model",
    "8",
    "--dimensions",
    "2",
    "--examples",
    "6",
    "--batch",
    "4",
    "--test",
    "20",
    "--checkpoints",
    "3",
];

pub(crate) fn small<'a>(task: &'a str, steps: &'a str, out: &'a str) -> Vec<&'a str> {
    [&["train", task, "--steps", steps, "--out", out][..], &SMALL].concat()
}

fn json_file(path: PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_run_leaves_a_model_its_measurements_and_pictures() {
    let folder = folder();
    let said = burn_lens_in(folder.path(), &small("icl-regression", "30", "run"));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("parameters, 30 steps of 4 sequences of 12 positions: about"), "{}", said.err);
    assert!(said.err.contains("step 30 of 30: loss"), "{}", said.err);
    for part in ["Loss (training)", "ridge", "averaging", "squared error on 20 unseen", "with all examples"] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    let run = folder.path().join("run");
    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let steps: Vec<u64> = lines
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            for key in ["loss", "learning_rate", "grad_norm"] {
                assert!(line[key].as_f64().unwrap() > 0.0, "{key}: {line}");
            }
            line["step"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(steps, (0..30).collect::<Vec<_>>());
    let curves = json_file(run.join("curves.json"));
    let names: Vec<&str> =
        curves["curves"].as_array().unwrap().iter().map(|curve| curve["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["model", "ridge", "least squares", "averaging", "mean"]);
    let page = fs::read_to_string(run.join("training.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.matches("<svg").count() == 2);
    assert!(!page.contains("https:"));
    let setup = json_file(run.join("training.json"));
    assert_eq!(setup["recipe"]["problem"]["task"], "regression");
    // The model, and each checkpoint, is one for every other command.
    for model in ["run", "run/checkpoints/step-000010", "run/checkpoints/step-000030"] {
        let info = json_in(folder.path(), &["info", model]);
        assert_eq!((&info["sizes"]["d_in"], &info["sizes"]["d_out"]), (&3.into(), &1.into()), "{model}");
    }
    let bytes = |model: &str| fs::read(folder.path().join(model).join("model.safetensors")).unwrap();
    assert_eq!(bytes("run"), bytes("run/checkpoints/step-000030"));
    assert_ne!(bytes("run"), bytes("run/checkpoints/step-000020"));
}

#[test]
fn every_task_trains_and_is_compared() {
    let folder = folder();
    for (task, more, baselines) in [
        ("icl-classification", &["--sharpness", "2"][..], 4),
        ("icl-boolean", &["--function", "parity", "--terms", "2"], 5),
        ("icl-selection", &["--alphas", "0.1,0.5,1", "--fitted", "4"], 6),
        ("icl-selection", &["--layout", "interleaved"], 5),
    ] {
        let out = format!("{task}-{}", more[0].trim_start_matches('-'));
        let found = json_in(folder.path(), &[&small(task, "3", &out)[..], more].concat());
        assert_eq!(found["curves"]["curves"].as_array().unwrap().len(), 1 + baselines, "{found}");
        assert!(found["times_best_baseline"].as_f64().is_some(), "{found}");
    }
}

/// Waits until there is a state to go on from, then ends the process as a crash would.
fn run_and_kill(folder: &Path, args: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_burn-lens"));
    let mut child =
        command.current_dir(folder).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !folder.join("cut/state.safetensors").is_file() {
        assert!(start.elapsed() < Duration::from_mins(5) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_that_was_killed_ends_at_the_same_bits() {
    let folder = folder();
    let path = folder.path();
    ok_in(path, &small("icl-regression", "240", "whole"));
    run_and_kill(path, &small("icl-regression", "240", "cut"));
    assert!(!path.join("cut/model.safetensors").exists(), "it did not come to its end");
    let said = burn_lens_in(path, &["train", "resume", "cut"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("going on behind step "), "{}", said.err);
    for file in ["model.safetensors", "state.safetensors", "metrics.jsonl", "curves.json", "training.json"] {
        let bytes = |run: &str| fs::read(path.join(run).join(file)).unwrap();
        assert_eq!(bytes("cut"), bytes("whole"), "{file}");
    }
    // A run that came to its end stays as it is.
    ok_in(path, &["train", "resume", "cut"]);
    let model = |run: &str| fs::read(path.join(run).join("model.safetensors")).unwrap();
    assert_eq!(model("cut"), model("whole"));
}

#[test]
fn the_cost_is_said_before_anything_is_written() {
    let folder = folder();
    let args = [&small("icl-regression", "1000000", "run")[..], &["--dry-run"]].concat();
    let found = json_in(folder.path(), &args);
    assert!(found["seconds"].as_f64().unwrap() > 1.0 && found["parameters"].as_u64().unwrap() > 100);
    assert!(!folder.path().join("run").exists());
}

#[test]
fn what_makes_no_sense_is_explained() {
    let folder = folder();
    let path = folder.path();
    let run = |code, more: &[&str], said: &str| {
        let error = fails(code, path, &[&["train", "icl-regression", "--out", "out"][..], more].concat());
        assert!(error.contains(said), "{more:?}: {error}");
        assert!(!path.join("out").exists(), "{more:?}");
    };
    run(1, &["--noise=-1"], "`noise` is -1, expected 0 or a positive number");
    run(1, &["--heads", "3"], "`n_heads` is 3, expected a divisor of d_model");
    run(1, &["--layers", "0"], "`n_layers` is 0");
    run(1, &["--d-model", "10000000"], "`d_model` is 10000000");
    run(1, &["--examples", "1"], "`examples` is 1, expected 2 to 4096");
    run(1, &["--steps", "0"], "`steps` is 0");
    run(1, &["--batch", "0"], "`batch` is 0");
    run(1, &["--test", "0"], "`test` is 0");
    run(1, &["--learning-rate", "0"], "`learning_rate` is 0");
    run(2, &["--schedule", "cosin"], "'cosine'");
    run(2, &["--dimension", "2"], "--dimensions");
    let error = fails(2, path, &["train", "icl-bolean", "--out", "out"]);
    assert!(error.contains("icl-boolean"), "{error}");
    let error = fails(2, path, &["train", "icl-boolean", "--out", "out", "--function", "or"]);
    assert!(error.contains("conjunction, disjunction, majority, parity"), "{error}");
    let error = fails(1, path, &["train", "icl-regression", "--out", "out", "--learning-rate", "1e30"]);
    assert!(error.contains("the loss is") || error.contains("lower the learning rate"), "{error}");
}

#[test]
fn folders_of_runs_are_told_apart() {
    let folder = folder();
    let path = folder.path();
    ok_in(path, &small("icl-regression", "2", "run"));
    let error = fails(1, path, &small("icl-regression", "2", "run"));
    assert!(error.contains("already holds a run") && error.contains("train resume"), "{error}");
    fs::create_dir(path.join("empty")).unwrap();
    assert!(fails(1, path, &["train", "resume", "empty"]).contains("it has no training.json"));
    assert!(fails(1, path, &["train", "resume", "absent"]).contains("holds no run"));
    let setup = fs::read_to_string(path.join("run/training.json")).unwrap();
    fs::write(path.join("run/training.json"), setup.replace("\"noise\"", "\"nose\"")).unwrap();
    let error = fails(1, path, &["train", "resume", "run"]);
    assert!(error.contains("training.json") && error.contains("nose"), "{error}");
    // A state of another model.
    fs::write(path.join("run/training.json"), setup.replace("\"d_model\": 8", "\"d_model\": 4")).unwrap();
    let error = fails(1, path, &["train", "resume", "run"]);
    assert!(error.contains("snapshot") || error.contains("shape"), "{error}");
}
