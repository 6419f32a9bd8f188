//! Which crate may depend on which, held as data and compared with `cargo metadata`.
//!
//! An edge that is missing here is the point of the crate split: analyses cannot reach a
//! concrete model, models cannot open a file, and only one crate names a burn backend.

use serde_json::Value;

use crate::command::{Outcome, metadata};

/// The only crate whose manifest names burn's backends.
const BACKEND_CRATE: &str = "burn-lens-tensor";

/// What the tests of every crate may use.
const TESTKIT: &str = "burn-lens-testkit";

/// Which of our crates a crate may have as a normal or build dependency.
#[derive(Clone, Copy)]
enum Edges {
    Only(&'static [&'static str]),
    /// Every crate above it in the table.
    Above,
    /// Every crate of ours; nothing depends on these.
    Anything,
}

/// From the bottom up. A crate's tests, examples and benches may also use every crate above it
/// in the table, and the testkit.
const TABLE: &[(&str, Edges)] = &[
    ("xtask", Edges::Only(&[])),
    ("burn-lens-tensor", Edges::Only(&[])),
    ("burn-lens-linalg", Edges::Only(&["burn-lens-tensor"])),
    ("burn-lens-hooks", Edges::Only(&["burn-lens-tensor"])),
    ("burn-lens-models", Edges::Only(&["burn-lens-hooks", "burn-lens-linalg", "burn-lens-tensor"])),
    ("burn-lens-io", Edges::Only(&["burn-lens-models", "burn-lens-hooks", "burn-lens-tensor"])),
    ("burn-lens-analysis", Edges::Only(&["burn-lens-hooks", "burn-lens-linalg", "burn-lens-tensor"])),
    ("burn-lens-sae", Edges::Only(&["burn-lens-hooks", "burn-lens-linalg", "burn-lens-tensor"])),
    (
        "burn-lens-train",
        Edges::Only(&["burn-lens-models", "burn-lens-hooks", "burn-lens-linalg", "burn-lens-tensor"]),
    ),
    ("burn-lens-viz", Edges::Only(&["burn-lens-hooks", "burn-lens-tensor"])),
    ("burn-lens", Edges::Above),
    ("burn-lens-cli", Edges::Only(&["burn-lens", "burn-lens-viz", "burn-lens-train"])),
    ("burn-lens-testkit", Edges::Only(&["burn-lens-hooks", "burn-lens-tensor"])),
    ("burn-lens-tests", Edges::Anything),
    ("burn-lens-benches", Edges::Anything),
];

/// Features of burn that bring in a backend or tune one.
const BACKEND_FEATURES: &[&str] = &[
    "accelerate",
    "apple-amx",
    "blas-netlib",
    "cpu",
    "cubecl",
    "cuda",
    "flex",
    "fusion",
    "metal",
    "ndarray",
    "openblas",
    "openblas-system",
    "remote",
    "rocm",
    "simd",
    "tch",
    "vulkan",
    "webgpu",
    "wgpu",
    "x86-v4",
];

/// Packages that are a backend, or a part of one.
const BACKEND_PACKAGES: &[&str] = &[
    "burn-autodiff",
    "burn-backend",
    "burn-cpu",
    "burn-cubecl",
    "burn-cubecl-fusion",
    "burn-cuda",
    "burn-dispatch",
    "burn-flex",
    "burn-fusion",
    "burn-ndarray",
    "burn-remote",
    "burn-rocm",
    "burn-router",
    "burn-tch",
    "burn-wgpu",
    "cubecl",
    "wgpu",
];

/// Compares the workspace with the table and prints every difference.
pub(crate) fn run() -> Outcome {
    let packages = packages(&metadata()?);
    let found = violations(&packages);
    if found.is_empty() {
        println!("{} packages keep to the table of allowed dependencies", packages.len());
        return Ok(());
    }
    for violation in &found {
        println!("{violation}");
    }
    Err(format!("{} dependencies are not in the table of xtask/src/deps.rs", found.len()))
}

/// One of our packages, as its manifest has it.
struct Package {
    name: String,
    licensed: bool,
    dependencies: Vec<Dependency>,
    /// What its own features turn on, such as `burn/wgpu`.
    enables: Vec<String>,
}

struct Dependency {
    name: String,
    dev: bool,
    features: Vec<String>,
}

fn packages(metadata: &Value) -> Vec<Package> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().map(text).collect() };
    let dependency = |value: &Value| Dependency {
        name: text(&value["name"]),
        dev: value["kind"] == "dev",
        features: texts(&value["features"]),
    };
    let package = |value: &Value| Package {
        name: text(&value["name"]),
        licensed: value["license"].is_string(),
        dependencies: value["dependencies"].as_array().into_iter().flatten().map(dependency).collect(),
        enables: value["features"].as_object().into_iter().flatten().flat_map(|(_, on)| texts(on)).collect(),
    };
    metadata["packages"].as_array().into_iter().flatten().map(package).collect()
}

fn violations(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        let name = &package.name;
        let Some(rank) = rank(name) else {
            found.push(format!("{name}: is not in the table of xtask/src/deps.rs"));
            continue;
        };
        if !package.licensed {
            found.push(format!("{name}: has no `license.workspace = true`"));
        }
        for dependency in &package.dependencies {
            let to = &dependency.name;
            let ours = self::rank(to).is_some() || packages.iter().any(|package| package.name == *to);
            if ours && !allowed(rank, to, dependency.dev) {
                let kind = if dependency.dev { " (dev)" } else { "" };
                found.push(format!("{name} -> {to}{kind}: not an allowed edge"));
            }
        }
        if name != BACKEND_CRATE {
            let named = backends_named(package).into_iter();
            found.extend(
                named.map(|what| format!("{name}: names {what}; only {BACKEND_CRATE} names backends")),
            );
        }
    }
    found
}

fn rank(name: &str) -> Option<usize> {
    TABLE.iter().position(|(known, _)| *known == name)
}

fn allowed(from: usize, to: &str, dev: bool) -> bool {
    let above = || rank(to).is_some_and(|to| 0 < to && to < from);
    if dev && from > 0 && (to == TESTKIT || above()) {
        return true;
    }
    match TABLE[from].1 {
        Edges::Only(names) => names.contains(&to),
        Edges::Above => above(),
        Edges::Anything => true,
    }
}

fn backends_named(package: &Package) -> Vec<String> {
    let is_backend = |feature: &str| BACKEND_FEATURES.contains(&feature);
    let is_burn = |name: &str| name == "burn" || name.starts_with("burn-") && rank(name).is_none();
    let mut found = Vec::new();
    for dependency in &package.dependencies {
        if BACKEND_PACKAGES.contains(&dependency.name.as_str()) {
            found.push(format!("package `{}`", dependency.name));
        }
        if is_burn(&dependency.name) {
            let features = dependency.features.iter().filter(|feature| is_backend(feature));
            found.extend(features.map(|feature| format!("feature `{}/{feature}`", dependency.name)));
        }
    }
    let enabled = package.enables.iter().filter(|enabled| {
        enabled
            .split_once('/')
            .is_some_and(|(name, feature)| is_burn(name.trim_end_matches('?')) && is_backend(feature))
    });
    found.extend(enabled.map(|enabled| format!("feature `{enabled}`")));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_workspace_keeps_to_the_table() {
        assert_eq!(violations(&packages(&metadata().unwrap())), Vec::<String>::new());
    }

    #[test]
    fn the_table_names_only_its_own_crates() {
        for (name, edges) in TABLE {
            if let Edges::Only(names) = edges {
                assert!(names.iter().all(|to| rank(to).is_some()), "{name}");
            }
        }
    }

    /// What is wrong where `from` depends on `to`, which may say `(dev)`, with `features` of it.
    #[track_caller]
    fn check(from: &str, to: &str, features: &[&str], expected: &[&str]) {
        let kind = to.ends_with(" (dev)").then_some("dev");
        let dependency = json!({ "name": to.trim_end_matches(" (dev)"), "kind": kind, "features": features });
        let package = json!({ "name": from, "license": "MIT", "dependencies": [dependency], "features": {} });
        assert_eq!(violations(&packages(&json!({ "packages": [package] }))), expected);
    }

    #[track_caller]
    fn check_edge(from: &str, to: &str, allowed: bool) {
        let violation = [&*format!("{from} -> {to}: not an allowed edge")];
        check(from, to, &[], if allowed { &[] } else { &violation });
    }

    #[test]
    fn edges_are_those_of_the_table() {
        check_edge("burn-lens-hooks", "burn-lens-tensor", true);
        check_edge("burn-lens", "burn-lens-viz", true);
        check_edge("burn-lens", "burn-lens-cli", false);
        check_edge("burn-lens", "xtask", false);
        check_edge("burn-lens-analysis", "burn-lens-models", false);
        check_edge("burn-lens-sae", "burn-lens-testkit", false);
        check_edge("burn-lens-sae", "serde", true);
        check_edge("burn-lens-tests", "burn-lens-cli", true);
        check_edge("xtask", "burn-lens-tensor (dev)", false);
    }

    #[test]
    fn dev_edges_go_down_or_to_the_testkit() {
        check_edge("burn-lens-analysis", "burn-lens-io (dev)", true);
        check_edge("burn-lens-tensor", "burn-lens-testkit (dev)", true);
        check_edge("burn-lens-io", "burn-lens-sae (dev)", false);
    }

    #[test]
    fn only_one_crate_names_backends() {
        check(BACKEND_CRATE, "burn", &["std", "wgpu"], &[]);
        check("burn-lens-io", "burn", &["std"], &[]);
        let named = "burn-lens-io: names feature `burn/wgpu`; only burn-lens-tensor names backends";
        check("burn-lens-io", "burn", &["std", "wgpu"], &[named]);
        let named = "burn-lens-io: names package `burn-flex`; only burn-lens-tensor names backends";
        check("burn-lens-io", "burn-flex", &[], &[named]);
    }

    #[test]
    fn features_forward_to_our_crate_but_not_to_burn() {
        let package = |enables: &str| Package {
            name: "burn-lens".to_owned(),
            licensed: true,
            dependencies: Vec::new(),
            enables: vec![enables.to_owned()],
        };
        assert!(backends_named(&package("burn-lens-tensor/wgpu")).is_empty());
        assert_eq!(backends_named(&package("burn?/wgpu")), ["feature `burn?/wgpu`"]);
    }

    #[test]
    fn an_unknown_crate_is_reported() {
        let unknown = packages(&json!({ "packages": [{ "name": "burn-lens-new", "license": "MIT" }]}));
        assert_eq!(violations(&unknown), ["burn-lens-new: is not in the table of xtask/src/deps.rs"]);
    }
}
