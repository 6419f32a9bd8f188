//! `patch`, `heads`, `ablate` and `steer`.

use std::path::Path;

use crate::support::{fails, folder, json_in, ok_in};

const CLEAN: &str = "When Mary and John went to the store , John gave a drink to";
const CORRUPT: &str = "When Mary and John went to the store , Mary gave a drink to";
const PAIR: [&str; 10] =
    ["patch", "demo", "--clean", CLEAN, "--corrupt", CORRUPT, "--answer", "Mary", "--against", "John"];

fn patch(more: &[&str]) -> Vec<&'static str> {
    let more: Vec<&'static str> =
        more.iter().map(|text| &*Box::leak((*text).to_owned().into_boxed_str())).collect();
    [&PAIR[..], &more].concat()
}

#[test]
fn patching_gives_every_cell() {
    for (what, shape) in [
        ("resid_pre", vec![3, 15]),
        ("head_z", vec![3, 4]),
        ("head_pattern", vec![3, 4]),
        ("block_every", vec![3, 3, 15]),
    ] {
        let found = json_in(Path::new("."), &patch(&["--what", what, "--verify", "2"]));
        let lengths: Vec<usize> = found["axes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|axis| axis["labels"].as_array().unwrap().len())
            .collect();
        assert_eq!(lengths, shape, "{what}");
        let values = found["values"].as_array().unwrap();
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{what}");
        assert!(found["clean"].as_f64().unwrap() > 5.0 && found["corrupt"].as_f64().unwrap() < -5.0);
    }
    let by_pos = json_in(Path::new("."), &patch(&["--what", "head_out", "--by-pos"]));
    assert_eq!(by_pos["what"], "head_out_by_pos");
    assert_eq!(by_pos["values"].as_array().unwrap().len(), 3 * 15 * 4);
}

#[test]
fn estimates_stand_beside_exact_values() {
    let text = ok_in(Path::new("."), &patch(&["--what", "head_out", "--method", "attribution"]));
    assert!(text.contains("one backward pass"), "{text}");
    assert!(text.contains("layer") && text.contains("██"), "{text}");
}

#[test]
fn a_sweep_goes_on_from_its_state_and_pages_are_written_whole() {
    let folder = folder();
    let (state, page) = (folder.path().join("state.json"), folder.path().join("page.html"));
    let arguments = patch(&["--state", state.to_str().unwrap(), "--html", page.to_str().unwrap()]);
    let first = json_in(folder.path(), &arguments);
    let again = json_in(folder.path(), &arguments);
    assert_eq!(first["values"], again["values"]);
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("Mary") && !html.contains("https:"));
    let error = fails(1, folder.path(), &patch(&["--what", "mlp_out", "--state", state.to_str().unwrap()]));
    assert!(error.contains("another sweep"), "{error}");
    std::fs::write(&state, "{").unwrap();
    let error = fails(1, folder.path(), &arguments);
    assert!(error.contains("does not hold the state of a sweep"), "{error}");
}

#[test]
fn heads_are_scored() {
    let found = json_in(Path::new("."), &["heads", "demo"]);
    let score = |name: &str, layer: usize, head: usize| {
        found["scores"][name]["values"][layer * 4 + head].as_f64().unwrap()
    };
    assert!(score("previous_token_head", 0, 0) > 0.8);
    assert!(score("induction_score", 1, 0) > 0.8);
    assert!(score("copying", 1, 0) > 0.9);
}

#[test]
fn ablations_show_what_is_lost() {
    for method in ["zero", "mean", "resample"] {
        let found = json_in(
            Path::new("."),
            &[
                "ablate",
                "demo",
                "--prompt",
                CLEAN,
                "--answer",
                "Mary",
                "--against",
                "John",
                "--method",
                method,
            ],
        );
        let effects: Vec<f64> =
            found["effects"].as_array().unwrap().iter().map(|effect| effect.as_f64().unwrap()).collect();
        assert_eq!(effects.len(), 12);
        // The token-before head and the mover: the answer is lost without either.
        let mut sorted = effects.clone();
        sorted.sort_by(f64::total_cmp);
        assert_eq!(sorted[0], effects[0], "{method}: {effects:?}");
        assert_eq!(sorted[1], effects[4 + 2], "{method}: {effects:?}");
        assert!(sorted[1] < -5.0, "{method}: {effects:?}");
    }
    let text = ok_in(Path::new("."), &["ablate", "demo", "--prompt", CLEAN, "--what", "mlp"]);
    assert!(text.contains("divergence"), "{text}");
}

#[test]
fn steering_moves_the_next_token_and_the_vector_is_kept() {
    let folder = folder();
    let file = folder.path().join("steer.safetensors");
    let file = file.to_str().unwrap();
    let found = json_in(
        folder.path(),
        &[
            "steer",
            "demo",
            "--positive",
            CLEAN,
            "--negative",
            CORRUPT,
            "--at",
            "resid_post1",
            "--prompt",
            CORRUPT,
            "--factor",
            "2",
            "--save",
            file,
        ],
    );
    let first = |side: &str| found["prompts"][0][side][0]["token"].as_str().unwrap().trim().to_owned();
    assert_eq!((first("without"), first("with")), ("John".to_owned(), "Mary".to_owned()));
    let add = format!("resid_post1={file}*2");
    let run = json_in(folder.path(), &["run", "demo", "--prompt", CORRUPT, "--add", &add]);
    let next = &run["prompts"][0]["next"][0];
    assert_eq!(next["token"].as_str().unwrap().trim(), "Mary");
}

#[test]
fn what_does_not_fit_is_explained() {
    for (code, arguments, said) in [
        (1, patch(&["--what", "head_zz"]), "did you mean"),
        (1, patch(&["--metric", "kl", "--pos", "40"]), "position 40"),
        (2, patch(&["--method", "guess"]), "attribution"),
        (
            1,
            vec!["patch", "demo", "--clean", CLEAN, "--corrupt", "Mary", "--answer", "Mary"],
            "differ in length",
        ),
        (1, vec!["patch", "demo", "--clean", CLEAN, "--corrupt", CORRUPT], "needs --answer"),
        (1, vec!["heads", "demo", "--segment", "100"], "do not fit a context of 128"),
        (
            1,
            vec!["steer", "demo", "--positive", "Mary", "--negative", "John", "--at", "resid_pst1"],
            "did you mean",
        ),
        (1, vec!["ablate", "demo", "--prompt", CLEAN, "--metric", "rank"], "needs --answer"),
    ] {
        let error = fails(code, Path::new("."), &arguments);
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}

fn edges(more: &[&'static str]) -> Vec<&'static str> {
    let mut arguments = PAIR.to_vec();
    arguments[0] = "edges";
    [&arguments[..], more].concat()
}

#[test]
fn circuits_are_found_by_every_method() {
    for (method, threshold) in [("acdc", "0.3,2"), ("eap", "0.3,2"), ("eap-ig", "0.3,2")] {
        let found = json_in(Path::new("."), &edges(&["--method", method, "--threshold", threshold]));
        let circuits = found["circuits"].as_array().unwrap();
        assert_eq!(circuits.len(), 2, "{method}");
        let [small, large] = [1, 0].map(|at| circuits[at]["edges"].as_array().unwrap());
        assert!(small.len() <= large.len() && large.len() < 40, "{method}: {found}");
        assert!(circuits[0]["faithfulness"].as_f64().unwrap() > 0.5, "{method}: {found}");
        // What the name is goes from the token-before head into the mover, and from there out.
        for (from, to) in [("L0H0", "L1H2.v"), ("L1H2", "logits")] {
            assert!(large.iter().any(|edge| edge["from"] == from && edge["to"] == to), "{method}: {found}");
        }
        assert_eq!(found["scores"].is_null(), method == "acdc");
    }
}

#[test]
fn circuits_are_drawn() {
    let folder = folder();
    let arguments = edges(&[
        "--threshold",
        "1,1000",
        "--svg",
        "circuit.svg",
        "--dot",
        "circuit.dot",
        "--html",
        "page.html",
        "--save",
        "circuit.json",
    ]);
    let text = ok_in(folder.path(), &arguments);
    assert!(text.contains("faithfulness") && text.contains("no edge is left"), "{text}");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let svg = read("circuit-1.svg");
    assert!(svg.starts_with("<svg") && svg.contains("L0H0") && svg.contains("attention 1"), "{svg}");
    assert!(read("circuit-1.dot").starts_with("digraph"));
    let page = read("page.html");
    assert!(page.contains("<svg class=\"graph\"") && page.contains("Mary") && !page.contains("https:"));
    let saved: serde_json::Value = serde_json::from_str(&read("circuit.json")).unwrap();
    assert_eq!(saved["method"], "eap-ig");
    // Of a circuit without edges there is nothing to draw.
    assert!(!folder.path().join("circuit-1000.svg").exists());
}

#[test]
fn edges_that_do_not_fit_are_explained() {
    for (code, more, said) in [
        (2, &[][..], "--threshold"),
        (2, &["--threshold=-1"][..], "at least 0"),
        (2, &["--threshold", "inf"][..], "at least 0"),
        (1, &["--threshold", "1", "--steps", "0"][..], "at least one step"),
        (1, &["--threshold", "1", "--metric", "rank"][..], "no gradient"),
        (2, &["--threshold", "1", "--method", "guess"][..], "acdc"),
    ] {
        let error = fails(code, Path::new("."), &edges(more));
        assert!(error.contains(said), "{more:?}: {error}");
    }
}
