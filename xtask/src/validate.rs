//! Everything a change must pass, in one command.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::command::{Outcome, cargo, run as execute, succeeds};
use crate::{deps, tidy};

/// One check: its name, and what runs it.
type Step = (&'static str, fn() -> Outcome<Done>);

/// How a step ended that did not fail.
enum Done {
    Passed,
    /// Not run, and why.
    Skipped(&'static str),
}

/// In the order in which they run.
const STEPS: &[Step] = &[
    ("format", || passed(&mut cargo(["fmt", "--all", "--check"]))),
    ("clippy", || passed(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))),
    ("tests", tests),
    ("doctests", || passed(&mut cargo(["test", "--doc", "--workspace"]))),
    ("docs", || passed(cargo(["doc", "--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "-D warnings"))),
    ("deny", deny),
    ("deps", || deps::run().map(|()| Done::Passed)),
    ("tidy", || tidy::run().map(|()| Done::Passed)),
];

/// Runs every step; stops at the first that fails, unless `--keep-going` is given.
pub(crate) fn run(args: &[&str]) -> Outcome {
    let keep_going = match *args {
        [] => false,
        ["--keep-going"] => true,
        _ => return Err(format!("`validate` takes only `--keep-going`, found `{}`", args.join(" "))),
    };
    run_steps(STEPS, keep_going)
}

fn run_steps(steps: &[Step], keep_going: bool) -> Outcome {
    let mut rows: Vec<(&str, String, Duration)> = Vec::new();
    let mut failed = Vec::new();
    for (index, (name, step)) in steps.iter().enumerate() {
        println!("\n── {}/{} {name}", index + 1, steps.len());
        let start = Instant::now();
        let result = match step() {
            Ok(Done::Passed) => "ok".to_owned(),
            Ok(Done::Skipped(why)) => {
                println!("skipped: {why}");
                format!("skipped: {why}")
            }
            Err(message) => {
                eprintln!("{message}");
                failed.push(*name);
                "FAILED".to_owned()
            }
        };
        rows.push((name, result, start.elapsed()));
        if !failed.is_empty() && !keep_going {
            break;
        }
    }
    println!("\n{}", table(&rows));
    if failed.is_empty() { Ok(()) } else { Err(format!("validate failed at: {}", failed.join(", "))) }
}

fn table(rows: &[(&str, String, Duration)]) -> String {
    let mut lines: Vec<String> = rows
        .iter()
        .map(|(name, result, time)| format!("{name:<10} {:>8.1} s  {result}", time.as_secs_f64()))
        .collect();
    let total: Duration = rows.iter().map(|(_, _, time)| *time).sum();
    lines.push(format!("{:<10} {:>8.1} s", "total", total.as_secs_f64()));
    lines.join("\n")
}

fn passed(command: &mut Command) -> Outcome<Done> {
    execute(command).map(|()| Done::Passed)
}

fn tests() -> Outcome<Done> {
    if succeeds(&mut cargo(["nextest", "--version"])) {
        return passed(&mut cargo(["nextest", "run", "--workspace"]));
    }
    println!("cargo-nextest is not installed; running cargo test (slower, same tests)");
    passed(&mut cargo(["test", "--workspace", "--lib", "--bins", "--tests", "--examples"]))
}

/// Advisories are left out: that list changes daily, and a check of one commit should not.
/// Warnings are hidden: they are the crates that burn's own tree holds in two versions.
fn deny() -> Outcome<Done> {
    if succeeds(&mut cargo(["deny", "--version"])) {
        return passed(&mut cargo(["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]));
    }
    Ok(Done::Skipped("cargo-deny is not installed (`cargo install --locked cargo-deny`)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: &[Step] = &[
        ("first", || Ok(Done::Passed)),
        ("second", || Err("no".to_owned())),
        ("third", || Ok(Done::Skipped("not here"))),
        ("fourth", || Err("no".to_owned())),
    ];

    #[test]
    fn stops_at_the_first_failure() {
        assert_eq!(run_steps(STEPS, false), Err("validate failed at: second".to_owned()));
    }

    #[test]
    fn keeps_going_when_told_to() {
        assert_eq!(run_steps(STEPS, true), Err("validate failed at: second, fourth".to_owned()));
    }

    #[test]
    fn passes_when_all_pass() {
        assert_eq!(run_steps(&STEPS[..1], false), Ok(()));
    }

    #[test]
    fn other_arguments_are_refused() {
        assert!(run(&["--fast"]).is_err());
    }

    #[test]
    fn the_table_has_every_step_and_the_sum() {
        let second = Duration::from_secs(1);
        let rows = [("format", "ok".to_owned(), second), ("tests", "FAILED".to_owned(), 2 * second)];
        assert_eq!(
            table(&rows),
            "format          1.0 s  ok\n\
             tests           2.0 s  FAILED\n\
             total           3.0 s"
        );
    }
}
