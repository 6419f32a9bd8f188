//! Every fuzz target of `fuzz/`, for a few seconds each.
//!
//! The instrumentation needs compiler flags that only nightly takes; `RUSTC_BOOTSTRAP=1` makes
//! the workspace's own stable toolchain take them, so no second one is needed.

use std::process::Command;

use crate::command::{Outcome, cargo, option, run as execute, succeeds};

/// How long a target runs unless `--seconds` says otherwise.
const SECONDS: u64 = 60;

/// The most memory a target may use: a small input must not make us allocate more.
const MEMORY_MIB: u64 = 2048;

/// The longest that one input may take.
const TIMEOUT_SECONDS: u64 = 10;

/// Runs every target for `--seconds`.
pub(crate) fn run(args: &[&str]) -> Outcome {
    let seconds = match option(args, "--seconds")? {
        None => SECONDS,
        Some(text) => text.parse().map_err(|_| format!("`{text}` is not a whole number of seconds"))?,
    };
    if !succeeds(&mut cargo_fuzz(&["--version"])) {
        return Err("cargo-fuzz is not installed: `cargo install --locked cargo-fuzz`".to_owned());
    }
    if !succeeds(Command::new("c++").arg("--version")) {
        return Err("no C++ compiler was found, and libFuzzer is built from source: install g++".to_owned());
    }
    let listed = cargo_fuzz(&["list"]).output().map_err(|error| format!("`cargo fuzz list`: {error}"))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let targets: Vec<&str> = listed.split_whitespace().collect();
    if targets.is_empty() {
        return Err("`cargo fuzz list` names no target".to_owned());
    }
    for target in &targets {
        let mut command = cargo_fuzz(&["run", "--codegen-units=16", target, "--"]);
        command.args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={TIMEOUT_SECONDS}"),
            format!("-rss_limit_mb={MEMORY_MIB}"),
        ]);
        execute(&mut command).map_err(|error| {
            format!("{error}\nthe failing input, if there is one, is in fuzz/artifacts/{target}/")
        })?;
    }
    println!("{} fuzz targets ran {seconds} s each: {}", targets.len(), targets.join(", "));
    Ok(())
}

fn cargo_fuzz(args: &[&str]) -> Command {
    let mut command = cargo(["fuzz"]);
    command.args(args).env("RUSTC_BOOTSTRAP", "1");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_must_be_a_number() {
        assert!(run(&["--seconds", "soon"]).unwrap_err().contains("soon"));
    }
}
