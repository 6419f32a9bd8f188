//! `features run`, `merge` and `show`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Array, fails, folder, json_in, ok_in, read, write};

/// A folder with a text in the words of the bundled model, and six vectors of its residual stream.
pub(crate) fn prepared() -> TempDir {
    let folder = folder();
    let names = ["Mary", "John", "Tom", "Anna"];
    let sentence = |at: usize| {
        let (a, b) = (names[at % 4], names[(at + 1 + at / 4 % 3) % 4]);
        format!(
            "When {a} and {b} went to the store , {b} gave a drink to {a} . The capital of France is Paris . "
        )
    };
    fs::write(folder.path().join("text.txt"), (0..40).map(sentence).collect::<String>()).unwrap();
    let value = |at: u32| f64::from(at.wrapping_mul(2_654_435_761) >> 8) / f64::from(1_u32 << 24) - 0.5;
    write(folder.path(), "vectors.safetensors", &[("vectors", Array::f32(&[6, 96], (1..=576).map(value)))]);
    folder
}

const SOURCE: [&str; 6] = ["--model", "demo", "--vectors", "vectors.safetensors", "--hook", "resid_post1"];

/// `features run` on that, with more arguments.
pub(crate) fn run(folder: &Path, more: &[&str]) -> Value {
    json_in(folder, &arguments(more))
}

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["features", "run"][..], &SOURCE, &["--text", "text.txt", "--context", "16"], more].concat()
}

/// Every file of features below a folder, by name.
fn data(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(out.join("data")).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.file_name().unwrap().into(), fs::read(path).unwrap())).collect()
}

#[test]
fn features_are_written_and_shown() {
    let folder = prepared();
    let report = run(folder.path(), &["--out", "out"]);
    assert_eq!(report["features"].as_array().unwrap().len(), 6);
    assert_eq!(report["run"]["hook"], "blocks.1.hook_resid_post");
    let out = folder.path().join("out");
    assert_eq!(data(&out).len(), 6);
    let shown = json_in(folder.path(), &["features", "show", "out", "--feature", "2"]);
    let feature = &shown["feature"];
    assert_eq!((&feature["feature"], &shown["run"]["n_positions"]), (&2.into(), &16.into()));
    // Vectors are signed: there is a bottom, and the beginning of each prompt is not counted.
    let kinds: Vec<&str> = feature["groups"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|group| group["kind"]["kind"].as_str())
        .collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("top", "bottom"));
    let (prompts, tokens) = (shown["run"]["n_prompts"].as_u64().unwrap(), &feature["statistics"]["n_tokens"]);
    assert_eq!(tokens.as_u64().unwrap(), prompts * 15);
    let text = ok_in(folder.path(), &["features", "show", "out/data/2.json"]);
    assert!(text.contains("Feature 2 of vectors") && text.contains("TOP ACTIVATIONS"), "{text}");
    assert!(text.contains("Mary") || text.contains("store"), "tokens are words: {text}");
}

#[test]
fn shards_put_together_are_the_whole_to_the_byte() {
    let folder = prepared();
    let in_folder = |name: &str| folder.path().join(name);
    run(folder.path(), &["--out", "whole", "--batch", "3", "--features", "0..4"]);
    for index in 1..=3 {
        let (shard, out) = (format!("{index}/3"), format!("part.{index}"));
        let more = ["--shard", &shard, "--out", &out, "--batch", "7", "--threads", "1", "--features", "0..4"];
        let report = run(folder.path(), &more);
        assert!(report["prompts"][1].as_u64() > report["prompts"][0].as_u64(), "{report}");
        assert!(!in_folder(&out).join("data").exists());
    }
    let error = fails(1, folder.path(), &["features", "merge", "part.1", "part.3", "--out", "merged"]);
    assert!(error.contains("the parts do not make a whole: prompts"), "{error}");
    ok_in(
        folder.path(),
        &["features", "merge", "part.3", "part.1", "part.2", "--out", "merged", "--memory", "1"],
    );
    assert_eq!(data(&in_folder("merged")), data(&in_folder("whole")));
    let run_of = |out: &str| fs::read_to_string(in_folder(out).join("run.json")).unwrap();
    assert_eq!(run_of("merged"), run_of("whole"));
}

#[test]
fn a_run_that_was_killed_goes_on() {
    let folder = prepared();
    run(folder.path(), &["--out", "whole", "--batch", "1"]);
    let more = ["--out", "killed", "--batch", "1", "--quiet"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_burn-lens"))
        .current_dir(folder.path())
        .args(arguments(&more))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (manifest, begun) = (folder.path().join("killed/activations/manifest.json"), Instant::now());
    while !manifest.exists() && begun.elapsed() < Duration::from_mins(1) {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(manifest.exists());
    run(folder.path(), &["--out", "killed", "--batch", "2"]);
    assert_eq!(data(&folder.path().join("killed")), data(&folder.path().join("whole")));
    // What is there belongs to these arguments alone.
    let error = fails(1, folder.path(), &arguments(&["--out", "killed", "--top", "3"]));
    assert!(error.contains("the options") && error.contains("do not belong together"), "{error}");
}

#[test]
fn the_bundled_dictionary_has_features_of_the_bundled_model() {
    let folder = prepared();
    let run =
        ["features", "run", "--model", "demo", "--sae", "demo", "--sae-b", "demo", "--text", "text.txt"];
    let report = json_in(folder.path(), &[&run[..], &["--out", "out", "--html"]].concat());
    let features = report["features"].as_array().unwrap();
    assert_eq!(
        (features.len() as u64, &report["run"]["sae"]),
        (report["run"]["d_sae"].as_u64().unwrap(), &"demo".into())
    );
    let sparse: Vec<&Value> = features.iter().filter(|feature| feature["kind"] == "sparse").collect();
    assert!(sparse.len() > 10, "{report}");
    let most =
        sparse.iter().max_by_key(|feature| feature["n_active"].as_u64()).unwrap()["feature"].to_string();
    let shown = json_in(folder.path(), &["features", "show", "out", "--feature", &most]);
    // The second dictionary is the same: a feature goes with itself most.
    let itself = &shown["feature"]["correlated_b_features"][0];
    assert_eq!(itself["index"].to_string(), most);
    assert!((itself["pearson"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{itself}");
}

#[test]
fn a_few_features_can_be_run_without_the_others() {
    let folder = prepared();
    let report = |more: &[&str]| {
        run(folder.path(), &[&["--out", "out", "--features", "0,3"], more].concat());
        let shown = json_in(folder.path(), &["features", "show", "out", "--feature", "3"])["feature"].clone();
        fs::remove_dir_all(folder.path().join("out")).unwrap();
        shown
    };
    let [all, chosen, none] = [&[][..], &["--correlate", "chosen"], &["--correlate", "none"]].map(report);
    let others = |shown: &Value| -> Vec<u64> {
        let others = shown["correlated_features"].as_array().unwrap();
        others.iter().map(|with| with["index"].as_u64().unwrap()).collect()
    };
    assert_eq!(all["statistics"]["n_active"], chosen["statistics"]["n_active"]);
    assert!(others(&all).len() > 1 && others(&none).is_empty(), "{all} {none}");
    assert!(others(&chosen).iter().all(|&with| with == 0), "{chosen}");
    let error = fails(2, folder.path(), &arguments(&["--out", "out", "--correlate", "some"]));
    assert!(error.contains("[possible values: all, chosen, none]"), "{error}");
}

#[test]
fn features_of_a_prompt_are_ranked() {
    let folder = prepared();
    run(folder.path(), &["--out", "out", "--features", "0..5"]);
    let ranked = |by: &str| {
        let args = ["features", "prompt", "out", "-p", "When Mary and John went to the store", "--by", by];
        json_in(folder.path(), &args)
    };
    for (by, key, sign) in
        [("activation", "activation", 1.0), ("quantile", "quantile", 1.0), ("loss", "loss_effect", -1.0)]
    {
        let ranked = ranked(by);
        let positions = ranked["positions"].as_array().unwrap();
        assert_eq!((positions.len(), &positions[1]["text"]), (9, &"·When".into()));
        for position in &positions[..8] {
            let values: Vec<f64> =
                position["features"].as_array().unwrap().iter().filter_map(|x| x[key].as_f64()).collect();
            assert!(
                values.len() == 3 && values.is_sorted_by(|a, b| sign * a >= sign * b),
                "{by}: {position}"
            );
        }
    }
    let text = ok_in(folder.path(), &["features", "prompt", "out", "-p", "Mary"]);
    assert!(text.contains("Mary") && text.contains("loss effect"), "{text}");
    let long = "store ".repeat(200);
    let error = fails(1, folder.path(), &["features", "prompt", "out", "-p", &long]);
    assert!(error.contains("128"), "{error}");
}

#[test]
fn every_format_is_written() {
    let folder = prepared();
    // A folder may have dots in its name.
    let out = "./out.v1/of.features";
    let more = ["--out", out, "--html", "--neuronpedia", "--sae-vis", "--delphi", "--features", "5,1"];
    run(folder.path(), &more);
    let out = folder.path().join(out);
    let text = |path: &str| fs::read_to_string(out.join(path)).unwrap();
    let json = |path: &str| serde_json::from_str::<Value>(&text(path)).unwrap();
    assert!(text("index.html").starts_with("<!doctype html>"));
    assert!(text("features/5.js").starts_with("burnLensFeature({") && out.join("features/1.js").exists());
    let batch = json("neuronpedia/batch-0.json");
    assert_eq!((&batch["layer"], batch["features"].as_array().unwrap().len()), (&1.into(), 2));
    for file in ["features", "activations"] {
        let bytes = fs::read(out.join(format!("neuronpedia/1-vectors/{file}/batch-0.jsonl.gz"))).unwrap();
        assert_eq!(bytes[..2], [0x1f, 0x8b], "{file}");
    }
    assert!(json("sae_vis.json")["feature_data_dict"]["5"]["sequence_data"]["seq_group_data"].is_array());
    let delphi = out.join("delphi/blocks.1.hook_resid_post");
    let files = fs::read_dir(&delphi).unwrap().map(|entry| entry.unwrap().path());
    let splits: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).map(read).collect();
    assert_eq!(splits.len(), 5);
    for split in splits {
        assert_eq!(split["locations"].shape, [split["activations"].shape[0], 3]);
        assert_eq!(split["tokens"].shape[1], 16);
    }
}

#[test]
fn what_makes_no_sense_is_explained() {
    let folder = prepared();
    let narrow = Array::f32(&[2, 5], vec![1.0; 10]);
    write(folder.path(), "narrow.safetensors", &[("vectors", narrow)]);
    write(folder.path(), "other.safetensors", &[("probes", Array::f32(&[1, 96], vec![1.0; 96]))]);
    fs::write(folder.path().join("empty.txt"), "").unwrap();
    fs::write(folder.path().join("pickle.json"), b"\x80\x04\x95cposix\nsystem\n").unwrap();
    let run = ["features", "run", "--model", "demo", "--out", "out"];
    let vectors = ["--vectors", "vectors.safetensors", "--hook", "resid_post1"];
    let text = ["--text", "text.txt"];
    for (code, arguments, said) in [
        (2, [&run[..], &text].concat(), "--sae <SAE>|--vectors"),
        (2, [&run[..], &vectors].concat(), "--tokens <FILE.safetensors>|--text"),
        (2, [&run[..], &vectors[..2], &text].concat(), "--hook <NAME>"),
        (2, [&run[..], &vectors, &text, &["--features", "4.."]].concat(), "neither `all`, nor a range"),
        (2, [&run[..], &vectors, &text, &["--shard", "4/3"]].concat(), "no shard: they are 1/N to N/N"),
        (2, [&run[..], &vectors, &text, &["--window", "5"]].concat(), "not two numbers, as in 5,5"),
        (
            2,
            [&run[..], &vectors, &text, &["--intervals-by", "x"]].concat(),
            "possible values: width, quantiles",
        ),
        (
            1,
            [&run[..], &["--vectors", "vectors.safetensors", "--hook", "resid_pots1"], &text].concat(),
            "resid_post",
        ),
        (1, [&run[..], &vectors, &text, &["--features", "6"]].concat(), "no feature 6"),
        (1, [&run[..], &vectors, &["--text", "none.txt"]].concat(), "none.txt"),
        (1, [&run[..], &vectors, &["--text", "empty.txt"]].concat(), "empty.txt"),
        (
            1,
            [&run[..], &["--vectors", "narrow.safetensors", "--hook", "resid_post1"], &text].concat(),
            "reads 5",
        ),
        (
            1,
            [&run[..], &["--vectors", "other.safetensors", "--hook", "resid_post1"], &text].concat(),
            "`probes`",
        ),
        (
            1,
            [&run[..], &["--vectors", "vectors.safetensors", "--hook", "resid_post3"], &text].concat(),
            "blocks.2.hook_resid_post",
        ),
        (1, [&run[..], &vectors, &text, &["--context", "129"]].concat(), "not from 2 to 128"),
        (1, [&run[..], &["--sae", "nowhere"], &text].concat(), "nowhere"),
        (1, vec!["features", "merge", "nowhere", "--out", "out"], "nowhere"),
        (1, vec!["features", "show", "nowhere", "--feature", "1"], "nowhere"),
        (1, vec!["features", "show", "pickle.json"], "pickle.json"),
    ] {
        let found = fails(code, folder.path(), &arguments);
        assert!(found.contains(said), "{arguments:?}: {found}");
    }
    self::run(folder.path(), &["--out", "out", "--features", "0..2"]);
    for (arguments, said) in [
        (&["features", "show", "out"][..], "--feature"),
        (&["features", "show", "out", "--feature", "7"], "7.json"),
        (&["features", "show", "out", "--feature", "1", "--html", "missing/p.html"], "there is no folder"),
        (&["features", "show", "out/data/1.json", "--feature", "0"], "0"),
    ] {
        let found = fails(1, folder.path(), arguments);
        assert!(found.contains(said), "{arguments:?}: {found}");
    }
}
