//! The source rules that no compiler knows, over every text file of the repository.

mod rules;
mod source;

use std::fmt;
use std::path::Path;

use crate::command::{Outcome, root};

/// The most lines that `ARCHITECTURE.md` may have: it is read whole or not at all.
const ARCHITECTURE_LINES: usize = 150;

/// Folders that hold nothing written by hand.
const SKIPPED: &[&str] =
    &["target", "fixtures", "corpus", "artifacts", "node_modules", "venv", "__pycache__"];

/// Hidden folders that do; every other one is skipped.
const HIDDEN: &[&str] = &[".cargo", ".ci", ".config", ".github"];

/// The files whose white space is checked, by extension.
const TEXT: &[&str] = &["css", "html", "js", "json", "md", "py", "rs", "sh", "toml", "txt", "yaml", "yml"];

/// One broken rule.
struct Violation {
    path: String,
    /// From 1.
    line: usize,
    rule: &'static str,
    text: String,
    /// Printed, but no failure.
    warning: bool,
}

impl Violation {
    fn warning(self) -> Self {
        Self { warning: true, ..self }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.warning { "warning: " } else { "" };
        write!(f, "{}:{}: {}: {kind}{}", self.path, self.line, self.rule, self.text)
    }
}

/// Where a file is, and so what it may do.
struct Place {
    /// From the root, with `/`.
    path: String,
    /// `burn-lens-io`, `xtask`; for the suites outside `crates/`, their folder.
    krate: String,
    /// Whether it is compiled into the crate itself, not into a test, bench or example.
    src: bool,
}

impl Place {
    fn new(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').collect();
        let (krate, inside) = match parts[..] {
            ["crates", name, ref inside @ ..] => (name, inside),
            [folder, ref inside @ ..] => (folder, inside),
            [] => ("", &[][..]),
        };
        let test =
            inside.ends_with(&["tests.rs"]) || inside.iter().rev().skip(1).any(|part| *part == "tests");
        Self { path: path.to_owned(), krate: krate.to_owned(), src: inside.first() == Some(&"src") && !test }
    }

    /// Code that a user runs: a library or the command line.
    fn is_product(&self) -> bool {
        self.src && self.path.starts_with("crates/") && self.krate != "burn-lens-testkit"
    }

    /// Code that a user links.
    fn is_library(&self) -> bool {
        self.is_product() && self.krate != "burn-lens-cli"
    }

    /// `line` is from 0.
    fn violation(&self, line: usize, rule: &'static str, text: &str) -> Violation {
        Violation { path: self.path.clone(), line: line + 1, rule, text: text.to_owned(), warning: false }
    }
}

/// Prints every violation in the repository; fails if one is no mere warning.
pub(crate) fn run() -> Outcome {
    let (files, violations) = violations(&root())?;
    for violation in &violations {
        println!("{violation}");
    }
    let failures = violations.iter().filter(|violation| !violation.warning).count();
    if failures > 0 {
        return Err(format!("tidy found {failures} violations"));
    }
    println!("{files} files are tidy");
    Ok(())
}

/// How many files were read, and what is wrong with them.
fn violations(root: &Path) -> Outcome<(usize, Vec<Violation>)> {
    let mut paths = Vec::new();
    collect(root, "", &mut paths)?;
    paths.sort();
    let mut found = root_files(root);
    for path in &paths {
        let text = std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
        found.extend(check(path, &text));
    }
    Ok((paths.len(), found))
}

/// Adds the path of every text file under `root/below` to `paths`.
fn collect(root: &Path, below: &str, paths: &mut Vec<String>) -> Outcome {
    let failed = |error| format!("cannot read the folder `{below}`: {error}");
    for entry in root.join(below).read_dir().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            let skipped =
                if name.starts_with('.') { !HIDDEN.contains(&&*name) } else { SKIPPED.contains(&&*name) };
            if !skipped {
                collect(root, &path, paths)?;
            }
        } else if kind.is_file() && is_text(&path) {
            paths.push(path);
        }
    }
    Ok(())
}

fn is_text(path: &str) -> bool {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    TEXT.contains(&extension) || path == ".ci/run"
}

fn check(path: &str, text: &str) -> Vec<Violation> {
    let place = Place::new(path);
    let mut found = rules::white_space(&place, text);
    match path.rsplit('/').next() {
        Some("Cargo.toml") => found.extend(rules::manifest(&place, text)),
        Some(name) if Path::new(name).extension().is_some_and(|extension| extension == "rs") => {
            found.extend(rules::rust(&place, text));
        }
        _ => {}
    }
    if path == "ARCHITECTURE.md" && text.lines().count() > ARCHITECTURE_LINES {
        found.push(place.violation(
            ARCHITECTURE_LINES,
            "length",
            &format!("more than {ARCHITECTURE_LINES} lines"),
        ));
    }
    found
}

/// The files that must be there.
fn root_files(root: &Path) -> Vec<Violation> {
    let missing = ["ARCHITECTURE.md", "LICENSE-APACHE", "LICENSE-MIT"].into_iter().filter(|name| {
        let there = std::fs::metadata(root.join(name)).is_ok_and(|file| file.len() > 0);
        !there
    });
    missing
        .map(|name| Place::new(name).violation(0, "missing", "the repository must have this file"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let (_, violations) = violations(&root()).unwrap();
        let failures = violations.iter().filter(|violation| !violation.warning).map(ToString::to_string);
        assert_eq!(failures.collect::<Vec<_>>(), Vec::<String>::new());
    }

    #[test]
    fn violations_read_as_file_line_rule_text() {
        let violation = Place::new("crates/a/src/lib.rs").violation(6, "print", "no");
        assert_eq!(violation.to_string(), "crates/a/src/lib.rs:7: print: no");
        assert_eq!(violation.warning().to_string(), "crates/a/src/lib.rs:7: print: warning: no");
    }

    #[test]
    fn places_know_their_crate_and_part() {
        #[track_caller]
        fn check(path: &str, krate: &str, product: bool, library: bool) {
            let place = Place::new(path);
            assert_eq!(
                (&*place.krate, place.is_product(), place.is_library()),
                (krate, product, library),
                "{path}"
            );
        }
        check("crates/burn-lens-io/src/hub/mod.rs", "burn-lens-io", true, true);
        check("crates/burn-lens-cli/src/main.rs", "burn-lens-cli", true, false);
        check("crates/burn-lens-io/src/hub/tests.rs", "burn-lens-io", false, false);
        check("crates/burn-lens-io/tests/hub.rs", "burn-lens-io", false, false);
        check("crates/burn-lens/examples/lens.rs", "burn-lens", false, false);
        check("crates/burn-lens-testkit/src/lib.rs", "burn-lens-testkit", false, false);
        check("tests/src/lib.rs", "tests", false, false);
        check("xtask/src/main.rs", "xtask", false, false);
        check("Cargo.toml", "Cargo.toml", false, false);
    }

    #[test]
    fn the_architecture_document_is_short() {
        assert!(check("ARCHITECTURE.md", &"a\n".repeat(ARCHITECTURE_LINES)).is_empty());
        assert_eq!(check("ARCHITECTURE.md", &"a\n".repeat(ARCHITECTURE_LINES + 1)).len(), 1);
    }

    #[test]
    fn text_files_are_known_by_their_extension() {
        assert!(is_text(".ci/run") && is_text("docs/hooks.md") && is_text("a/b.rs"));
        assert!(
            !is_text("fixtures/gpt2/model.safetensors") && !is_text("Cargo.lock") && !is_text("LICENSE-MIT")
        );
    }
}
