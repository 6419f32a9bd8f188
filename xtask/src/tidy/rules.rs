//! The rules, each over one file.

use super::source::Source;
use super::{Place, Violation};

/// Above this many lines, tests apart, a file is reported.
const LONG_FILE: usize = 400;

/// Above this many lines, tests apart, a file fails.
const TOO_LONG_FILE: usize = 800;

/// Code that some places may not hold.
struct Forbidden {
    rule: &'static str,
    code: &'static [&'static str],
    why: &'static str,
    /// Whether the rule holds there.
    applies: fn(&Place) -> bool,
    /// Whether it holds in `#[cfg(test)]` items too.
    in_tests: bool,
    /// Lines that it lets pass all the same.
    except: fn(&Place, line: &str) -> bool,
}

const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        rule: "unfinished",
        code: &["todo!", "unimplemented!", "dbg!", "#[ignore"],
        why: "finish it or leave it out",
        applies: |_| true,
        in_tests: true,
        except: |_, _| false,
    },
    Forbidden {
        rule: "unwrap",
        code: &[".unwrap()"],
        why: "return an error, or `expect` with the invariant as its text",
        applies: |place| place.is_product(),
        in_tests: false,
        except: |_, _| false,
    },
    Forbidden {
        rule: "backend",
        code: &[
            "Device::cpu",
            "Device::cuda",
            "Device::default",
            "Device::flex",
            "Device::libtorch",
            "Device::libtorch_cuda",
            "Device::libtorch_mps",
            "Device::libtorch_vulkan",
            "Device::metal",
            "Device::ndarray",
            "Device::rocm",
            "Device::vulkan",
            "Device::webgpu",
            "Device::wgpu",
            "burn::backend",
            "burn_cubecl",
            "burn_cuda",
            "burn_flex",
            "burn_wgpu",
            "cubecl",
        ],
        why: "only crates/burn-lens-tensor/src/backend/ names a backend; take a `&Device`",
        applies: |place| {
            place.krate != "xtask" && !place.path.starts_with("crates/burn-lens-tensor/src/backend/")
        },
        in_tests: true,
        except: |_, _| false,
    },
    Forbidden {
        rule: "files",
        code: &["fs::", "std::fs", "File::", "OpenOptions", "std::net", "TcpStream", "UdpSocket"],
        why: "only burn-lens-io opens files and sockets; take text, bytes or `Weights`",
        applies: |place| place.is_library() && place.krate != "burn-lens-io",
        in_tests: false,
        except: |_, _| false,
    },
    Forbidden {
        rule: "print",
        code: &["println!", "print!", "eprintln!", "eprint!"],
        why: "a library returns what it has to say",
        applies: Place::is_library,
        in_tests: false,
        except: |_, _| false,
    },
    Forbidden {
        rule: "env",
        code: &["env::var", "env::var_os", "env::vars", "env::vars_os"],
        why: "a library takes its settings as arguments (burn-lens-io may read `HF_…` and where the home is)",
        applies: Place::is_library,
        in_tests: false,
        except: |place, line| place.krate == "burn-lens-io" && reads_cache_location(line),
    },
];

/// Whether every variable that the line names is one by which a user places the hub's cache.
fn reads_cache_location(line: &str) -> bool {
    let known =
        |name: &str| ["HF_", "XDG_CACHE_HOME", "HOME", "USERPROFILE"].iter().any(|k| name.starts_with(k));
    let reads = |call: &str| line.split(call).skip(1).all(|after| after.strip_prefix('"').is_none_or(known));
    !line.contains("env::vars") && reads("env::var(") && reads("env::var_os(")
}

/// Everything wrong with a Rust file.
pub(super) fn rust(place: &Place, text: &str) -> Vec<Violation> {
    let source = Source::new(text);
    let mut found = Vec::new();
    if !source.lines().next().is_some_and(|line| line.starts_with("//!")) {
        found.push(place.violation(0, "module-doc", "a module starts with `//!`"));
    }
    let length = source.len_without_tests();
    if length > LONG_FILE {
        let text = format!("{length} lines without tests, more than {LONG_FILE}");
        let violation = place.violation(0, "length", &text);
        found.push(if length > TOO_LONG_FILE { violation } else { violation.warning() });
    }
    for (line, attribute) in source.attributes() {
        let silences = ["allow(", "expect("].iter().any(|word| position(&attribute, word).is_some());
        let is_lint = attribute.starts_with(['a', 'e']) || attribute.starts_with("cfg_attr");
        if silences && is_lint && position(&attribute, "reason").is_none() {
            found.push(place.violation(line, "reason", "`allow` and `expect` need a `reason = \"…\"`"));
        }
    }
    for rule in FORBIDDEN.iter().filter(|rule| (rule.applies)(place)) {
        for (line, code, test) in source.code() {
            if test && !rule.in_tests {
                continue;
            }
            let held = rule.code.iter().find(|forbidden| position(code, forbidden).is_some());
            if let Some(held) = held.filter(|_| !(rule.except)(place, source.line(line))) {
                found.push(place.violation(line, rule.rule, &format!("`{held}`: {}", rule.why)));
            }
        }
    }
    if place.path.starts_with("crates/burn-lens-models/src/components/") {
        let named = source.lines().enumerate().filter(|(_, line)| line.contains("ForCausalLM"));
        let why = "a component knows no architecture; give it a variant of its config";
        found.extend(named.map(|(line, _)| place.violation(line, "components", why)));
    }
    found
}

/// Everything wrong with the white space of a text file.
pub(super) fn white_space(place: &Place, text: &str) -> Vec<Violation> {
    let trailing = text.split('\n').enumerate().filter(|(_, line)| line.ends_with([' ', '\t', '\r']));
    let mut found: Vec<Violation> = trailing
        .map(|(line, _)| place.violation(line, "trailing-space", "the line ends in white space"))
        .collect();
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        let last = text.lines().count().saturating_sub(1);
        found.push(place.violation(last, "final-newline", "a file ends with one newline"));
    }
    found
}

/// Everything wrong with a member's manifest.
pub(super) fn manifest(place: &Place, text: &str) -> Vec<Violation> {
    let is_member = place.path != "Cargo.toml" && !place.path.starts_with("fuzz/");
    if is_member && !text.contains("[lints]\nworkspace = true") {
        return vec![place.violation(0, "lints", "a member has `[lints]` with `workspace = true`")];
    }
    Vec::new()
}

/// Where `needle` is in `code` as whole words.
fn position(code: &str, needle: &str) -> Option<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(needle).map(|(at, _)| at).find(|at| {
        let before = code[..*at].chars().next_back().is_some_and(is_word);
        let after = code[at + needle.len()..].chars().next().is_some_and(is_word);
        !(before && needle.starts_with(is_word) || after && needle.ends_with(is_word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: &str = "crates/burn-lens-sae/src/train.rs";

    /// The lines and rules that `code`, after a module doc, breaks at `path`.
    #[track_caller]
    fn check(path: &str, code: &str, expected: &[(usize, &str)]) {
        let found = rust(&Place::new(path), &format!("//! Doc.\n{code}\n"));
        let found: Vec<_> = found.iter().map(|violation| (violation.line, violation.rule)).collect();
        assert_eq!(found, expected, "{path}: {code}");
    }

    #[test]
    fn every_module_starts_with_its_doc() {
        let rules = |text| rust(&Place::new(LIBRARY), text).iter().map(|v| v.rule).collect::<Vec<_>>();
        assert_eq!(rules("use x;\n//! Doc.\n"), ["module-doc"]);
        assert_eq!(rules(""), ["module-doc"]);
        assert_eq!(rules("//! Doc.\n"), Vec::<&str>::new());
    }

    #[test]
    fn unfinished_code_fails_everywhere() {
        for path in [LIBRARY, "tests/src/gpt2.rs", "benches/forward.rs", "crates/burn-lens-cli/src/main.rs"] {
            check(path, "fn f() { todo!() }", &[(2, "unfinished")]);
            check(path, "#[ignore = \"slow\"]\nfn f() {}", &[(2, "unfinished")]);
            check(path, "#[cfg(test)]\nmod tests {\n  dbg!(1);\n}", &[(4, "unfinished")]);
            check(path, "// todo!() later\nfn f() { mytodo!() }", &[]);
        }
    }

    #[test]
    fn unwrap_is_for_tests() {
        check(LIBRARY, "fn f() { x.unwrap(); }", &[(2, "unwrap")]);
        check(LIBRARY, "fn f() { x.unwrap_or(1); }\n/// x.unwrap()\nfn g() {}", &[]);
        check(LIBRARY, "#[cfg(test)]\nmod tests {\n  fn f() { x.unwrap(); }\n}", &[]);
        check("crates/burn-lens-cli/src/main.rs", "fn f() { x.unwrap(); }", &[(2, "unwrap")]);
        for path in [
            "crates/burn-lens-sae/tests/train.rs",
            "crates/burn-lens/examples/lens.rs",
            "tests/src/gpt2.rs",
            "benches/forward.rs",
            "xtask/src/main.rs",
            "crates/burn-lens-testkit/src/lib.rs",
            "crates/burn-lens-sae/src/train/tests.rs",
            "fuzz/fuzz_targets/hf_config.rs",
        ] {
            check(path, "fn f() { x.unwrap(); }", &[]);
        }
    }

    #[test]
    fn one_folder_names_backends() {
        let code = "fn f() { Device::flex(); }\nfn g() -> Device { Device::default() }";
        check(LIBRARY, code, &[(2, "backend"), (3, "backend")]);
        check("tests/src/gpt2.rs", code, &[(2, "backend"), (3, "backend")]);
        check("crates/burn-lens-tensor/src/any.rs", "use burn::backend::Flex;", &[(2, "backend")]);
        check("crates/burn-lens-tensor/src/backend/device.rs", code, &[]);
        check(LIBRARY, "fn f() { MyDevice::flex(); Device::flexible(); DeviceSpec::default(); }", &[]);
    }

    #[test]
    fn one_library_opens_files() {
        let code = "fn f() { std::fs::read(p); }\nfn g() { File::open(p); }";
        check(LIBRARY, code, &[(2, "files"), (3, "files")]);
        check(LIBRARY, "use std::{fs, io};\nfn f() { fs::read(p); MyFile::open(p); }", &[(3, "files")]);
        check(LIBRARY, "use std::net::TcpListener;", &[(2, "files")]);
        check("crates/burn-lens-io/src/checkpoint.rs", code, &[]);
        check("crates/burn-lens-cli/src/main.rs", code, &[]);
        check("crates/burn-lens/examples/lens.rs", code, &[]);
    }

    #[test]
    fn libraries_do_not_print() {
        check(LIBRARY, "fn f() { println!(); }\nfn g() { eprint!(); }", &[(2, "print"), (3, "print")]);
        check(LIBRARY, "fn f() { writeln!(out, \"println!\"); }", &[]);
        check("crates/burn-lens-cli/src/main.rs", "fn f() { println!(); }", &[]);
    }

    #[test]
    fn libraries_do_not_read_the_environment() {
        check(LIBRARY, "fn f() { std::env::var(\"HF_HOME\"); }", &[(2, "env")]);
        let io = "crates/burn-lens-io/src/hub.rs";
        check(io, "fn f() { env::var_os(\"HF_HOME\").or_else(|| env::var_os(\"HOME\")); }", &[]);
        check(io, "fn f(variable: &str) { env::var(variable); }", &[]);
        check(io, "fn f() { env::var(\"BURN_LENS_DEVICE\"); }", &[(2, "env")]);
        check(io, "fn f() { env::vars(); }", &[(2, "env")]);
    }

    #[test]
    fn silenced_lints_have_a_reason() {
        check(LIBRARY, "#[allow(unused)]\nfn f() {}", &[(2, "reason")]);
        check(LIBRARY, "#![expect(\n    clippy::a,\n    clippy::b\n)]", &[(2, "reason")]);
        check(LIBRARY, "#[cfg_attr(windows, allow(unused))]\nfn f() {}", &[(2, "reason")]);
        check(LIBRARY, "#[allow(unused, reason = \"used on Windows\")]\nfn f() {}", &[]);
        check(LIBRARY, "#[error(\"expect(ed)\")]\nfn f() {}", &[]);
    }

    #[test]
    fn components_know_no_architecture() {
        let code = "const X: &str = \"LlamaForCausalLM\";";
        check("crates/burn-lens-models/src/components/mlp.rs", code, &[(2, "components")]);
        check("crates/burn-lens-models/src/families/llama.rs", code, &[]);
    }

    #[test]
    fn long_files_warn_and_longer_ones_fail() {
        let of = |lines: usize| rust(&Place::new(LIBRARY), &"//! Doc.\n".repeat(lines));
        assert!(of(LONG_FILE).is_empty());
        assert!(of(LONG_FILE + 1).iter().all(|violation| violation.rule == "length" && violation.warning));
        assert!(
            of(TOO_LONG_FILE + 1).iter().all(|violation| violation.rule == "length" && !violation.warning)
        );
        let tests = format!("//! Doc.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "//\n".repeat(TOO_LONG_FILE));
        assert!(rust(&Place::new(LIBRARY), &tests).is_empty());
    }

    #[test]
    fn white_space_ends_no_line_and_no_file() {
        let rules = |text| {
            white_space(&Place::new("a.md"), text).iter().map(|v| (v.line, v.rule)).collect::<Vec<_>>()
        };
        assert_eq!(rules("a\nb \n"), [(2, "trailing-space")]);
        assert_eq!(rules("a\r\nb\n"), [(1, "trailing-space")]);
        assert_eq!(rules("a\nb"), [(2, "final-newline")]);
        assert_eq!(rules("a\n\n"), [(2, "final-newline")]);
        assert_eq!(rules("a\n"), []);
        assert_eq!(rules(""), []);
    }

    #[test]
    fn members_take_the_workspace_lints() {
        let count = |path, text| manifest(&Place::new(path), text).len();
        assert_eq!(count("crates/burn-lens-sae/Cargo.toml", "[package]\n"), 1);
        assert_eq!(count("crates/burn-lens-sae/Cargo.toml", "[lints]\nworkspace = true\n"), 0);
        assert_eq!(count("Cargo.toml", "[workspace]\n"), 0);
    }
}
