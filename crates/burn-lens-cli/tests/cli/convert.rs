//! `convert`: a checkpoint of another program, and back.

use std::{fs, path::Path};

use crate::support::{Array, TOLERANCE, fails, fixture_file, folder, json_in, ok_in, read, write};

/// The documented table of rules.
pub(crate) fn rules() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rules/gpt2-in-context.toml");
    path.to_str().unwrap().to_owned()
}

/// The sizes of the fixture, in place of those in the table.
pub(crate) const SIZES: [&str; 5] = ["--set", "n_layers=2", "d_model=16", "n_heads=2", "n_ctx=9"];

#[test]
fn a_state_dict_of_torch_becomes_a_model_and_goes_back() {
    let folder = folder();
    let path = folder.path();
    let (pth, rules) = (fixture_file("icl-gpt2", "model.pth"), rules());
    let args = [&["convert", &pth, "--rules", &rules, "--save", "model"][..], &SIZES].concat();
    let found = json_in(path, &args);
    assert_eq!(
        (found["read"].as_u64(), found["dropped"][0].as_str()),
        (Some(31), Some("_backbone.wte.weight"))
    );
    let text = ok_in(path, &args);
    assert!(text.contains("wrote model") && text.contains("_backbone.wte.weight"), "{text}");
    assert_eq!(json_in(path, &["info", "model"])["sizes"]["d_in"], 3);

    let back =
        [&["convert", "model", "--rules", &rules, "--export", "back.safetensors"][..], &SIZES].concat();
    assert!(ok_in(path, &back).contains("wrote 31 tensors to back.safetensors"));
    let tensors = read(path.join("back.safetensors"));
    assert_eq!(tensors["_backbone.h.1.attn.c_attn.weight"].shape, [16, 48]);
    assert_eq!(tensors["_read_in.weight"].shape, [16, 3]);
    // What was written reads as what was read, bit by bit.
    let again = ["convert", "back.safetensors", "--rules", &rules, "--save", "again"];
    ok_in(path, &[&again[..], &SIZES].concat());
    let bytes = |model: &str| fs::read(path.join(model).join("model.safetensors")).unwrap();
    assert_eq!(bytes("model"), bytes("again"));
}

#[test]
fn activations_have_the_names_of_the_other_program() {
    let folder = folder();
    let path = folder.path();
    let (pth, rules) = (fixture_file("icl-gpt2", "model.pth"), rules());
    ok_in(path, &[&["convert", &pth, "--rules", &rules, "--save", "model"][..], &SIZES].concat());
    let golden = read(fixture_file("icl-gpt2", "golden.safetensors"));
    let vectors = write(path, "in.safetensors", &[("vectors", golden["x"].clone())]);
    let args =
        ["convert", "model", "--rules", &rules, "--vectors", &vectors, "--activations", "out.safetensors"];
    let text = ok_in(path, &[&args[..], &SIZES].concat());
    // A tree by dots.
    assert!(text.contains("\n      attn: [2, 9, 16]\n        c_attn: [2, 9, 48]\n"), "{text}");
    let found = read(path.join("out.safetensors"));
    let mut modules = 0;
    for (name, expected) in
        golden.iter().filter_map(|(name, array)| Some((name.strip_prefix("module/")?, array)))
    {
        modules += 1;
        if name == "_backbone.wpe" {
            continue; // GPT2Model looks positions up once, for all rows
        }
        assert!(found[name].distance(expected) < TOLERANCE, "{name}");
    }
    assert_eq!((found.len(), found["_backbone.h.0.attn.attn_dropout"].shape.len()), (modules, 4));
    let tokens = fixture_file("gpt2", "golden.safetensors");
    let args =
        ["convert", "model", "--rules", &rules, "--vectors", &tokens, "--activations", "out.safetensors"];
    assert!(fails(1, path, &[&args[..], &SIZES].concat()).contains("no tensor `vectors`"));
    let narrow = write(path, "narrow.safetensors", &[("vectors", Array::f32(&[1, 2, 2], vec![0.0; 4]))]);
    let args =
        ["convert", "model", "--rules", &rules, "--vectors", &narrow, "--activations", "out.safetensors"];
    assert!(fails(1, path, &[&args[..], &SIZES].concat()).contains("[batch, pos, 3]"));
    let args = ["convert", "model", "--rules", &rules, "--activations", "out.safetensors"];
    assert!(fails(2, path, &args).contains("--vectors"));
}

#[test]
fn what_does_not_fit_is_listed() {
    let folder = folder();
    let path = folder.path();
    let (pth, table) = (fixture_file("icl-gpt2", "model.pth"), fs::read_to_string(rules()).unwrap());
    let short = table.replace("drop = [", "drop_ = [");
    fs::write(path.join("unknown.toml"), short).unwrap();
    let rule = "[[weight]]\nsource = \"_read_out.bias\"\ntarget = \"read_out.b\"\n";
    let none = "  \"_backbone.wte.weight\",";
    assert!(table.contains(rule) && table.contains(none));
    fs::write(path.join("gaps.toml"), table.replace(rule, "").replace(none, "  ")).unwrap();
    let run = |rules: &str, more: &[&str], said: &[&str]| {
        let args = ["convert", &pth, "--rules", rules, "--save", "model"];
        let error = fails(1, path, &[&args[..], more].concat());
        for said in said {
            assert!(error.contains(said), "{rules} {more:?}: {said:?} is not in {error}");
        }
        assert!(!path.join("model").exists());
    };
    run("unknown.toml", &SIZES, &["unknown.toml", "drop_"]);
    run("gaps.toml", &SIZES, &["_backbone.wte.weight", "_read_out.bias", "read_out.b (no rule makes it)"]);
    run(&rules(), &[], &["_read_in.weight", "[16, 3]", "[64, 3]"]);
    run(&rules(), &[&SIZES[..], &["n_layer=3"]].concat(), &["n_layer"]);
    run("absent.toml", &SIZES, &["absent.toml"]);
    run(&pth, &SIZES, &[".toml or .json"]);
    let args = ["convert", "absent.pth", "--rules", &rules(), "--save", "model"];
    assert!(fails(1, path, &args).contains("absent.pth"));
    let args = ["convert", "demo", "--rules", &rules(), "--export", "out.safetensors"];
    assert!(fails(1, path, &args).contains("read_in"));
    assert!(fails(2, path, &["convert", &pth, "--rules", &rules()]).contains("--save"));
    let args = ["convert", &pth, "--rules", &rules(), "--save", "model", "--set", "n_layers"];
    assert!(fails(2, path, &args).contains("no KEY=VALUE"));
}
