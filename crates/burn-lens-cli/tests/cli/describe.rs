//! `info`, `hooks`, `devices`, `completions`, and what all commands share.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{burn_lens_in, fixture, folder, json_in, ok_in};

#[test]
fn info() {
    let folder = folder();
    let model = fixture("llama-gqa");
    let info = json_in(folder.path(), &["info", &model]);
    assert_eq!(info["architecture"], "LlamaForCausalLM");
    assert_eq!([&info["sizes"]["n_heads"], &info["sizes"]["n_kv_heads"]], [&json!(4), &json!(2)]);
    assert_eq!(info["parameters"], 4720);
    assert_eq!(info["weight_bytes"], 4 * 4720);
    assert_eq!(info["tokenizer"], json!(null));
    let steps = info["processing"].as_array().unwrap();
    assert_eq!(steps[0], json!({ "step": "fold_ln", "default": true, "invalid_because": null }));
    assert!(steps[1]["invalid_because"].as_str().unwrap().contains("layer norm"));
    let text = ok_in(folder.path(), &["info", &model]);
    for said in ["grouped-query", "rotary", "RMSNorm", "gated, silu", "token ids only"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // GPT-2 ties its unembedding, which is counted once.
    assert_eq!(json_in(folder.path(), &["info", &fixture("gpt2")])["tied"], true);
}

#[test]
fn hooks() {
    let folder = folder();
    let model = fixture("llama-gqa");
    let hooks = |args: &[&str]| json_in(folder.path(), &[&["hooks", &model], args].concat());
    let all = hooks(&[]);
    let names: Vec<&str> =
        all.as_array().unwrap().iter().map(|hook| hook["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["hook_tokens", "hook_embed", "blocks.0.hook_resid_pre"]);
    assert_eq!(names.last(), Some(&"unembed.hook_out"));
    let expected = json!([{
        "name": "blocks.1.attn.hook_rot_k",
        "axes": ["batch", "pos", "n_kv_heads", "d_head"],
        "shape": ["batch", "pos", 2, 4],
        "fires": "always",
        "description": "keys after rotation",
    }]);
    assert_eq!(hooks(&["--names", "rot_k1"]), expected);
    let some = hooks(&["--names", "blocks.0.attn.*", "result1"]);
    assert!(
        some.as_array()
            .unwrap()
            .iter()
            .any(|hook| hook["name"] == "blocks.0.attn.hook_result" && hook["fires"] == "optional")
    );
    let text = ok_in(folder.path(), &["hooks", &fixture("gpt2"), "--names", "blocks.0.hook_resid_pre"]);
    assert!(text.contains("[batch, pos, 16]"), "{text}");
}

#[test]
fn devices() {
    let folder = folder();
    let devices = json_in(folder.path(), &["devices"]);
    assert_eq!(devices[0]["name"], "cpu");
    assert_eq!(devices.as_array().unwrap().len(), 5);
    assert!(ok_in(folder.path(), &["devices"]).contains("--device"));
}

#[test]
fn completions() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(ok_in(folder.path(), &["completions", shell]).contains("burn-lens"), "{shell}");
    }
}

#[test]
fn help_and_version() {
    let folder = folder();
    assert_eq!(ok_in(folder.path(), &["--version"]), format!("burn-lens {}\n", env!("CARGO_PKG_VERSION")));
    for command in ["demo", "info", "hooks", "generate", "run", "devices", "completions"] {
        assert!(ok_in(folder.path(), &["--help"]).contains(command));
        assert!(ok_in(folder.path(), &[command, "--help"]).contains("Usage: burn-lens"), "{command}");
    }
}

#[test]
fn progress_is_on_standard_error_and_can_be_silenced() {
    let folder = folder();
    let model = fixture("llama-gqa");
    let loud = burn_lens_in(folder.path(), &["info", &model, "--process", "default"]);
    assert!(
        loud.err.contains("loading") && loud.err.contains("note: center_writing_weights was left out"),
        "{}",
        loud.err
    );
    let quiet = burn_lens_in(folder.path(), &["info", &model, "--process", "default", "--quiet"]);
    assert_eq!((quiet.code, quiet.err.as_str()), (0, ""));
    assert_eq!(quiet.out, loud.out);
    assert!(!loud.out.contains('\u{1b}'), "no colours where there is no terminal");
}

#[test]
fn a_reader_that_stops_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_burn-lens"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
