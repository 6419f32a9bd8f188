//! The table of the original's faults names a test for each, and they are there.

use std::{
    fs,
    path::{Path, PathBuf},
};

const FAULTS: usize = 45;

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All source below a folder.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// What is between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether a crate has a test `file::name…`, or a file of tests `file`.
fn is_there(sources: &[(PathBuf, String)], test: &str) -> bool {
    let (file, name) = test.split_once("::").unwrap_or(("", test));
    let start = format!("fn {}", name.trim_end_matches('…'));
    let is_file = |path: &Path, file: &str| path.file_stem().is_some_and(|stem| stem == file);
    sources.iter().any(|(path, text)| {
        let is_test =
            (file.is_empty() || is_file(path, file)) && text.contains("#[test]") && text.contains(&start);
        is_test || is_file(path, test)
    })
}

#[test]
fn every_fault_has_a_test_that_exists() {
    let table = fs::read_to_string(crates().join("../docs/feature-data.md")).unwrap();
    let rows = table.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        Some((cells.first()?.parse::<usize>().ok()?, *cells.get(3)?))
    });
    let rows: Vec<(usize, &str)> = rows.collect();
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), (1..=FAULTS).collect::<Vec<_>>());
    for (fault, cell) in rows {
        let mut in_crate = "burn-lens-sae";
        let mut n_tests = 0;
        for name in quoted(cell) {
            if name.starts_with("burn-lens") {
                in_crate = name;
                continue;
            }
            let mut found = Vec::new();
            sources(&crates().join(in_crate), &mut found);
            assert!(is_there(&found, name), "fault {fault}: {in_crate} has no test `{name}`");
            (in_crate, n_tests) = ("burn-lens-sae", n_tests + 1);
        }
        assert!(n_tests > 0, "fault {fault} has no test");
    }
}
