//! The commands of docs/in-context-learning.md, in their order, with short training.

use std::{fs, path::Path};

use crate::support::{Array, fixture_file, folder, ok_in, write};

/// Every command of a document: indented, perhaps over several lines, without what stands behind `#`.
fn commands(text: &str) -> Vec<Vec<String>> {
    let (mut found, mut open) = (Vec::new(), false);
    for line in text.lines().filter_map(|line| line.strip_prefix("    ")) {
        if !open {
            match line.strip_prefix("burn-lens ") {
                Some(_) => found.push(Vec::new()),
                None => continue,
            }
        }
        let part = line.strip_suffix('\\');
        open = part.is_some();
        let words = part.unwrap_or(line).split_whitespace().take_while(|word| !word.starts_with('#'));
        found.last_mut().unwrap().extend(words.map(str::to_owned));
    }
    // Without the name of the program.
    found.into_iter().map(|command: Vec<String>| command[1..].to_vec()).collect()
}

/// With twenty steps in place of thousands, and little of everything.
fn shortened(mut command: Vec<String>) -> Vec<String> {
    if command[0] == "train" && command[1] != "resume" {
        for (flag, value) in [("--steps", "20"), ("--batch", "4"), ("--checkpoints", "2"), ("--test", "20")] {
            match command.iter().position(|word| word == flag) {
                Some(at) => value.clone_into(&mut command[at + 1]),
                None => command.extend([flag, value].map(str::to_owned)),
            }
        }
    }
    command
}

#[test]
fn the_walk_through_in_context() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let text = fs::read_to_string(docs.join("in-context-learning.md")).unwrap();
    let folder = folder();
    let path = folder.path();
    // What the reader has: the rules of the repository, a state dict of torch, examples for it.
    fs::create_dir_all(path.join("docs/rules")).unwrap();
    fs::copy(docs.join("rules/gpt2-in-context.toml"), path.join("docs/rules/gpt2-in-context.toml")).unwrap();
    fs::copy(fixture_file("icl-gpt2", "model.pth"), path.join("model.pth")).unwrap();
    let value = |at: usize| f64::from((at * 7919 % 101) as u32) / 50.0 - 1.0;
    let x = Array::f32(&[2, 4, 2], (0..16).map(value));
    let y = Array::f32(&[2, 4], (3..11).map(value));
    write(path, "examples.safetensors", &[("x", x), ("y", y)]);
    write(path, "vectors.safetensors", &[("vectors", Array::f32(&[1, 9, 3], (0..27).map(value)))]);

    let commands = commands(&text);
    let names: Vec<&str> = commands.iter().map(|command| command[0].as_str()).collect();
    for name in ["train", "attention-clusters", "convert", "info"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    for command in commands {
        let command = shortened(command);
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        ok_in(path, &words);
    }
    for file in ["regression/training.html", "figure.svg", "figure.png", "figure.html"] {
        assert!(path.join(file).is_file(), "{file}");
    }
}
