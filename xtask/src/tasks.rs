//! Commands that only start another one.

use crate::command::{Outcome, cargo, run};

/// Type-checks the CUDA backend without CUDA, and without the LLVM that its kernels are compiled by.
///
/// `DOCS_RS=1` makes cubecl's build scripts skip fetching that LLVM. Nothing is linked or run. The
/// build folder is its own, so that the variable does not make other builds start anew.
pub(crate) fn cuda_check() -> Outcome {
    let args = ["check", "-p", "burn-lens-tensor", "--no-default-features", "--features", "cuda"];
    run(cargo(args).args(["--target-dir", "target/cuda-check"]).env("DOCS_RS", "1"))
}

/// Runs the benchmarks; `args` go to their programs.
pub(crate) fn bench(args: &[&str]) -> Outcome {
    run(cargo(["bench", "-p", "burn-lens-benches", "--"]).args(args))
}

/// Trains the demo model; `args` go to the example.
pub(crate) fn demo_model(args: &[&str]) -> Outcome {
    run(cargo(["run", "--release", "-p", "burn-lens-train", "--example", "demo_model", "--"]).args(args))
}

/// Trains the sparse autoencoder of the demo model; `args` go to the example.
pub(crate) fn demo_sae(args: &[&str]) -> Outcome {
    run(cargo(["run", "--release", "-p", "burn-lens-train", "--example", "demo_sae", "--"]).args(args))
}
