//! Errors name what is wrong and what was expected, and exit with 1, or 2 for a bad command line.

use std::path::Path;

use safetensors::Dtype;

use crate::support::{Array, fails, fixture, fixture_file, folder, model_with_words, write};

/// The error of `run` on the fixture `gpt2` says all of `said`.
#[track_caller]
fn run(code: i32, folder: &Path, args: &[&str], said: &[&str]) {
    let (model, tokens) = (fixture("gpt2"), fixture_file("gpt2", "golden.safetensors"));
    let args = [&["run", &model, "--tokens", &tokens], args].concat();
    check(code, folder, &args, said);
}

#[track_caller]
fn check(code: i32, folder: &Path, args: &[&str], said: &[&str]) {
    let error = fails(code, folder, args);
    for said in said {
        assert!(error.contains(said), "{args:?}: {said:?} is not in {error}");
    }
}

#[test]
fn interventions_that_make_no_sense() {
    let folder = folder();
    let folder = folder.path();
    run(2, folder, &["--ablate", "z0:heads=1"], &["`heads=1`", "head, pos, neuron", "z3:head=1=zero"]);
    run(2, folder, &["--ablate", "z0:head=x"], &["`head=x`", "2:7"]);
    run(2, folder, &["--ablate", "z0=none"], &["`none`", "zero or mean"]);
    run(2, folder, &["--scale", "z0"], &["factor is missing"]);
    run(2, folder, &["--scale", "z0=much"], &["`much` is not a number"]);
    run(2, folder, &["--add", "z0=v.bin"], &["`v.bin`", "FILE.safetensors"]);
}

#[test]
fn interventions_that_do_not_fit_the_model() {
    let folder = folder();
    let folder = folder.path();
    run(
        1,
        folder,
        &["--ablate", "z0:head=2"],
        &["--ablate z0:head=2", "blocks.0.attn.hook_z", "2 heads, 0 to 1"],
    );
    run(
        1,
        folder,
        &["--ablate", "resid_pre0:head=1"],
        &["blocks.0.hook_resid_pre", "no head axis", "[batch, pos, d_model]"],
    );
    run(1, folder, &["--ablate", "z0:neuron=1"], &["no neuron axis"]);
    run(1, folder, &["--scale", "post1:neuron=20=2"], &["20 neurons, 0 to 19"]);
    run(1, folder, &["--ablate", "z0:pos=8"], &["`pos=8`", "positions are 0 to 7"]);
    run(1, folder, &["--ablate", "hook_tokens"], &["integers"]);
    run(1, folder, &["--ablate", "z7"], &["the model has 2 layers", "`burn-lens hooks MODEL`"]);
    run(1, folder, &["--ablate", "blocks.0.attn.hook_patern"], &["did you mean blocks.0.attn.hook_pattern"]);
    run(1, folder, &["--ablate", "blocks.*.nothing"], &["matches no hook"]);
}

#[test]
fn vectors_that_do_not_fit() {
    let folder = folder();
    let folder = folder.path();
    let float = |len: usize| Array::f32(&[len], vec![0.0; len]);
    let two = write(folder, "two.safetensors", &[("a", float(16)), ("b", float(3))]);
    let int = write(folder, "int.safetensors", &[("a", Array::int(Dtype::I32, &[16], 0..16))]);
    run(1, folder, &["--add", "resid_post0=absent.safetensors"], &["absent.safetensors", "No such file"]);
    run(1, folder, &["--add", &format!("resid_post0={two}")], &["a, b", "FILE:TENSOR"]);
    run(1, folder, &["--add", &format!("resid_post0={two}:c")], &["no tensor `c`", "a, b"]);
    run(1, folder, &["--add", &format!("resid_post0={two}:b")], &["shape [3]", "[2, 8, 16]", "or [16]"]);
    run(1, folder, &["--add", &format!("resid_post0={int}")], &["expected floats"]);
}

#[test]
fn generation_refuses_positions_that_are_never_run() {
    let folder = folder();
    model_with_words(folder.path());
    let generate = |edit: &str, said: &[&str]| {
        let args = ["generate", "words", "--prompt", "w3 w4", "--max-new-tokens", "3", "--ablate", edit];
        check(1, folder.path(), &args, said);
    };
    generate("z0:pos=5", &["positions are 0 to 4", "the prompt has 3"]);
    generate("z0:pos=-4", &["`pos=-4`"]);
    generate("pattern0=mean", &["blocks.0.attn.hook_pattern", "grows"]);
}

#[test]
fn tokens_that_do_not_fit() {
    let folder = folder();
    let folder = folder.path();
    let model = fixture("gpt2");
    let run = |name: &str, tensors: &[(&str, Array)], said: &[&str]| {
        let file = write(folder, name, tensors);
        check(1, folder, &["run", &model, "--tokens", &file], said);
    };
    let tokens = |ids: &[i64]| Array::int(Dtype::I32, &[1, ids.len()], ids.iter().copied());
    run(
        "a.safetensors",
        &[("tokens", tokens(&[1, 37]))],
        &["token 37 at row 0, position 1", "vocabulary of 37"],
    );
    run("b.safetensors", &[("tokens", tokens(&[-1]))], &["token -1"]);
    run("c.safetensors", &[("ids", tokens(&[1]))], &["no tensor `tokens`", "`ids`"]);
    run("d.safetensors", &[("tokens", Array::f32(&[1, 2], [0.0, 1.0]))], &["f32", "expected i32 or i64"]);
    run("e.safetensors", &[("tokens", Array::int(Dtype::I64, &[2], [0, 1]))], &["shape [2]", "[batch, pos]"]);
    let mask = Array::int(Dtype::I32, &[1, 3], [1, 1, 1]);
    run(
        "f.safetensors",
        &[("tokens", tokens(&[1, 2])), ("attention_mask", mask)],
        &["attention_mask", "[1, 2]"],
    );
    let long: Vec<i64> = vec![1; 33];
    run("g.safetensors", &[("tokens", tokens(&long))], &["33 positions", "context is 32"]);
    check(
        1,
        folder,
        &["run", &model, "--tokens", "absent.safetensors"],
        &["absent.safetensors", "No such file"],
    );
    let config = fixture_file("gpt2", "config.json");
    check(1, folder, &["run", &model, "--tokens", &config], &["config.json"]);
}

#[test]
fn models_that_are_not_there() {
    let folder = folder();
    let folder = folder.path();
    std::fs::create_dir(folder.join("empty")).unwrap();
    check(1, folder, &["info", "./absent"], &["`./absent` is neither", "hint: MODEL is a folder"]);
    check(1, folder, &["info", "some/repository"], &["some/repository", "downloads are off"]);
    check(1, folder, &["info", "empty"], &["empty has no"]);
    check(
        1,
        folder,
        &["info", &fixture_file("gpt2", "model.safetensors")],
        &["is a file", "give the folder"],
    );
    check(
        1,
        folder,
        &["run", &fixture("gpt2"), "--prompt", "a"],
        &["has no tokenizer", "--tokens FILE.safetensors"],
    );
    check(
        1,
        folder,
        &["info", &fixture("llama-gqa"), "--process", "center_writing_weights"],
        &["not valid", "--process default"],
    );
}

#[test]
fn what_to_save() {
    let folder = folder();
    let folder = folder.path();
    run(1, folder, &["--save", "absent/out.safetensors"], &["there is no folder absent"]);
    run(1, folder, &["--save", "o.safetensors", "--names", "pattern9"], &["the model has 2 layers"]);
    run(
        1,
        folder,
        &["--save", "o.safetensors", "--names", "pattern1", "--stop-at-layer", "1"],
        &["--stop-at-layer 1"],
    );
    run(1, folder, &["--save", "o.safetensors", "--stop-at-layer", "3"], &["stop_at_layer = 3", "2 layers"]);
    run(
        1,
        folder,
        &["--save", "o.safetensors", "--stop-at-layer", "1", "--ablate", "z1"],
        &["blocks.1.attn.hook_z", "does not reach"],
    );
    run(1, folder, &["--save", "o.safetensors", "--pos", "8"], &["position 8"]);
    assert!(!folder.join("o.safetensors").exists(), "nothing is left behind");
}

#[test]
fn command_lines_that_make_no_sense() {
    let folder = folder();
    let folder = folder.path();
    check(2, folder, &["run", "demo"], &["--prompt", "--tokens"]);
    check(2, folder, &["run", "demo", "--prompt", "a", "--tokens", "b"], &["cannot be used with"]);
    check(2, folder, &["run", "demo", "--prompt", "a", "--names", "z0"], &["--save"]);
    check(2, folder, &["run", "demo", "--promt", "a"], &["a similar argument exists: '--prompt'"]);
    check(2, folder, &["generat"], &["'generate'"]);
    check(2, folder, &["info", "demo", "--device", "vulcan"], &["did you mean vulkan"]);
    check(2, folder, &["info", "demo", "--dtype", "f8"], &["expected f64, f32, bf16 or f16"]);
    check(2, folder, &["info", "demo", "--process", "fold_nl"], &["did you mean fold_ln"]);
    check(2, folder, &["info", "demo", "--control", "rnd"], &["possible values: trained, random, shuffled"]);
    check(
        2,
        folder,
        &["run", "demo", "--prompt", "a", "--save", "o.safetensors", "--pos", "a"],
        &["is not a slice"],
    );
}

#[test]
fn options_that_mean_nothing() {
    let folder = folder();
    model_with_words(folder.path());
    let generate = |args: &[&str], said: &[&str]| {
        check(1, folder.path(), &[&["generate", "words", "--prompt", "w3"], args].concat(), said);
    };
    generate(&["--temperature=-1"], &["temperature = -1"]);
    generate(&["--top-k", "0"], &["top_k = 0"]);
    generate(&["--top-p", "1.5"], &["top_p = 1.5"]);
    let empty = ["run", "words", "--prompt", "", "--prepend-bos", "false"];
    check(1, folder.path(), &empty, &["prompt 0 is empty"]);
}
