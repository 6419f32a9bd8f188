//! `burn-lens sae`, and dictionaries in `run` and `generate`.

use crate::support::{Array, fails, fixture, fixture_file, folder, json_in, ok_in, read, write};

const MODEL: &str = "tl-ln";
const ACTS: &str = "blocks.0.hook_resid_pre.hook_sae_acts_post";

fn tokens() -> String {
    fixture_file("sae-splice", "cases.safetensors")
}

#[test]
fn info_says_what_a_dictionary_is() {
    let folder = folder();
    let text = ok_in(folder.path(), &["sae", "info", &fixture("sae-topk-rescaled")]);
    for part in
        ["topk", "blocks.0.hook_resid_pre", "8 -> 24 features -> 8", "b_dec subtracted", "k = 4", "SAELens"]
    {
        assert!(text.contains(part), "`{part}` in {text}");
    }
    let openai = format!("{}/resid_post_mlp_v5_32k/autoencoders", fixture("saeformat-openai-topk"));
    let json = json_in(folder.path(), &["sae", "info", &openai]);
    assert_eq!((&json["kind"], &json["format"]), (&"topk".into(), &"OpenAI".into()));
    assert_eq!(json["normalize_activations"], "layer_norm");
    assert_eq!(json["settings"]["k"], 4);
    let said = fails(1, folder.path(), &["sae", "info", "nowhere"]);
    assert!(said.contains("`nowhere`") && said.contains("`demo`") && said.contains("hub"), "{said}");
    let (right, wrong) = (fixture("sae-topk-few"), fixture("sae-topk-fwe"));
    let said = fails(1, folder.path(), &["sae", "info", &wrong]);
    assert!(said.contains("nearest") && said.contains(&right), "{said}");
    let text = ok_in(folder.path(), &["sae", "info", &fixture("sae-splice-head")]);
    assert!(text.contains("blocks.1.attn.hook_z, head 1"), "{text}");
    let said = fails(1, folder.path(), &["sae", "info", &fixture("gpt2")]);
    assert!(said.contains("weights file of a dictionary"), "{said}");
}

#[test]
fn eval_is_what_the_oracle_says_in_any_batch() {
    let folder = folder();
    let text = std::fs::read_to_string(fixture_file("sae-splice", "metrics.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let eval = |batch: &str, more: &[&str]| {
        let (model, sae, tokens) = (fixture(MODEL), fixture("sae-topk"), tokens());
        let args = ["sae", "eval", "--model", &model, "--sae", &sae, "--tokens", &tokens, "--batch", batch];
        json_in(folder.path(), &[&args[..], more].concat())
    };
    let (found, again) = (eval("8", &["--dtype", "f64"]), eval("2", &["--dtype", "f64"]));
    for metric in ["ce_score", "kl_score", "l0", "explained_variance", "mse", "cosine"] {
        let value = |json: &serde_json::Value| json[metric].as_f64().unwrap();
        let expected = value(&expected["sae-topk"]);
        assert!((value(&found) - expected).abs() < 1e-6 * expected.abs().max(1.0), "{metric}: {found}");
        assert!((value(&found) - value(&again)).abs() < 1e-12, "{metric}");
    }
    let (model, sae) = (fixture(MODEL), fixture("sae-transcoder"));
    let said =
        fails(1, folder.path(), &["sae", "eval", "--model", &model, "--sae", &sae, "--tokens", &tokens()]);
    assert!(said.contains("blocks.0.hook_mlp_out") && said.contains("length 6"), "{said}");
}

fn run(args: &[&str]) -> std::collections::BTreeMap<String, Array> {
    let (folder, model, sae, tokens) = (folder(), fixture(MODEL), fixture("sae-standard"), tokens());
    let args =
        [&["run", &model, "--tokens", &tokens, "--save", "out.safetensors", "--sae", &sae], args].concat();
    ok_in(folder.path(), &args);
    read(folder.path().join("out.safetensors"))
}

#[test]
fn features_are_named_like_neurons() {
    let plain = {
        let (folder, model, tokens) = (folder(), fixture(MODEL), tokens());
        ok_in(folder.path(), &["run", &model, "--tokens", &tokens, "--save", "out.safetensors"]);
        read(folder.path().join("out.safetensors"))
    };
    let spliced = run(&[]);
    assert_eq!(spliced["logits"].values, plain["logits"].values, "with an error term nothing changes");
    let acts = &spliced[ACTS];
    let feature =
        (0..24).find(|&feature| acts.cells().iter().any(|(at, x)| at[2] == feature && *x > 0.0)).unwrap();
    let ablated = run(&["--ablate", &format!("{ACTS}:neuron={feature}")]);
    for (at, value) in acts.cells() {
        assert_eq!(ablated[ACTS].at(&at), if at[2] == feature { 0.0 } else { value });
    }
    assert!(ablated["logits"].distance(&plain["logits"]) > 1e-3);
    let replaced = run(&["--no-error-term"]);
    assert!(replaced["logits"].distance(&plain["logits"]) > 1e-3);
    // Steering: a vector of activations is added.
    let steer = folder();
    let vector = (0..24).map(|at| if at == feature { 2.0 } else { 0.0 });
    write(steer.path(), "steer.safetensors", &[("v", Array::f32(&[24], vector))]);
    let file = steer.path().join("steer.safetensors");
    let steered = run(&["--add", &format!("{ACTS}:pos=-1={}", file.display())]);
    for (at, value) in acts.cells() {
        let expected = if at[1] == 5 && at[2] == feature { value + 2.0 } else { value };
        assert!((steered[ACTS].at(&at) - expected).abs() < 1e-5);
    }
}

#[test]
fn what_does_not_fit_is_said() {
    let (folder, model, sae, tokens) = (folder(), fixture(MODEL), fixture("sae-standard"), tokens());
    let said = |args: &[&str]| {
        fails(1, folder.path(), &[&["run", &model, "--tokens", &tokens, "--sae", &sae], args].concat())
    };
    let error = said(&["--ablate", "blocks.0.hook_resid_pre.hook_sae_acts_pst:neuron=7"]);
    assert!(error.contains(ACTS), "{error}");
    let error = said(&["--ablate", &format!("{ACTS}:neuron=24")]);
    assert!(error.contains("24 features") || error.contains("24 neurons"), "{error}");
    let error = said(&["--sae", &sae]);
    assert!(error.contains("two dictionaries"), "{error}");
    fails(2, folder.path(), &["run", &model, "--tokens", &tokens, "--no-error-term"]);
}

/// A dictionary for the bundled model: feature `i` is how much there is of entry `i` above `-bias`.
pub(crate) fn demo_sae(folder: &std::path::Path, bias: f64) -> usize {
    let names = ["--names", "blocks.1.hook_resid_post", "--save", "one.safetensors"];
    ok_in(folder, &[&["run", "demo", "--prompt", "Then"][..], &names].concat());
    let d = read(folder.join("one.safetensors"))["blocks.1.hook_resid_post"].shape[2];
    let eye = || (0..d * d).map(|at| if at % d == at / d { 1.0 } else { 0.0 });
    let zeros = |len| (0..len).map(|_| 0.0);
    let tensors = [
        ("W_enc", Array::f32(&[d, d], eye())),
        ("W_dec", Array::f32(&[d, d], eye())),
        ("b_enc", Array::f32(&[d], zeros(d).map(|zero| zero + bias))),
        ("b_dec", Array::f32(&[d], zeros(d))),
    ];
    std::fs::create_dir_all(folder.join("sae")).unwrap();
    write(&folder.join("sae"), "sae_weights.safetensors", &tensors);
    let config = format!(
        r#"{{"architecture": "standard", "d_in": {d}, "d_sae": {d}, "sae_lens_version": "6.0.0",
           "metadata": {{"hook_name": "blocks.1.hook_resid_post"}}}}"#
    );
    std::fs::write(folder.join("sae").join("cfg.json"), config).unwrap();
    d
}

#[test]
fn features_are_steered_in_generation() {
    let folder = folder();
    let d = demo_sae(folder.path(), 0.0);
    let generate = |more: &[&str]| {
        let args =
            ["generate", "demo", "--prompt", "When Mary and John went to the store", "--max-new-tokens", "4"];
        json_in(folder.path(), &[&args[..], more].concat()).to_string()
    };
    let plain = generate(&[]);
    assert_eq!(generate(&["--sae", "sae"]), plain, "with an error term nothing changes");
    write(folder.path(), "steer.safetensors", &[("v", Array::f32(&[d], (0..d).map(|at| (at % 7) as f64)))]);
    let steer =
        ["--sae", "sae", "--add", "blocks.1.hook_resid_post.hook_sae_acts_post:pos=-1:=steer.safetensors*4"];
    let steered = generate(&steer);
    assert_ne!(steered, plain);
    assert_eq!(generate(&[&steer[..], &["--no-kv-cache"]].concat()), steered);
}
