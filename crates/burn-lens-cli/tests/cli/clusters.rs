//! `attention-clusters`: every place in words, numbers and pictures.

use std::{fs, path::Path};

use safetensors::Dtype;
use serde_json::Value;

use crate::{
    support::{Array, fails, fixture_file, folder, json_in, ok_in, write},
    train::small,
};

/// A folder that holds the run `run`, of two layers with two heads.
fn trained() -> tempfile::TempDir {
    let folder = folder();
    ok_in(folder.path(), &small("icl-regression", "9", "run"));
    folder
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Rows of a pattern are distributions over what came before.
#[track_caller]
fn is_causal(place: &Value) {
    let pattern = numbers(&place["pattern"]);
    let side = pattern.len().isqrt();
    for (query, row) in pattern.chunks(side).enumerate() {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
        assert!(row[query + 1..].iter().all(|&x| x == 0.0), "{row:?}");
    }
}

#[test]
fn one_head_is_described_in_full() {
    let folder = trained();
    let args = ["attention-clusters", "run", "--layer", "1", "--head", "0", "--sample", "4"];
    let text = ok_in(folder.path(), &args);
    for part in [
        "layer 1, head 0, sample 4",
        "Silhouette (x queries, y queries)",
        "x queries: ",
        "y queries: ",
        "signs that they share",
        "A linear classifier on the inputs puts",
        "Pathways",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let found = json_in(folder.path(), &args);
    let place = &found["places"][0];
    is_causal(place);
    for (role, width) in [("x", 2), ("y", 3)] {
        let role = &place["clusters"][role];
        let k = role["k"].as_u64().unwrap() as usize;
        assert_eq!(role["clusters"].as_array().unwrap().len(), k);
        let labels = numbers(&role["labels"]);
        for (at, cluster) in role["clusters"].as_array().unwrap().iter().enumerate() {
            let members = numbers(&cluster["members"]);
            assert!(!members.is_empty() && members.iter().all(|&m| labels[m as usize] == at as f64));
        }
        let best = role["silhouettes"]
            .as_array()
            .unwrap()
            .iter()
            .map(numbers)
            .reduce(|best, next| if next[1] > best[1] { next } else { best });
        assert_eq!(best.unwrap()[0] as usize, k);
        let rows = role["explanation"]["coefficients"].as_array().unwrap();
        assert_eq!(rows.len(), if k == 2 { 1 } else { k });
        assert!(rows.iter().all(|row| numbers(row).len() == width));
    }
    for row in place["clusters"]["pathways"].as_array().unwrap().iter().flat_map(|l| l.as_array().unwrap()) {
        assert!((numbers(row).iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row}");
    }
}

#[test]
fn a_sweep_has_every_place_and_a_picture_of_each() {
    let folder = trained();
    let args = [
        "attention-clusters",
        "run",
        "--sample",
        "0",
        "7",
        "--checkpoints",
        "--svg",
        "f.svg",
        "--png",
        "f.png",
        "--html",
        "f.html",
    ];
    let found = json_in(folder.path(), &args);
    let places = found["places"].as_array().unwrap();
    assert_eq!(places.len(), 3 * 2 * 2 * 2);
    places.iter().for_each(is_causal);
    let svg = fs::read_to_string(folder.path().join("f-step-000003-layer1-head0-sample7.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("layer 1, head 0, sample 7 of step-000003"));
    for name in ["f-step-000009-layer0-head1-sample0.png", "f-step-000009-layer0-head1-sample0-k.png"] {
        assert!(fs::read(folder.path().join(name)).unwrap().starts_with(b"\x89PNG"), "{name}");
    }
    let page = fs::read_to_string(folder.path().join("f.html")).unwrap();
    let drawn = places.iter().filter(|place| place["clusters"].is_object()).count();
    assert_eq!(page.matches("<svg").count(), 2 * drawn);
    assert!(page.starts_with("<!doctype html>") && !page.contains("https:"));
    // A place alone is the same place.
    let args = ["attention-clusters", "run", "--layer", "1", "--head", "0", "--sample", "7"];
    let alone = &json_in(folder.path(), &args)["places"][0];
    let same = places.iter().find(|place| {
        place["checkpoint"] == "step-000009"
            && ["layer", "head", "sample"].map(|key| place[key].as_u64()) == [Some(1), Some(0), Some(7)]
    });
    for key in ["pattern", "x", "y", "clusters"] {
        assert_eq!(alone[key], same.unwrap()[key], "{key}");
    }
    assert!(ok_in(folder.path(), &["attention-clusters", "run"]).contains("layer 1, head 1, sample 0"));
}

/// `x` [samples, n, 2] and `y` [samples, n].
fn examples(folder: &Path, name: &str, shape: [usize; 2], more: &[(&str, Array)]) -> String {
    let [samples, n] = shape;
    let value = |at: usize| f64::from((at * 7919 % 101) as u32) / 50.0 - 1.0;
    let x = Array::f32(&[samples, n, 2], (0..samples * n * 2).map(value));
    let y = Array::f32(&[samples, n], (0..samples * n).map(|at| value(at + 5)));
    write(folder, name, &[&[("x", x), ("y", y)], more].concat())
}

#[test]
fn examples_of_a_users_own() {
    let folder = trained();
    let path = folder.path();
    let file = examples(path, "own.safetensors", [3, 5], &[]);
    let args =
        ["attention-clusters", "run", "--examples", &file, "--sample", "2", "--layer", "0", "--head", "0"];
    let found = json_in(path, &args);
    let place = &found["places"][0];
    assert_eq!((place["sample"].as_u64(), numbers(&place["pattern"]).len()), (Some(2), 100));
    // The same, given as the vectors that go in.
    let (x, y) = (&place["x"], numbers(&place["y"]));
    let mut vectors = vec![0.0; 2 * 5 * 2 * 3];
    for (example, y) in y.iter().enumerate() {
        let x = numbers(&x[example]);
        vectors.extend([x[0], x[1], 0.0, 0.0, 0.0, *y]);
    }
    let vectors = ("vectors", Array::f32(&[3, 10, 3], vectors));
    let whole = examples(path, "whole.safetensors", [3, 5], &[vectors]);
    let args =
        ["attention-clusters", "run", "--examples", &whole, "--sample", "2", "--layer", "0", "--head", "0"];
    assert_eq!(&json_in(path, &args)["places"][0]["pattern"], &place["pattern"]);
}

#[test]
fn what_makes_no_sense_is_explained() {
    let folder = trained();
    let path = folder.path();
    ok_in(path, &small("icl-selection", "2", "rows"));
    let two = examples(path, "two.safetensors", [1, 2], &[]);
    let wrong = write(path, "wrong.safetensors", &[("x", Array::int(Dtype::I64, &[1, 2, 2], 0..4))]);
    let narrow = ("vectors", Array::f32(&[1, 4, 2], vec![0.0; 8]));
    let narrow = examples(path, "narrow.safetensors", [1, 2], &[narrow]);
    let tokens = fixture_file("gpt2", "golden.safetensors");
    for (code, arguments, said) in [
        (1, &["run", "--layer", "2"][..], "--layer 2 is outside 0..2"),
        (1, &["run", "--head", "5"], "--head 5 is outside 0..2"),
        (2, &["run", "--layer", "x"], "invalid value 'x'"),
        (2, &["run", "--k", "1-3"], "no range of numbers of clusters"),
        (1, &["run", "--layer", "0", "--head", "0", "--k", "7-9"], "layer 0, head 0, sample 0: "),
        (1, &["run", "--svg", "absent/f.svg"], "there is no folder absent"),
        (1, &["run/checkpoints/step-000003", "--checkpoints"], "there are no checkpoints"),
        (1, &["demo"], "demo cannot be run on examples: it takes tokens, not vectors"),
        (1, &["rows"], "x and y side by side"),
        (1, &["rows", "--layer", "0", "--head", "0", "--examples", &two], "2 rows"),
        (1, &["run", "--examples", &two, "--sample", "1"], "--sample 1 is outside 0..1"),
        (1, &["run", "--examples", &wrong], "is i64 of shape [1, 2, 2], expected floats"),
        (1, &["run", "--examples", &narrow], "expected floats of shape [1, 4, 3]"),
        (1, &["run", "--examples", &tokens], "has no tensor `x`"),
    ] {
        let error = fails(code, path, &[&["attention-clusters"], arguments].concat());
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}
