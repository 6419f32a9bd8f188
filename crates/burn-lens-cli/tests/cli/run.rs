//! `burn-lens run` agrees with Hugging Face and TransformerLens, and writes what it says.

use safetensors::Dtype;

use crate::support::{
    Array, TOLERANCE, fixture, fixture_file, folder, json_in, metadata, model_with_words, ok_in, read, word,
    write,
};

#[test]
fn logits_are_those_of_hugging_face() {
    for name in ["gpt2", "llama-gqa", "neox", "gemma2"] {
        let folder = folder();
        let tokens = fixture_file(name, "golden.safetensors");
        ok_in(folder.path(), &["run", &fixture(name), "--tokens", &tokens, "--save", "out.safetensors"]);
        let (found, golden) = (read(folder.path().join("out.safetensors")), read(tokens));
        let distance = found["logits"].distance(&golden["logits"]);
        assert!(distance < TOLERANCE, "{name}: {distance}");
        assert_eq!(found["tokens"], golden["tokens"], "{name}");
        assert_eq!(found["tokens"].dtype, Dtype::I32);
    }
}

#[test]
fn activations_are_those_of_transformer_lens() {
    for name in ["tl-ln", "tl-rms-gqa", "tl-alibi"] {
        let folder = folder();
        let tokens = fixture_file(name, "golden.safetensors");
        ok_in(folder.path(), &["run", &fixture(name), "--tokens", &tokens, "--save", "out.safetensors"]);
        let (found, golden) = (read(folder.path().join("out.safetensors")), read(tokens));
        let hooks: Vec<&String> = golden.keys().filter(|name| name.contains("hook_")).collect();
        assert!(hooks.len() > 20, "{name}: {hooks:?}");
        for hook in hooks {
            let found = found.get(hook).unwrap_or_else(|| panic!("{name} lacks {hook}"));
            let distance = found.distance(&golden[hook]);
            assert!(distance < TOLERANCE, "{name}, {hook}: {distance}");
        }
    }
}

#[test]
fn names_positions_and_layers_are_chosen() {
    let folder = folder();
    let (model, tokens) = (fixture("tl-ln"), fixture_file("tl-ln", "golden.safetensors"));
    let run = |args: &[&str]| {
        let args = [&["run", &model, "--tokens", &tokens, "--save", "out.safetensors"], args].concat();
        ok_in(folder.path(), &args);
        read(folder.path().join("out.safetensors"))
    };
    let golden = read(&tokens);

    let found = run(&["--names", "pattern1", "blocks.0.attn.hook_result", "--pos", "-1"]);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["blocks.0.attn.hook_result", "blocks.1.attn.hook_pattern", "logits", "tokens"]);
    assert_eq!(found["blocks.1.attn.hook_pattern"].shape, [2, 2, 1, 5]);
    assert_eq!(found["blocks.0.attn.hook_result"].shape, [2, 1, 2, 8]);
    let whole = &golden["blocks.1.attn.hook_pattern"];
    for (index, value) in found["blocks.1.attn.hook_pattern"].cells() {
        assert!((value - whole.at(&[index[0], index[1], 4, index[3]])).abs() < TOLERANCE);
    }

    let found = run(&["--stop-at-layer", "1"]);
    assert!(
        !found.contains_key("logits") && !found.keys().any(|name| name.starts_with("blocks.1")),
        "{found:?}"
    );
    assert!(found["blocks.0.hook_resid_post"].distance(&golden["blocks.0.hook_resid_post"]) < TOLERANCE);
    assert_eq!(run(&["--stop-at-layer", "-1"]), found);
    assert_eq!(
        run(&["--stop-at-layer", "0"]).keys().collect::<Vec<_>>(),
        ["hook_embed", "hook_pos_embed", "tokens"]
    );
}

#[test]
fn dtypes_and_processing_are_recorded_and_kept() {
    let folder = folder();
    let (model, tokens) = (fixture("tl-ln"), fixture_file("tl-ln", "golden.safetensors"));
    let path = folder.path().join("out.safetensors");
    for (dtype, expected, tolerance) in [("bf16", Dtype::BF16, 0.2), ("f64", Dtype::F64, 1e-9)] {
        let args = ["run", &model, "--tokens", &tokens, "--save", "out.safetensors", "--dtype", dtype];
        ok_in(folder.path(), &args);
        let found = read(&path);
        for (name, array) in found.iter().filter(|(name, _)| *name != "tokens") {
            // The divisor of a norm stays in the type that it is computed in.
            let expected =
                if name.ends_with("hook_scale") && dtype == "bf16" { Dtype::F32 } else { expected };
            assert_eq!(array.dtype, expected, "{dtype}, {name}");
        }
        let distance = found["logits"].distance(&read(&tokens)["logits"]);
        assert!(distance < tolerance, "{dtype}: {distance}");
    }
    ok_in(
        folder.path(),
        &["run", &model, "--tokens", &tokens, "--save", "out.safetensors", "--process", "default"],
    );
    let processed = read(fixture_file("tl-ln", "processed.default.safetensors"));
    assert!(read(&path)["logits"].distance(&processed["logits"]) < TOLERANCE);
    let metadata = metadata(&path);
    assert_eq!(metadata["process"], "fold_ln,center_writing_weights,center_unembed,fold_value_biases");
    assert_eq!([&*metadata["dtype"], &*metadata["model"]], ["f32", &*model]);
    assert_eq!(metadata["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn int64_tokens_and_masks_are_read() {
    let folder = folder();
    let golden = read(fixture_file("gpt2", "golden.safetensors"));
    let tokens = Array { dtype: Dtype::I64, ..golden["padded.tokens"].clone() };
    let mask = golden["padded.attention_mask"].clone();
    let file =
        write(folder.path(), "in.safetensors", &[("tokens", tokens), ("attention_mask", mask.clone())]);
    ok_in(
        folder.path(),
        &["run", &fixture("gpt2"), "--tokens", &file, "--save", "out.safetensors", "--names", "hook_embed"],
    );
    let found = read(folder.path().join("out.safetensors"));
    assert_eq!(found["attention_mask"], mask);
    for (index, value) in found["logits"].cells() {
        if mask.at(&index[..2]) == 1.0 {
            assert!((value - golden["padded.logits"].at(&index)).abs() < TOLERANCE, "{index:?}");
        }
    }
}

#[test]
fn next_tokens_are_printed() {
    let folder = folder();
    model_with_words(folder.path());
    let json = json_in(folder.path(), &["run", "words", "--prompt", "w3 w4 w5", "w6"]);
    assert_eq!(json["prompts"][0]["tokens"], serde_json::json!([1, 3, 4, 5]));
    assert_eq!(json["prompts"][1]["tokens"], serde_json::json!([1, 6]));
    let next = json["prompts"][0]["next"].as_array().unwrap();
    assert_eq!(next.len(), 10);
    let probabilities: Vec<f64> = next.iter().map(|next| next["probability"].as_f64().unwrap()).collect();
    assert!(
        probabilities.is_sorted_by(|a, b| a >= b) && probabilities.iter().sum::<f64>() < 1.0,
        "{probabilities:?}"
    );
    assert_eq!(next[0]["token"], word(next[0]["id"].as_i64().unwrap()));

    // Alone and in a batch, padded, a prompt has the same next tokens.
    let alone = json_in(folder.path(), &["run", "words", "--prompt", "w6"]);
    assert_eq!(alone["prompts"][0]["next"][0]["id"], json["prompts"][1]["next"][0]["id"]);
    let without = json_in(folder.path(), &["run", "words", "--prompt", "w6", "--prepend-bos", "false"]);
    assert_eq!(without["prompts"][0]["tokens"], serde_json::json!([6]));

    let text = ok_in(folder.path(), &["run", "words", "--prompt", "w6"]);
    assert!(text.contains("\"<s>\" \"w6\"") && text.contains('%') && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn controls_are_seeded() {
    let folder = folder();
    model_with_words(folder.path());
    let run = |args: &[&str]| json_in(folder.path(), &[&["run", "words", "--prompt", "w6"], args].concat());
    let random = run(&["--control", "random", "--seed", "1"]);
    assert_eq!(random, run(&["--control", "random", "--seed", "1"]));
    assert_ne!(random, run(&["--control", "random", "--seed", "2"]));
    assert_ne!(random, run(&["--control", "shuffled", "--seed", "1"]));
    assert_ne!(random, run(&[]));
}

#[test]
fn a_plan_runs_nothing() {
    let folder = folder();
    let (model, tokens) = (fixture("tl-ln"), fixture_file("tl-ln", "golden.safetensors"));
    let run = |args: &[&str]| {
        let args = [&["run", &model, "--tokens", &tokens, "--plan"], args].concat();
        json_in(folder.path(), &args)
    };
    let plan = run(&[]);
    assert_eq!(plan["attention"]["path"], "fused", "{plan}");
    assert_eq!(plan["kept_bytes"], 0);
    let plan = run(&["--save", "out.safetensors", "--names", "pattern1", "--pos", "-1"]);
    assert_eq!(plan["attention"]["layers"], serde_json::json!([1]), "{plan}");
    assert_eq!(plan["kept"][0]["name"], "blocks.1.attn.hook_pattern");
    let plan = run(&["--ablate", "pattern0:head=0"]);
    assert_eq!(plan["attention"]["layers"], serde_json::json!([0]), "{plan}");
    assert!(!folder.path().join("out.safetensors").exists(), "a plan wrote a file");
}
