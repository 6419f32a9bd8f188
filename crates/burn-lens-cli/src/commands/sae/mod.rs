//! `burn-lens sae`: what a dictionary is, and how well it stands in for an activation.

mod args;
mod eval;
mod info;

use std::path::Path;

use burn_lens::{
    burn::tensor::Device,
    sae::{SaeOptions, SparseAutoencoder},
    tensor::FloatType,
};

pub(crate) use args::SaeArgs;
use args::{FileArgs, SaeCommand};

use crate::{error::CliError, load::load_sae, progress::Progress, report::Report};

/// Runs one of the commands.
pub(crate) fn sae(args: &SaeArgs, progress: &Progress) -> Result<Report, CliError> {
    match &args.command {
        SaeCommand::Info(args) => info::info(args, progress),
        SaeCommand::Eval(args) => eval::eval(args, progress),
    }
}

impl FileArgs {
    fn open(
        &self,
        path: &Path,
        device: &Device,
        dtype: FloatType,
        progress: &Progress,
    ) -> Result<Box<dyn SparseAutoencoder>, CliError> {
        let options = SaeOptions {
            dtype,
            hook_name: self.hook.clone(),
            hook_name_out: self.hook_out.clone(),
            scaling_factor: self.scaling_factor,
            k: self.k,
            ..SaeOptions::on(device)
        };
        load_sae(path, &options, progress)
    }
}
