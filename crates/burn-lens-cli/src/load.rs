//! From arguments to a loaded model, or a loaded dictionary.

use std::path::Path;

use burn_lens::{
    LoadOptions, Pretrained, from_pretrained, load_sae_with,
    sae::{SaeOptions, SparseAutoencoder},
};

use crate::{args::ModelArgs, error::CliError, progress::Progress};

/// Loads `name`, and notes which default processing steps are not valid for it.
pub(crate) fn load(name: &str, args: &ModelArgs, progress: &Progress) -> Result<Pretrained, CliError> {
    let options = LoadOptions {
        device: args.device.clone(),
        dtype: args.dtype,
        process: args.process.clone(),
        control: args.control,
        seed: args.seed,
        hub: progress.hub(args.revision.as_deref()),
    };
    if !args.products.choose() {
        progress.note(&format!(
            "products are of f32: {} needs a processor with AMX, and a Linux that lets this process use it",
            args.products
        ));
    }
    let step = progress.step(&format!("loading {name}"));
    let lens = from_pretrained(name, &options)?;
    drop(step);
    for (step, reason) in &lens.left_out {
        progress.note(&format!("{step} was left out: {reason}"));
    }
    Ok(lens)
}

/// Loads a dictionary.
pub(crate) fn load_sae(
    name: impl AsRef<Path>,
    options: &SaeOptions,
    progress: &Progress,
) -> Result<Box<dyn SparseAutoencoder>, CliError> {
    Ok(load_sae_with(name, options, &progress.hub(None))?)
}
