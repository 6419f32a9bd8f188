//! `burn-lens generate` continues as Hugging Face does; interventions act at absolute positions.

use std::path::Path;

use serde_json::Value;

use crate::support::{Array, fixture_file, folder, json_in, model_with_words, ok_in, read, word, write};

fn tokens(completion: &Value) -> Vec<i64> {
    completion["tokens"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
}

fn generate(folder: &Path, args: &[&str]) -> Vec<Vec<i64>> {
    let json = json_in(folder, &[&["generate", "words"], args].concat());
    json.as_array().unwrap().iter().map(tokens).collect()
}

/// The prompt of the golden continuation, as words.
fn golden_prompt() -> String {
    let tokens = read(fixture_file("gpt2", "golden.safetensors"))["tokens"].clone();
    tokens.values[..8].iter().map(|&id| word(id as i64)).collect::<Vec<_>>().join(" ")
}

#[test]
fn greedy_continuations_are_those_of_hugging_face() {
    let folder = folder();
    model_with_words(folder.path());
    let golden = read(fixture_file("gpt2", "golden.safetensors"))["generate.greedy"].clone();
    let expected: Vec<i64> = golden.values.iter().map(|&id| id as i64).collect();
    let args = ["--prompt", &golden_prompt(), "--prepend-bos", "false", "--no-eos", "--max-new-tokens", "12"];
    assert_eq!(generate(folder.path(), &args)[0], expected);
    assert_eq!(generate(folder.path(), &[&args[..], &["--no-kv-cache"]].concat())[0], expected);
}

#[test]
fn a_batch_is_its_prompts_one_by_one() {
    let folder = folder();
    model_with_words(folder.path());
    let args = ["--no-eos", "--ablate", "z0:head=1,pos=1:", "--scale", "resid_pre1:pos=-1=3"];
    let run = |prompts: &[&str]| generate(folder.path(), &[&["--prompt"], prompts, &args].concat());
    let both = run(&["w3 w4 w5 w9 w8", "w6"]);
    assert_eq!(both, [run(&["w3 w4 w5 w9 w8"]), run(&["w6"])].concat());
}

#[test]
fn interventions_act_the_same_with_and_without_the_key_value_cache() {
    let folder = folder();
    model_with_words(folder.path());
    let vector = write(
        folder.path(),
        "v.safetensors",
        &[("v", Array::f32(&[16], (0..16).map(|at| f64::from(at) - 8.0)))],
    );
    // The penalty keeps the continuation from ending in one repeated token, whatever is changed.
    let plain = ["--prompt", "w3 w4 w5", "w6", "--no-eos", "--frequency-penalty", "2"];
    let clean = generate(folder.path(), &plain);
    for edit in [
        ["--ablate", "z0:head=1"],
        ["--ablate", "z1=mean"],
        ["--ablate", "blocks.*.hook_mlp_out:pos=-1:"],
        ["--scale", "resid_post0:pos=2=-3"],
        ["--add", &format!("resid_post0:pos=-1={vector}")],
        ["--add", &format!("resid_post0:pos=6={vector}*2")],
    ] {
        let args = [&plain[..], &edit[..]].concat();
        let cached = generate(folder.path(), &args);
        assert_eq!(cached, generate(folder.path(), &[&args[..], &["--no-kv-cache"]].concat()), "{edit:?}");
        assert_ne!(cached, clean, "{edit:?} does not show");
    }
}

#[test]
fn an_intervention_on_a_later_position_leaves_earlier_tokens_alone() {
    let folder = folder();
    model_with_words(folder.path());
    let prompt = ["--prompt", "w3 w4 w5", "--no-eos", "--frequency-penalty", "2"];
    let clean = generate(folder.path(), &prompt)[0].clone();
    // The prompt has four tokens with BOS: position 6 is the third new token, which decides the fourth.
    let edited =
        generate(folder.path(), &[&prompt[..], &["--scale", "resid_post1:pos=6=-5"]].concat())[0].clone();
    assert_eq!(clean[..3], edited[..3]);
    assert_ne!(clean[3], edited[3]);
}

#[test]
fn sampling_and_stopping() {
    let folder = folder();
    model_with_words(folder.path());
    let sampled = |seed: &str| {
        generate(folder.path(), &["--prompt", "w3", "--no-eos", "--temperature", "2", "--seed", seed])
    };
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
    let greedy = generate(folder.path(), &["--prompt", "w3", "--no-eos"])[0].clone();
    let narrow = ["--prompt", "w3", "--no-eos", "--temperature", "2", "--top-k", "1"];
    assert_eq!(generate(folder.path(), &narrow)[0], greedy);

    let stop = word(greedy[2]);
    let json = json_in(folder.path(), &["generate", "words", "--prompt", "w3", "--no-eos", "--stop", &stop]);
    let first = greedy.iter().position(|&id| id == greedy[2]).unwrap();
    assert_eq!(tokens(&json[0]), greedy[..=first]);
    assert_eq!(json[0]["finish"], "stop");
    assert_eq!(json[0]["prompt_tokens"], serde_json::json!([1, 3]));

    let text =
        ok_in(folder.path(), &["generate", "words", "--prompt", "w3", "--no-eos", "--max-new-tokens", "2"]);
    assert_eq!(text, format!("w3 {} {}\n", word(greedy[0]), word(greedy[1])));
}
