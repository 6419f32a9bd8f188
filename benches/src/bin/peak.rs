//! The most memory that works on a model of GPT-2 small's shape take, the model itself (622 MiB) included, with
//! the system's allocator: mimalloc, which the benchmarks and the command line use, fills whole huge pages and
//! takes about a tenth more. The peers' scripts print theirs.

use burn_lens::{
    analysis::{
        Answers, AttributionOptions, Circuits, Composition, Folding, NeuronOptions, Residuals, StackOptions,
        Sublayers, Unit, direct_logit_attribution,
    },
    prelude::*,
};
use burn_lens_benches::{GPT2_SMALL, device, peak_mib};

/// Positions of the one prompt.
const POS: usize = 256;

type Failure = Box<dyn std::error::Error>;

/// Prints the most memory since the last call, where the system can forget what was before.
fn report(work: &str) -> Result<(), Failure> {
    let peak = peak_mib().ok_or("this system does not say how much memory a process held")?;
    println!("{work}: {peak} MiB");
    std::fs::write("/proc/self/clear_refs", "5")?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let device = device();
    let model = GPT2_SMALL.model(&device);
    report("the model")?;
    let tokens = GPT2_SMALL.tokens(1, POS, &device);
    let input = Input::from(&tokens);
    let (logits, cache) = model.run_with_cache(&input, &RunOptions::default(), &CacheOptions::default())?;
    drop(logits);
    report(&format!("everything cached, 1 x {POS}"))?;
    rows(&Residuals::new(&model, &cache)?)?;
    drop(cache);
    circuits(&model)
}

fn circuits(model: &HookedTransformer) -> Result<(), Failure> {
    let circuits = Circuits::new(model, Folding::Raw)?;
    circuits.ov()?.singular_values()?;
    report("OV singular values")?;
    circuits.ov()?.eigenvalues()?;
    report("OV eigenvalues")?;
    circuits.full_ov()?.eigenvalues()?;
    report("full OV eigenvalues")?;
    circuits.all_composition_scores(Composition::Q)?;
    report("all_composition_scores Q")
}

/// What `peer_activation_cache.py` does.
fn rows(residuals: &Residuals<'_, HookedTransformer>) -> Result<(), Failure> {
    let all = StackOptions::default();
    let last = StackOptions { pos_slice: Slice::Index(-1), ..StackOptions::default() };
    let attribution = |by| AttributionOptions {
        answers: Answers::One(7),
        against: Some(Answers::One(11)),
        by,
        pos_slice: Slice::All,
    };
    residuals.stack_head_results(&all, false)?;
    report("stack_head_results")?;
    let parts = residuals.decompose_resid(&all, Sublayers::All, true)?;
    residuals.logit_attrs(&parts, 7, Some(&Answers::One(11)))?;
    drop(parts);
    report("logit_attrs(decompose_resid)")?;
    residuals.stack_neuron_results(&last, &NeuronOptions::default())?;
    report("stack_neuron_results at the last position")?;
    direct_logit_attribution(residuals, &attribution(Unit::Head))?;
    report("attribution by head, all positions")?;
    direct_logit_attribution(residuals, &attribution(Unit::Neuron))?;
    report("attribution by neuron, all positions")
}
