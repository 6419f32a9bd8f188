//! Repository tooling, run as `cargo xtask COMMAND`.
//!
//! `validate` is the one command that says whether a change is good; the rest are its parts
//! and the checks that need more than a plain machine. Nothing here depends on the product's
//! crates, so it builds in seconds.

mod bench_peers;
mod command;
mod conformance;
mod deps;
mod fuzz;
mod tasks;
mod tidy;
mod validate;

use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask COMMAND

Checks:
  validate [--keep-going]    everything a change must pass: formatting, clippy, tests, doctests,
                             documentation, licences, crate dependencies, tidy
  deps                       compare the crates' dependencies with the table of allowed edges
  tidy                       the source rules that no compiler knows

Checks that need more than a plain machine:
  conformance --backend NAME run the backend suite on wgpu, vulkan, metal, cuda or cpu; an index
                             may follow, as in vulkan:1
  cuda-check                 type-check the CUDA backend. Neither CUDA nor LLVM is needed: nothing
                             is linked or run, so it proves only that the code compiles
  fuzz [--seconds N]         run every target in fuzz/ for N seconds (60)

Other:
  bench [ARGS]               run the benchmarks; ARGS go to the bench programs
  bench-peers [OPTIONS]      speed and memory beside Hugging Face and TransformerLens, which are
                             installed from PyPI; options: --shape gpt2-small|llama-160m,
                             --only WORK,…, --rounds N (7), --threads N (2), --python PROGRAM
  demo-model [ARGS]          train the demo model; ARGS are --out DIR and --seed N
  demo-sae [ARGS]            train its sparse autoencoder; ARGS are --out DIR, --seed N, --kind KIND …
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.split_first() {
        None | Some((&("help" | "-h" | "--help"), _)) => {
            print!("{HELP}");
            Ok(())
        }
        Some((&"validate", rest)) => validate::run(rest),
        Some((&"deps", [])) => deps::run(),
        Some((&"tidy", [])) => tidy::run(),
        Some((&"conformance", rest)) => conformance::run(rest),
        Some((&"cuda-check", [])) => tasks::cuda_check(),
        Some((&"fuzz", rest)) => fuzz::run(rest),
        Some((&"bench", rest)) => tasks::bench(rest),
        Some((&"bench-peers", rest)) => bench_peers::run(rest),
        Some((&"demo-model", rest)) => tasks::demo_model(rest),
        Some((&"demo-sae", rest)) => tasks::demo_sae(rest),
        Some((command, rest)) => {
            Err(format!("cannot run `{command} {}`; `cargo xtask help` lists the commands", rest.join(" ")))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
