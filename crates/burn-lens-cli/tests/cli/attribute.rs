//! `attribute` and `lens`.

use std::path::Path;

use crate::support::{fails, folder, json_in, ok_in};

const IOI: &str = "When Mary and John went to the store , John gave a drink to";

#[test]
fn attributions_name_the_parts_and_sum_to_the_logit() {
    for by in ["component", "head", "neuron", "source"] {
        let found = json_in(
            Path::new("."),
            &["attribute", "demo", "--prompt", IOI, "--answer", "Mary", "--against", "John", "--by", by],
        );
        let prompt = &found["prompts"][0];
        let rows = prompt["rows"].as_array().unwrap();
        let sum: f64 = rows.iter().map(|row| row["adds"].as_f64().unwrap()).sum();
        let total = prompt["total"].as_f64().unwrap();
        assert!((sum - total).abs() < 1e-4 * total.abs(), "{by}: {sum} against {total}");
        assert!(total > 5.0, "the model knows the answer: {total}");
        // And it is the difference of the model's own logits.
        let run = json_in(Path::new("."), &["run", "demo", "--prompt", IOI]);
        let next = run["prompts"][0]["next"].as_array().unwrap();
        let logit = |name: &str| {
            let token = next.iter().find(|token| token["token"].as_str().unwrap().trim() == name);
            token.map(|token| token["logit"].as_f64().unwrap())
        };
        if let (Some(mary), Some(john)) = (logit("Mary"), logit("John")) {
            assert!((mary - john - total).abs() < 1e-3, "{by}");
        }
    }
}

#[test]
fn the_table_ends_with_what_is_left() {
    let shown = ok_in(
        Path::new("."),
        &["attribute", "demo", "--prompt", IOI, "--answer", "Mary", "--by", "head", "--top", "3"],
    );
    assert!(shown.contains("the logit of \" Mary\""), "{shown}");
    assert!(shown.contains("others"), "{shown}");
}

#[test]
fn the_lens_ends_with_the_answer() {
    let found =
        json_in(Path::new("."), &["lens", "demo", "--prompt", IOI, "--pos", "-1", "--token", "Mary", "John"]);
    let streams = found["prompts"][0]["streams"].as_array().unwrap();
    let last = &streams.last().unwrap();
    assert_eq!(last["stream"], "final_post");
    let cell = &last["positions"][0];
    assert_eq!(cell["pos"], 14);
    assert_eq!(cell["top"][0]["token"], "\" Mary\"");
    assert_eq!(cell["tokens"][0]["rank"], 0);
    assert!(cell["tokens"][1]["rank"].as_u64().unwrap() > 0);
}

#[test]
fn pages_are_written_whole() {
    let folder = folder();
    for command in [&["attribute", "demo", "--answer", "Mary", "--by", "head"][..], &["lens", "demo"][..]] {
        let page = folder.path().join("page.html");
        let page = page.to_str().unwrap();
        let arguments = [command, &["--prompt", IOI, "--html", page]].concat();
        assert!(ok_in(folder.path(), &arguments).contains("page.html"));
        let html = std::fs::read_to_string(page).unwrap();
        assert!(html.starts_with("<!doctype html>") && html.contains("Mary"));
        assert!(!html.contains("https:"));
    }
}

#[test]
fn wrong_answers_are_explained() {
    for (code, arguments, said) in [
        (1, &["--answer", "Marry"][..], "did you mean Mary"),
        (1, &["--answer", "#100000"], "the output vocabulary has"),
        (1, &["--answer", "Mary", "--answer", "John"], "given 2 times for 1 prompts"),
        (1, &["--answer", "Mary", "--pos", "99"], "position 99 is outside"),
        (2, &["--answer", "Mary", "--by", "heads"], "head"),
    ] {
        let arguments = [&["attribute", "demo", "--prompt", IOI][..], arguments].concat();
        let error = fails(code, Path::new("."), &arguments);
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}
