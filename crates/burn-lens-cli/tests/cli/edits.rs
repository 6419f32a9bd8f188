//! Interventions change what they name, and nothing else.

use std::{collections::BTreeMap, path::Path};

use crate::support::{Array, TOLERANCE, fixture, fixture_file, folder, metadata, ok_in, read, write};

const Z: &str = "blocks.0.attn.hook_z";
const RESID: &str = "blocks.0.hook_resid_post";

fn run(folder: &Path, args: &[&str]) -> BTreeMap<String, Array> {
    let (model, tokens) = (fixture("gpt2"), fixture_file("gpt2", "golden.safetensors"));
    let args = [&["run", &model, "--tokens", &tokens, "--save", "out.safetensors"], args].concat();
    ok_in(folder, &args);
    read(folder.join("out.safetensors"))
}

/// `hook` is what `expected` makes of its clean value, and the logits change.
#[track_caller]
fn check(args: &[&str], hook: &str, expected: impl Fn(&Array, &[usize], f64) -> f64) {
    let folder = folder();
    let (clean, edited) = (run(folder.path(), &[]), run(folder.path(), args));
    for (index, value) in clean[hook].cells() {
        let (expected, found) = (expected(&clean[hook], &index, value), edited[hook].at(&index));
        assert!(
            (found - expected).abs() < 1e-5,
            "{args:?} at {index:?}: {found}, expected {expected}, was {value}"
        );
    }
    assert!(clean["logits"].distance(&edited["logits"]) > 1e-3, "{args:?} does not show in the logits");
}

#[test]
fn ablation_to_zero() {
    check(&["--ablate", "z0:head=1"], Z, |_, at, value| if at[2] == 1 { 0.0 } else { value });
    check(&["--ablate", "z0:head=1,pos=2:4=zero"], Z, |_, at, value| {
        if at[2] == 1 && (2..4).contains(&at[1]) { 0.0 } else { value }
    });
    check(&["--ablate", "z0:pos=-1,0"], Z, |_, at, value| if at[1] == 7 || at[1] == 0 { 0.0 } else { value });
    check(&["--ablate", "blocks.*.mlp.hook_post:neuron=3,5"], "blocks.0.mlp.hook_post", |_, at, value| {
        if at[2] == 3 || at[2] == 5 { 0.0 } else { value }
    });
    check(&["--ablate", "pattern1:head=0,pos=5"], "blocks.1.attn.hook_pattern", |_, at, value| {
        if at[1] == 0 && at[2] == 5 { 0.0 } else { value }
    });
}

#[test]
fn ablation_to_the_mean_over_prompts_and_positions() {
    let mean = |clean: &Array, at: &[usize]| {
        let [batch, pos] = [clean.shape[0], clean.shape[1]];
        let all = (0..batch * pos).map(|row| clean.at(&[row / pos, row % pos, at[2], at[3]]));
        all.sum::<f64>() / (batch * pos) as f64
    };
    check(
        &["--ablate", "z0:head=1=mean"],
        Z,
        |clean, at, value| if at[2] == 1 { mean(clean, at) } else { value },
    );
    check(
        &["--ablate", "z0:pos=3=mean"],
        Z,
        |clean, at, value| if at[1] == 3 { mean(clean, at) } else { value },
    );
}

#[test]
fn the_mean_leaves_padding_out() {
    let folder = folder();
    let golden = read(fixture_file("gpt2", "golden.safetensors"));
    let mask = golden["padded.attention_mask"].clone();
    let tensors = [("tokens", golden["padded.tokens"].clone()), ("attention_mask", mask.clone())];
    let file = write(folder.path(), "in.safetensors", &tensors);
    let model = fixture("gpt2");
    let run = |args: &[&str]| {
        let args = [&["run", &model, "--tokens", &file, "--save", "out.safetensors"], args].concat();
        ok_in(folder.path(), &args);
        read(folder.path().join("out.safetensors"))[RESID].clone()
    };
    let (clean, edited) = (run(&[]), run(&["--ablate", "resid_post0=mean"]));
    let real: Vec<Vec<usize>> =
        mask.cells().into_iter().filter(|(_, value)| *value == 1.0).map(|(at, _)| at).collect();
    assert!(real.len() < 16, "the fixture has padding");
    for feature in 0..16 {
        let mean = real.iter().map(|at| clean.at(&[at[0], at[1], feature])).sum::<f64>() / real.len() as f64;
        assert!((edited.at(&[0, 0, feature]) - mean).abs() < 1e-5);
        assert!((edited.at(&[1, 7, feature]) - mean).abs() < 1e-5);
    }
}

#[test]
fn scaling() {
    check(&["--scale", "z0:head=0=-2"], Z, |_, at, value| if at[2] == 0 { -2.0 * value } else { value });
    check(&["--scale", "resid_post0=0.5"], RESID, |_, _, value| 0.5 * value);
}

#[test]
fn adding_a_vector() {
    let folder = folder();
    let plain =
        write(folder.path(), "plain.safetensors", &[("v", Array::f32(&[16], (0..16).map(f64::from)))]);
    check(&["--add", &format!("resid_post0={plain}")], RESID, |_, at, value| value + at[2] as f64);
    check(&["--add", &format!("resid_post0:pos=2:4={plain}:v*-0.5")], RESID, |_, at, value| {
        if (2..4).contains(&at[1]) { value - 0.5 * at[2] as f64 } else { value }
    });
    let head = write(folder.path(), "head.safetensors", &[("v", Array::f32(&[8], (0..8).map(f64::from)))]);
    check(&["--add", &format!("z0:head=1,pos=-1={head}")], Z, |_, at, value| {
        if at[2] == 1 && at[1] == 7 { value + at[3] as f64 } else { value }
    });
}

#[test]
fn adding_the_shape_of_what_was_chosen() {
    let folder = folder();
    let by_pos =
        write(folder.path(), "a.safetensors", &[("v", Array::f32(&[2, 16], (0..32).map(f64::from)))]);
    // Position 5 comes first in the list, so it gets the first row.
    check(&["--add", &format!("resid_post0:pos=5,2={by_pos}")], RESID, |_, at, value| match at[1] {
        5 => value + at[2] as f64,
        2 => value + (16 + at[2]) as f64,
        _ => value,
    });
    let whole =
        write(folder.path(), "b.safetensors", &[("v", Array::f32(&[2, 1, 2, 8], (0..32).map(f64::from)))]);
    check(&["--add", &format!("z0:pos=3={whole}")], Z, |_, at, value| {
        if at[1] == 3 { value + (16 * at[0] + 8 * at[2] + at[3]) as f64 } else { value }
    });
}

#[test]
fn they_come_in_a_fixed_order_and_are_recorded() {
    let folder = folder();
    let plain =
        write(folder.path(), "plain.safetensors", &[("v", Array::f32(&[16], (0..16).map(f64::from)))]);
    let add = format!("resid_post0={plain}");
    let args = ["--add", &add, "--scale", "resid_post0=2", "--ablate", "resid_post0:pos=0"];
    check(&args, RESID, |_, at, value| if at[1] == 0 { at[2] as f64 } else { 2.0 * value + at[2] as f64 });
    run(folder.path(), &args);
    let recorded = metadata(folder.path().join("out.safetensors"))["interventions"].clone();
    assert!(recorded.starts_with("--ablate resid_post0:pos=0 --scale resid_post0=2 --add "), "{recorded}");
}

#[test]
fn without_interventions_nothing_changes() {
    let folder = folder();
    let golden = read(fixture_file("gpt2", "golden.safetensors"));
    assert!(run(folder.path(), &["--scale", "z0=1"])["logits"].distance(&golden["logits"]) < TOLERANCE);
}
